"""Random Erasing: its boxes against timm's and a transcription, its noise."""

import functools
import math
import random

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from op_helpers import ALARM, raises_one_line, run, run_many

from pp_ops import random_erasing
from pp_ops.random import Rng, example_seed
from pp_ops.registry import get_preprocess_fn

LAWS = {
  "default": {},
  "three": {"max_count": 3},
  "recipe": {"min_count": 2, "max_count": 4, "max_area": 0.5},
  "often too big": {"min_area": 0.5, "max_area": 1.2, "min_aspect": 0.2},
  "tall": {"min_aspect": 1.5, "max_aspect": 4},
}
SHAPE = (24, 37)


def numpy_boxes(rng, shape, min_area=0.02, max_area=1 / 3, **law):
  """Boxes (top, left, height, width) of one image, transcribed."""
  lowest = law.get("min_aspect", 0.3)
  aspects = np.log([lowest, law.get("max_aspect", 1 / lowest)])
  least = law.get("min_count", 1)
  count = rng.integers(least, law.get("max_count", least) + 1)
  boxes = []
  for _ in range(count):
    for _ in range(10):
      area = rng.uniform(min_area, max_area) * shape[0] * shape[1] / count
      aspect = np.exp(rng.uniform(*aspects))
      h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
      if h < shape[0] and w < shape[1]:
        top = rng.integers(0, shape[0] - h + 1)
        left = rng.integers(0, shape[1] - w + 1)
        boxes.append((top, left, h, w))
        break
  return boxes


@functools.cache
def our_boxes(num, shape, **law):
  """Our boxes of `num` images: a list of lists, cached, so do not change it."""
  aspect = law.get("min_aspect", 0.3), law.get("max_aspect", None)
  aspect = aspect[0], aspect[1] or 1 / aspect[0]
  least = law.get("min_count", 1)
  spec = {
    "area": (law.get("min_area", 0.02), law.get("max_area", 1 / 3)),
    "log_aspect": tuple(map(math.log, aspect)),
    "count": (least, law.get("max_count", least)),
  }

  def draw(i):
    rng = Rng(example_seed(5, 0, i))
    return random_erasing.draw_boxes(*map(tf.constant, shape), rng, **spec)

  boxes = tf.data.Dataset.range(num).map(draw).batch(num)
  return [
    [tuple(b) for b in image if b[2:].any()]
    for image in next(iter(boxes)).numpy()
  ]


def statistics(images, shape):
  """Samples of whatever the law decides, by name."""
  boxes = np.array([b for image in images for b in image])
  top, left, h, w = boxes.T
  area = np.array([sum(b[2] * b[3] for b in image) for image in images])
  first = np.array([image[0] for image in images if len(image) > 1])
  second = np.array([image[1] for image in images if len(image) > 1])
  pairs = {}
  if len(first):
    pairs = {
      "distance": first[:, 0] - second[:, 0],
      "larger": first[:, 2] * first[:, 3] - second[:, 2] * second[:, 3],
    }
  return pairs | {
    "count": np.array([len(image) for image in images]),
    "total area": area,
    "height": h,
    "width": w,
    "aspect": h / w,
    "top": top,
    "left": left,
    "bottom": shape[0] - top - h,
    "right": shape[1] - left - w,
  }


def assert_same_law(one, other, shape):
  one, other = statistics(one, shape), statistics(other, shape)
  assert one.keys() == other.keys()
  for name in one:
    # For whole numbers this test is conservative: it alarms more rarely.
    test = scipy.stats.ks_2samp(one[name], other[name])
    assert test.pvalue > ALARM, name


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.first(1)
def test_boxes_follow_the_law(law):
  rng, num = np.random.default_rng(0), 5000
  theirs = [numpy_boxes(rng, SHAPE, **law) for _ in range(num)]
  assert_same_law(our_boxes(num, SHAPE, **law), theirs, SHAPE)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_boxes_are_timms(law, monkeypatch):
  theirs = pytest.importorskip("timm.data.random_erasing")
  num, seen = 5000, []

  class Image:
    """Stands for an image and records what is erased."""

    def __setitem__(self, where, _):
      _, rows, columns = where
      sides = (s.stop - s.start for s in (rows, columns))
      seen[-1].append((rows.start, columns.start, *sides))

  random.seed(3)
  eraser = theirs.RandomErasing(1, device="cpu", **law)
  for _ in range(num):
    seen.append([])
    eraser._erase(Image(), 3, *SHAPE, None)
  assert_same_law(our_boxes(num, SHAPE, **law), seen, SHAPE)


