"""The crop laws in Grain's pipelines: torchvision's pixels, the exact law.

A right program fails each p-value here with probability ALARM = 1e-4; seeds are
fixed. Windows are read off the pixels of an image of coordinates, so that these
tests know nothing of how the windows are drawn.
"""

import io
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from test_exact import ALARM, p_value

from pp_ops import laws
from pp_ops.errors import UserError

grain = pytest.importorskip("grain")
from pp_ops.grain import RandomResizedCrop  # noqa: E402, it imports grain

ROOT = pathlib.Path(__file__).parents[1]
SHAPE = (64, 96)
# The pixel at (y, x) is (y, x, 7).
COORDINATES = np.stack(
  [*np.mgrid[: SHAPE[0], : SHAPE[1]], np.full(SHAPE, 7)], axis=-1
).astype(np.uint8)


class Source:
  """Grain's random access source of `num` elements, all of one image."""

  def __init__(self, num, image=COORDINATES):
    self._num, self._image = num, image

  def __len__(self):
    return self._num

  def __getitem__(self, index):
    return {"image": self._image, "label": int(index)}


def window(crop):
  """(y, x, h, w) that an unresized crop of COORDINATES was cut at."""
  (y, x, _), (h, w, _) = crop[0, 0].tolist(), crop.shape
  np.testing.assert_array_equal(crop, COORDINATES[y : y + h, x : x + w])
  return y, x, h, w


def by_dataset(num, crop, seed, epochs=1):
  data = grain.MapDataset.source(Source(num)).seed(seed)
  data = data.random_map(crop).repeat(epochs)
  # By index, because an iterator's threads make it ten times slower.
  return [data[i] for i in range(len(data))]


def by_loader(num, crop, seed, epochs=1):
  sampler = grain.samplers.IndexSampler(num, num_epochs=epochs, seed=seed)
  return list(
    grain.DataLoader(
      data_source=Source(num), sampler=sampler, operations=[crop]
    )
  )


@pytest.mark.parametrize("run", [by_dataset, by_loader])
def test_an_element_is_a_function_of_seed_epoch_and_place(run):
  # Grain's loader reads absl's flags, which pytest does not parse.
  from absl import flags

  flags.FLAGS.mark_as_parsed()
  crop = RandomResizedCrop("beta_crop(alpha=2)")
  elements = run(30, crop, 1, epochs=2)
  assert [e["label"] for e in elements] == [*range(30)] * 2
  windows = [window(e["image"]) for e in elements]
  assert len(set(windows)) == 60
  # Pickled, as worker processes get it.
  again = run(30, pickle.loads(pickle.dumps(crop)), 1, epochs=2)
  assert [window(e["image"]) for e in again] == windows
  # Grain's loader seeds element i by seed + i: near seeds share windows.
  other = run(30, crop, 1000)
  assert not {window(e["image"]) for e in other} & set(windows)


@pytest.mark.parametrize(
  ("spec", "law"),
  [
    ("inception_crop_fixed(area_min=8)", laws.FixedLaw(0.08)),
    ("inception_crop", laws.NativeLaw()),
    ("decode_jpeg_and_beta_crop(alpha=2)", laws.BetaLaw(alpha=2)),
  ],
)
@pytest.mark.first(1)
def test_the_exact_law(spec, law):
  num = 8_000
  crop = RandomResizedCrop(spec)
  assert crop.law == law and crop == RandomResizedCrop(law)
  elements = by_dataset(num, crop, 3)
  y, x, h, w = np.array([window(e["image"]) for e in elements]).T
  assert p_value((h, w), law, *SHAPE) > ALARM
  # Uniform over n offsets, plus a uniform in [0, 1), is uniform in [0, n).
  # TensorFlow's law never draws the last of the offsets.
  last = 0 if isinstance(law, laws.NativeLaw) else 1
  jitter = np.random.default_rng(0).random((2, num))
  for at, side, whole, more in zip((y, x), (h, w), SHAPE, jitter, strict=True):
    place = (at + more) / np.maximum(whole - side + last, 1)
    assert stats.kstest(place, "uniform").pvalue > ALARM


def smooth(mode, size, seed=0):
  rng = np.random.default_rng(seed)
  cells = rng.integers(0, 256, (9, 13, 4), np.uint8)
  image = Image.fromarray(cells, "RGBA").resize(size, Image.Resampling.BICUBIC)
  return image.convert("RGB").convert(mode)


def encoded(image, kind):
  file = io.BytesIO()
  image.save(file, kind)
  return file.getvalue()


def drawn_window(law, seed):
  crop = RandomResizedCrop(law)
  element = crop.random_map({"image": COORDINATES}, np.random.default_rng(seed))
  return window(element["image"])


