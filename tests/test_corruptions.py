"""The corruptions, against two ports of the code that made ImageNet-C.

TFDS's port and `imagecorruptions` draw from NumPy's global functions, which
these tests replace by those of a generator. Ours then draws the same numbers,
so that pixels are compared and not distributions: no test here fails by chance.
"""

import functools
import os
import sys
import types

import numpy as np
import PIL.Image
import pytest
from op_helpers import photo, run, run_many

from pp_ops import corruptions
from pp_ops.corruptions import NAMES, arrays, corrupt, spatter, weather

# `imagecorruptions` is the reference for these. TFDS's `pixelate` resizes by
# bicubic interpolation, its fog has another size, and its motion blur and snow
# need ImageMagick, which is not here.
IN_IMAGECORRUPTIONS = {"fog", "motion_blur", "pixelate", "snow"}
# TFDS's frost has one size. For snow, 180 pixels, because with other sides
# `imagecorruptions` cuts off pixels at two edges instead of four. `pixelate`
# there differs from Pillow's box filter where two pixels are equally near.
SIDES = {
  "frost": (224, 224),
  "snow": (180, 180),
  "pixelate": (64, 64),
  "elastic_transform": (64, 64),
}
# ImageMagick truncates flakes to whole grey levels before and after the blur;
# `imagecorruptions` rounds them once. Each flake is added twice.
TOLERANCE = {"snow": 4}


def reference(name, severity, image, seed, monkeypatch):
  """The image as a port corrupts it, truncated to grey levels as ImageNet-C."""
  skimage = pytest.importorskip("skimage")
  pytest.importorskip("cv2")
  rng = np.random.default_rng(seed)
  draws = {"randint": "integers"} | {
    n: n for n in ("normal", "uniform", "poisson")
  }
  for theirs, ours in draws.items():
    monkeypatch.setattr(np.random, theirs, getattr(rng, ours))
  noise = functools.partial(skimage.util.random_noise, rng=rng)
  monkeypatch.setattr(skimage.util, "random_noise", noise)
  if name in IN_IMAGECORRUPTIONS:
    # It imports what setuptools and NumPy no longer have.
    stub = types.SimpleNamespace(resource_filename=os.path.join)
    monkeypatch.setitem(sys.modules, "pkg_resources", stub)
    monkeypatch.setattr(np, "float_", float, raising=False)
    port = pytest.importorskip("imagecorruptions.corruptions")
    image = PIL.Image.fromarray(image)
  else:
    from tensorflow_datasets.image_classification import corruptions as port

    monkeypatch.setattr(port, "around_and_astype", lambda x: x)
  if name == "frost":
    files = [os.path.join(weather.frost_dir(), n) for n in weather.FROST]
    monkeypatch.setattr(port, "FROST_FILENAMES", files)
  return np.uint8(getattr(port, name)(image, severity))


def check_against_reference(name, image, monkeypatch):
  if name == "frost" and not frost_is_here():
    pytest.skip("frost's photographs come with imagecorruptions")
  for severity in range(1, 6):
    rng = np.random.default_rng(severity)
    constants = NAMES[name].constants[224][severity - 1]
    if name == "elastic_transform":  # ours in image sides, TFDS's in pixels
      constants = [c * 224 / len(image) for c in constants]
    constants = constants if np.iterable(constants) else [constants]
    ours = NAMES[name].function(image, rng, *constants).astype(int)
    with monkeypatch.context() as patches:
      theirs = reference(name, severity, image, severity, patches)
    difference = ours - theirs
    assert np.abs(difference).max() <= TOLERANCE.get(name, 1), severity
    assert abs(difference.mean()) < 0.6, severity
    # It did something.
    assert np.abs(ours - image.astype(int)).mean() > 0.5, severity


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_the_reference_s(name, monkeypatch):
  image = photo(*SIDES.get(name, (61, 84)))
  check_against_reference(name, image, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_the_reference_s_in_imagenet_s_size(name, monkeypatch):
  image = photo(*(360, 360) if name == "snow" else (224, 224), seed=5)
  image[50:90, 30:99] = image[50, 30]  # flat, with edges
  image[100:140, 10:60], image[60:80, 5:20] = 255, 0
  check_against_reference(name, image, monkeypatch)


def test_motion_is_imagemagick_s():
  """These pixels are `convert y.pgm -motion-blur 3x2-70`, version 6.9.11."""
  image = (37 * np.arange(35) % 256).astype(np.uint8).reshape(5, 7)
  expected = [
    [14, 51, 88, 125, 162, 198, 222],
    [15, 52, 89, 126, 163, 199, 223],
    [17, 54, 91, 128, 165, 201, 224],
    [19, 56, 93, 130, 167, 204, 227],
    [22, 59, 96, 133, 170, 206, 230],
  ]
  np.testing.assert_array_equal(arrays.moved(image, 3, 2, -70), expected)


def test_edges_and_distances_are_opencv_s():
  cv2 = pytest.importorskip("cv2")
  noise = np.random.default_rng(0).normal(150, 700, (200, 150))
  image = arrays.gaussian(noise, 2).clip(0, 255).astype(np.uint8)
  edges = spatter._canny(image, 50, 150)
  expected = cv2.Canny(image, 50, 150)
  assert 0.1 < edges.mean() < 0.5
  np.testing.assert_array_equal(edges, expected > 0)
  edges[60:, :] = False  # far from any, too
  expected = cv2.distanceTransform(
    255 - 255 * edges.astype("u1"), cv2.DIST_L2, 5
  )
  distance = spatter._distance(edges)
  np.testing.assert_allclose(distance, np.minimum(expected, 20), atol=1e-3)


def test_the_table():
  """The names in the order of ImageNet-C, whose first 15 the mCE is over."""
  assert [n for n in NAMES if not NAMES[n].in_mce] == [*NAMES][15:]
  for name, corruption in NAMES.items():
    assert [*corruption.constants] == [224, 64, 32], name
    assert all(len(c) == 5 for c in corruption.constants.values()), name
  # The shorter side decides which benchmark's constants an image gets.
  for shape, benchmark in {
    (32, 40): 32,
    (64, 33): 64,
    (65, 70): 224,
    (300, 200): 224,
  }.items():
    image = photo(*shape)
    out = corrupt(image, "jpeg_compression", 2, None)
    quality = NAMES["jpeg_compression"].constants[benchmark][1]
    expected = NAMES["jpeg_compression"].function(image, None, quality)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
  "shape",
  [(32, 32), (40, 75), pytest.param((512, 500), marks=pytest.mark.slow)],
)
def test_all_sizes(shape):
  """Every corruption at its strongest; black and white are the odd cases."""
  grey = (np.full((*shape, 3), v, np.uint8) for v in (0, 255))
  for image in (photo(*shape), *grey):
    for name in NAMES:
      if name != "frost" or frost_is_here():
        out = corrupt(image, name, 5, np.random.default_rng(0))
        assert out.shape == image.shape and out.dtype == np.uint8, name