def test_defaults_are_timms():
  theirs = pytest.importorskip("timm.data.random_erasing").RandomErasing()
  assert (theirs.min_area, theirs.max_area) == (0.02, 1 / 3)
  aspect = (math.log(0.3), math.log(1 / 0.3))
  np.testing.assert_allclose(theirs.log_aspect_ratio, aspect)
  assert theirs.probability == 0.5 and theirs.max_count == 1


def erased(outs, image):
  """Which pixels changed: bool [num, height, width]."""
  return (outs != image).any(-1)


def test_the_probability_is_the_probability():
  image, num = np.full((*SHAPE, 3), 9, np.float32), 2000
  outs = run_many("random_erasing(0.35)", image, num)
  # Fewer than one box in a thousand rounds to nothing here.
  count = int(erased(outs, image).any((1, 2)).sum())
  assert scipy.stats.binomtest(count, num, 0.35).pvalue > ALARM
  for p in (0, 1):
    outs = run_many(f"random_erasing({p})", image, 50)
    assert erased(outs, image).any((1, 2)).sum() == 50 * p


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_noise(mode):
  image, num = np.full((*SHAPE, 3), 9, np.float32), 500
  outs = run_many(f"random_erasing(1, '{mode}')", image, num)
  where = erased(outs, image)
  colours = []
  for out, there in zip(outs, where, strict=True):
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    assert there.sum() == len(rows) * len(columns)  # one box
    colours.append(out[there])
  if mode == "const":
    assert not np.concatenate(colours).any()
    return
  if mode == "rand":
    assert all((c == c[0]).all() for c in colours)
    colours = [c[:1] for c in colours]
  values = np.concatenate(colours)
  assert scipy.stats.kstest(values.ravel(), "norm").pvalue > ALARM
  # Each channel, and for "pixel" each pixel, is drawn anew.
  assert abs(np.corrcoef(values.T)[0, 1]) < 4.5 / np.sqrt(len(values))
  assert len(np.unique(values)) > 0.99 * values.size


def test_a_seed_decides_whatever_the_threads():
  image = np.zeros((*SHAPE, 3), np.float32)
  spec = "random_erasing(0.9, max_count=3)"
  one = run_many(spec, image, 64, threads=1)
  np.testing.assert_array_equal(one, run_many(spec, image, 64, threads=4))
  np.testing.assert_array_equal(
    one[:4], [run(spec, image, i) for i in range(4)]
  )
  assert len({out.tobytes() for out in one}) > 50
  assert (
    len({out.tobytes() for out in run_many(spec, image, 64, 1, False)}) > 50
  )


def test_dtypes_channels_and_static_shapes():
  for dtype in (tf.float32, tf.float16, tf.bfloat16):
    for channels in (1, 3, 4):
      image = tf.ones([9, 7, channels], dtype)
      preprocess = get_preprocess_fn("random_erasing(1)")
      out = preprocess({"image": image})["image"]
      assert out.dtype == dtype and out.shape == image.shape
  data = tf.data.Dataset.from_tensors({"image": np.zeros((8, 9, 3), "f4")})
  data = data.map(get_preprocess_fn("random_erasing(1, max_count=2)"))
  assert data.element_spec["image"].shape == (8, 9, 3)


def test_no_box_fits_into_a_pixel():
  image = np.ones((1, 1, 3), np.float32)
  for i in range(20):
    np.testing.assert_array_equal(run("random_erasing(1)", image, i), image)


@pytest.mark.parametrize(
  "args, message",
  [
    ("1.1", "probability=1.1: need a number, 0 <= probability <= 1"),
    ("mode='pixels'", "unknown mode 'pixels': did you mean 'pixel'?"),
    ("min_area=-1", "min_area=-1"),
    ("max_area=0.01", "max_area=0.01: need a number, 0.02 <= max_area"),
    ("min_aspect=0", "min_aspect=0"),
    ("max_aspect=0.2", "max_aspect=0.2: need a number, 0.3 <= max_aspect"),
    ("min_count=0", "min_count=0: need a whole number, 1 <= min_count"),
    ("max_count=1.5", "max_count=1.5: need a whole number"),
    ("min_count=3, max_count=2", "max_count=2: need a whole number, 3 <="),
  ],
)
def test_bad_arguments_raise_one_line(args, message):
  raises_one_line(f"random_erasing({args})", message)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3), "u1"), np.zeros(4, "f4")])
def test_what_is_no_float_image_raises(bad):
  raises_one_line("random_erasing(0)", "need float", bad)
