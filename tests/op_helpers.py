"""Images, and how to run a pp string on them, for the tests of image ops."""

import collections
import functools
import math

import numpy as np
import PIL.Image
import pytest
import scipy.stats
import tensorflow as tf

from pp_ops.random import example_seed
from pp_ops.registry import get_preprocess_fn

ALARM = 1e-4  # chance that a test of frequencies fails by chance


def first_quick(values, num, mark=pytest.mark.slow):
  """Parameters of a test. All but the first few are marked slow, or long."""
  return [*values[:num], *(pytest.param(v, marks=mark) for v in values[num:])]


# Some ops choose among others and keep their graphs, which take seconds to
# build.
preprocess_fn = functools.cache(get_preprocess_fn)


def run(spec, image, index=0):
  features = {"image": tf.constant(image), "_seed": example_seed(3, 0, index)}
  return preprocess_fn(spec)(features)["image"].numpy()


@functools.cache
def traced(spec, shape, dtype=tf.uint8, seeded=True):
  """`spec` as a graph function of (image, index), for images of one shape.

  Random augmentations consist of some twenty ops, and building their graph
  takes a second or several. Tests that run one string often share the graph.

  Args:
    spec: the pp string.
    shape: the image's, a tuple; height and width may be None.
    dtype: the image's.
    seeded: whether the index decides what is drawn, as in `run`.

  Returns:
    A `tf.function` of an image and an int64 index that returns an image.
  """
  preprocess = preprocess_fn(spec)

  def on_image(image, index):
    seed = {"_seed": example_seed(3, 0, index)} if seeded else {}
    return preprocess({"image": image, **seed})["image"]

  signature = [tf.TensorSpec(shape, dtype), tf.TensorSpec([], tf.int64)]
  return tf.function(on_image, input_signature=signature, autograph=False)


def run_many(spec, image, num, threads=2, seeded=True):
  """[num, ...]: `spec` applied to one image with `num` seeds, by tf.data."""
  fn = traced(spec, image.shape, image.dtype.type, seeded)
  data = tf.data.Dataset.range(num)
  data = data.map(lambda i: fn(image, i), threads, deterministic=True)
  return next(iter(data.batch(num))).numpy()


def photo(height=40, width=56, seed=0):
  """Smooth colours plus noise, darker than white and lighter than black."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  waves = [np.sin(x / 9 + y / 13), np.cos(x / 5), np.sin(y / 7 - x / 21)]
  noise = rng.normal(0, 12, (height, width, 3))
  return np.clip(110 + 80 * np.stack(waves, -1) + noise, 9, 240).astype("u1")


def _images():
  rng = np.random.default_rng(1)
  noise = rng.integers(0, 256, (31, 47, 3), np.uint8)
  y, x = np.mgrid[:30, :22]
  board = np.repeat(np.where((x // 3 + y // 3) % 2, 255, 0)[..., None], 3, -1)
  return {
    "photo": photo(),
    "portrait": photo(61, 33, 1),
    "noise": noise,
    "flat": np.full((20, 20, 3), 77, np.uint8),
    "checkerboard": board.astype("u1"),
    "grey": photo()[..., :1],
    "line": photo(1, 9),
    "two": photo(2, 2),
    "pixel": np.array([[[200, 5, 90]]], np.uint8),
    "white pixel": np.array([[[255]]], np.uint8),
  }


IMAGES = _images()


def pillow(image):
  return PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def array(image, like):
  return np.asarray(image).reshape(like.shape)


def error(a, b):
  return np.abs(a.astype(int) - b.astype(int)).max()


def raises_one_line(spec, message, *image):
  """Checks the error of building a string, or of running it on an image."""
  with pytest.raises(ValueError) as e:
    run(spec, *image) if image else get_preprocess_fn(spec)
  assert message in str(e.value) and "\n" not in str(e.value)


def check_law(outs, chances):
  """Tests the frequencies of outputs against their chances, by chi-square.

  Args:
    outs: [num, ...].
    chances: bytes of an output -> its chance; these sum to 1.
  """
  num, counts = len(outs), collections.Counter(out.tobytes() for out in outs)
  assert set(counts) <= set(chances)
  assert math.isclose(sum(chances.values()), 1)
  common = [k for k, chance in chances.items() if num * chance >= 5]
  observed = [counts[k] for k in common]
  wanted = [num * chances[k] for k in common]
  rest = num - sum(wanted)
  if rest > 1:
    observed, wanted = [*observed, num - sum(observed)], [*wanted, rest]
  else:
    wanted = np.array(wanted) * sum(observed) / sum(wanted)
  assert scipy.stats.chisquare(observed, wanted).pvalue > ALARM
  return len(common)


def assert_same_images(ours, theirs, *more):
  """Tests two samples, [num, h, w, C], by numbers that tell the ops apart.

  Args:
    ours: one sample.
    theirs: the other.
    *more: further functions from a sample to [num] numbers.
  """
  for statistic in (
    lambda x: x.mean((1, 2, 3)),
    lambda x: x.std((1, 2, 3)),
    lambda x: x[:, :4].mean((1, 2, 3)) - x[:, -4:].mean((1, 2, 3)),
    lambda x: np.abs(np.diff(x, axis=2)).mean((1, 2, 3)),
    *more,
  ):
    samples = (statistic(np.asarray(x, float)) for x in (ours, theirs))
    assert scipy.stats.ks_2samp(*samples).pvalue > ALARM