@pytest.mark.parametrize("size", [48, (20, 130)], ids=str)
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_pixels_are_torchvisions_on_pillow_images(size, method):
  functional = pytest.importorskip("torchvision.transforms.functional")
  law = laws.BetaLaw(alpha=0.5)
  crop = RandomResizedCrop(law, size, method)
  turned = SHAPE[::-1]
  rgb, grey = smooth("RGB", turned), smooth("L", turned, 1)
  cmyk = encoded(smooth("CMYK", turned, 2), "JPEG")
  jpeg, png = encoded(rgb, "JPEG"), encoded(grey, "PNG")
  decoded = lambda data: Image.open(io.BytesIO(data)).convert("RGB")
  cases = [
    (np.asarray(rgb), rgb),
    (np.asarray(grey)[..., None], grey),
    (jpeg, decoded(jpeg)),
    (png, decoded(png)),
    (cmyk, decoded(cmyk)),
  ]
  for seed in range(20):
    place = drawn_window(law, seed)
    for image, pillow in cases:
      element = {"image": image, "label": 5}
      got = crop.random_map(element, np.random.default_rng(seed))
      expected = functional.resized_crop(
        pillow,
        *place,
        [size, size] if isinstance(size, int) else size,
        functional.InterpolationMode(method),
        antialias=True,
      )
      expected = np.asarray(expected)
      if expected.ndim == 2:
        expected = expected[..., None]
      np.testing.assert_array_equal(got["image"], expected)
      assert got["image"].dtype == np.uint8 and got["image"].flags.writeable
      assert got["label"] == 5 and element["image"] is image


def test_laws_share_random_numbers():
  """Ten attempts or a hundred: the same window if the first ten have one."""
  long = laws.FixedLaw(max_attempts=100)
  pairs = [
    (drawn_window(laws.FixedLaw(), s), drawn_window(long, s)) for s in range(99)
  ]
  assert np.mean([a == b for a, b in pairs]) > 0.95


def test_another_key():
  crop = RandomResizedCrop("power_crop", 8, key="left")
  element = {"left": COORDINATES, "image": b"another"}
  got = crop.random_map(element, np.random.default_rng(0))
  assert got["left"].shape == (8, 8, 3) and got["image"] == b"another"


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"law": "beta_corp"}, "unknown op 'beta_corp': did you mean 'beta_crop'"),
    ({"law": "resize(3)"}, "'resize' declares no crop law"),
    ({"law": "beta_crop(alpha=0)"}, "alpha=0: need a finite number above 0"),
    ({"law": "beta_crop(224, 2)"}, r"size=224 is not the law's"),
    ({"law": "power_crop(antialias=True)"}, "antialias=True is not the law's"),
    ({"law": "power_crop(key='left')"}, "key='left' is not the law's"),
    ({"law": laws.BetaLaw}, r"law=<class .*need a pp_ops\.laws law"),
    ({"size": 0}, "size=0: need a pixel count"),
    ({"size": (8, 8.5)}, r"size=\(8, 8\.5\): need a pixel count"),
    ({"method": "area"}, "unknown resize method 'area': did you mean"),
  ],
  ids=str,
)
def test_wrong_arguments(kwargs, message):
  with pytest.raises(UserError, match=message) as e:
    RandomResizedCrop(**{"law": "beta_crop", **kwargs})
  assert "\n" not in str(e.value)


@pytest.mark.parametrize(
  ("element", "message"),
  [
    ({"img": 1, "label": 2}, "no feature 'image'; there are 'img', 'label'"),
    ({}, "no feature 'image'; got a dict"),
    (COORDINATES, r"no feature 'image'; got a uint8 \[64, 96, 3\]"),
    ({"image": COORDINATES / 255}, r"'image' is float64 \[64, 96, 3\]: need"),
    ({"image": COORDINATES[..., 0]}, r"'image' is uint8 \[64, 96\]: need"),
    ({"image": COORDINATES[:0]}, r"'image' is uint8 \[0, 96, 3\]: need"),
    ({"image": COORDINATES[..., :2]}, r"'image' is uint8 \[64, 96, 2\]: need"),
    ({"image": "cat.jpg"}, "'image' is str: need bytes or a uint8 array"),
    ({"image": b"no image"}, "Pillow cannot decode these 8 bytes"),
    (
      {"image": encoded(smooth("RGB", (90, 60)), "JPEG")[:-300]},
      "Pillow cannot decode .* bytes: image file is truncated",
    ),
    (
      {"image": encoded(Image.fromarray(np.ones((9, 9), np.uint16)), "PNG")},
      "has Pillow's mode 'I;16': need 8 bits a channel",
    ),
  ],
  ids=range(11),
)
def test_wrong_elements(element, message):
  crop = RandomResizedCrop("beta_crop")
  with pytest.raises(UserError, match=message) as e:
    crop.random_map(element, np.random.default_rng(0))
  assert "\n" not in str(e.value)


def test_a_mistake_comes_through_grain():
  data = grain.MapDataset.source(Source(3)).seed(0)
  data = data.random_map(RandomResizedCrop("beta_crop", key="picture"))
  with pytest.raises(UserError, match="no feature 'picture'"):
    list(data)


def test_no_tensorflow_is_loaded_and_no_jax_needed():
  """JAX is hidden, because Grain itself would load it."""
  program = """
import sys
sys.modules["jax"] = None
import numpy as np
from pp_ops.grain import RandomResizedCrop
crop = RandomResizedCrop("beta_crop(alpha=2.5, beta=3)", 8)
image = np.zeros((30, 40, 3), np.uint8)
out = crop.random_map({"image": image}, np.random.default_rng(0))
assert out["image"].shape == (8, 8, 3)
assert "tensorflow" not in sys.modules
"""
  subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