def frost_is_here():
  try:
    return weather.frost_dir()
  except ValueError:
    return None


def test_no_drop_no_spatter():
  """Where the authors' code divides 0 by 0, and blackens the image."""
  image = photo(32, 32)
  out = spatter.spatter(
    image, np.random.default_rng(0), 0.6, 0.01, 4, 0.9, 0.6, 0
  )
  assert np.abs(out.astype(int) - image).max() <= 1


def test_the_op_draws_from_the_example_s_seed():
  image = photo(40, 48)
  spec = "corrupt('glass_blur', 2)|corrupt('gaussian_noise')"
  outs = run_many(spec, image, 5)
  for i in (0, 4):
    np.testing.assert_array_equal(outs[i], run(spec, image, i))
  assert (outs[0] != outs[1]).any(-1).mean() > 0.9
  noise = "corrupt('gaussian_noise', severity=5)"
  first, second = run_many(noise, image, 2, seeded=False).astype(int)
  assert (first != second).mean() > 0.8
  # Two ops of a string draw each their own.
  twice = run(f"copy('image', 'b')|{noise[:-1]}, key='b')|{noise}", image)
  assert (twice != run(noise, image)).mean() > 0.8


def test_frost_is_taken_from_a_folder(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  for i, name in enumerate(weather.FROST):
    ice = np.full((40, 60, 3), 50 * i + 20, np.uint8)
    ice[rng.integers(40), rng.integers(60)] += 9
    PIL.Image.fromarray(ice).save(tmp_path / name.replace("jpg", "png"))
    os.replace(tmp_path / name.replace("jpg", "png"), tmp_path / name)
  image = photo(70, 66)
  spec = f"corrupt('frost', 1, frost={str(tmp_path)!r})"
  added = run(spec, image).astype(int) - image
  level = np.median(added / 0.4)
  assert min(abs(level - (50 * i + 20)) for i in range(5)) < 3
  monkeypatch.setenv("FROST_DIR", str(tmp_path))
  np.testing.assert_array_equal(
    run("corrupt('frost', 1)", image), added + image
  )
  (tmp_path / "frost3.png").unlink()
  with pytest.raises(
    ValueError, match=r"lacks frost3\.png: need the photographs"
  ):
    run("corrupt('frost')", image)
  monkeypatch.delenv("FROST_DIR")
  monkeypatch.setattr(weather.importlib.util, "find_spec", lambda _: None)
  with pytest.raises(ValueError, match="'frost': need the photographs") as e:
    run("corrupt('frost')", image)
  assert "pip install --no-deps imagecorruptions" in str(e.value)


BAD = {
  "corrupt": "missing a required argument: 'name'",
  "corrupt('fgo')": "unknown corruption 'fgo': did you mean 'fog'?",
  "corrupt('fog', 0)": "severity=0: need a whole number, 1 <= severity <= 5",
  "corrupt('fog', 2.5)": "severity=2.5: need a whole number",
  "corrupt('fog', frost='x')": "frost='x' is for corruption 'frost'",
  "value_range|corrupt('fog')": "got float32 (64, 64, 3): need uint8",
  "central_crop(31)|corrupt('fog')": "image of 31x31: need at least 32 pixels",
}


@pytest.mark.parametrize("spec", BAD)
def test_bad_arguments(spec):
  with pytest.raises(ValueError, match=r".") as e:
    run(spec, photo(64, 64))
  assert BAD[spec] in str(e.value) and "\n" not in str(e.value)


def test_bad_images():
  with pytest.raises(ValueError, match="need 3 channels"):
    run("corrupt('fog')", photo(64, 64)[..., :1])
  with pytest.raises(ValueError, match="image of 40x20: need at least 32"):
    corruptions.corrupt(photo(40, 20), "fog", 1, np.random.default_rng(0))
