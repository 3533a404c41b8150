"""Hue, colour jitter and lighting, against Pillow, torchvision and NumPy."""

import itertools

import numpy as np
import PIL.Image
import pytest
import scipy.stats
import tensorflow as tf
from op_helpers import (
  ALARM,
  IMAGES,
  array,
  assert_same_images,
  error,
  photo,
  pillow,
  raises_one_line,
  run,
  run_many,
  traced,
)

from pp_ops import color
from pp_ops.random import Rng, example_seed
from pp_ops.registry import lookup

HUES = (-0.5, -0.123, 0, 0.0039, 0.1, 0.37, 0.5)


def by_pillow(image, factor):
  """The hue turned in Pillow's HSV; image is a Pillow image."""
  if image.mode == "L":
    return image
  h, s, v = image.convert("HSV").split()
  turned = (np.asarray(h).astype(int) + int(factor * 255)) % 256
  turned = PIL.Image.fromarray(turned.astype(np.uint8))
  return PIL.Image.merge("HSV", (turned, s, v)).convert("RGB")


@pytest.mark.parametrize("factor", HUES)
def test_hue_is_pillows(factor):
  for image in IMAGES.values():
    out = run(f"hue({factor})", image)
    expected = array(by_pillow(pillow(image), factor), image)
    np.testing.assert_array_equal(out, expected)


def test_hue_of_one_colour_in_many():
  """A prime step through all 2^24 colours."""
  numbers = np.arange(0, 2**24, 61)[: 524 * 524].reshape(524, 524)
  image = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], -1)
  image = image.astype(np.uint8)
  for factor in (0, 0.2):
    expected = np.asarray(by_pillow(pillow(image), factor))
    np.testing.assert_array_equal(run(f"hue({factor})", image), expected)


def test_hue_is_torchvisions():
  functional = pytest.importorskip("torchvision.transforms.functional")
  for image, factor in itertools.product(IMAGES.values(), HUES):
    expected = functional.adjust_hue(pillow(image), factor)
    out = run(f"hue({factor})", image)
    np.testing.assert_array_equal(out, array(expected, image))


@pytest.mark.parametrize(
  "op, name",
  [
    *(("brightness", "brightness"), ("contrast", "contrast")),
    ("color", "saturation"),
  ],
)
def test_other_factors_are_torchvisions(op, name):
  functional = pytest.importorskip("torchvision.transforms.functional")
  for image, factor in itertools.product(IMAGES.values(), (0, 0.6, 1, 1.4)):
    adjust = getattr(functional, f"adjust_{name}")
    out = run(f"{op}({factor})", image)
    assert error(out, array(adjust(pillow(image), factor), image)) <= 1


def grid(op, low, high, image, steps=400):
  """Outputs of an op at evenly spaced factors."""
  factors = np.linspace(low, high, steps)
  get_op = lookup(op).factory
  # As in the jitter, the factor is drawn in the graph, which is built once.
  fn = tf.function(lambda factor: get_op(factor)(image), autograph=False)
  outs = [fn(tf.constant(f, tf.float32)).numpy() for f in factors]
  return factors, [out.astype(np.int16) for out in outs]


@pytest.mark.parametrize(
  "argument, op, low, high",
  [
    ("brightness=0.4", "brightness", 0.6, 1.4),
    ("contrast=0.4", "contrast", 0.6, 1.4),
    ("saturation=0.4", "color", 0.6, 1.4),
    ("saturation=1.5", "color", 0, 2.5),
    ("brightness=(0.5, 0.8)", "brightness", 0.5, 0.8),
    ("hue=0.3", "hue", -0.3, 0.3),
    ("hue=(0.1, 0.5)", "hue", 0.1, 0.5),
  ],
)
@pytest.mark.first(2)
def test_factors_are_uniform(argument, op, low, high):
  image, num = photo(9, 12), 1500
  factors, known = grid(op, low, high, image)
  known = np.stack(known).reshape(len(known), -1)
  outs = run_many(f"color_jitter({argument})", image, num).reshape(num, -1)
  # The factor whose output is nearest; among equal outputs, a random one.
  jitter = np.random.default_rng(0).uniform(0, 1e-6, len(known))
  found = [
    factors[np.argmin(np.abs(known - out).sum(1) + jitter)] for out in outs
  ]
  if op == "hue":  # by thirds of the range, because hue has steps of 1 / 255
    edges = np.linspace(low, high, 4)
    counts = np.histogram(found, edges)[0]
    assert scipy.stats.chisquare(counts).pvalue > ALARM
  else:
    law = scipy.stats.uniform(low, high - low)
    # The grid of factors moves the distance by one step at most.
    distance = scipy.stats.kstest(found, law.cdf).statistic - 1 / len(factors)
    critical = scipy.stats.kstwo(num).isf(ALARM)
    assert distance < critical


def test_all_orders_are_equally_likely():
  image, num = photo(9, 12), 2400
  fixed = {"brightness": 1.3, "contrast": 0.7, "color": 1.6, "hue": 0.2}
  known = {}
  for order in itertools.permutations(fixed):
    out = run("|".join(f"{op}({fixed[op]})" for op in order), image)
    known[out.tobytes()] = order
  assert len(known) == 24
  spec = "color_jitter((1.3, 1.3), (0.7, 0.7), (1.6, 1.6), (0.2, 0.2))"
  outs = run_many(spec, image, num)
  found = [known[out.tobytes()] for out in outs]
  counts = [found.count(order) for order in known.values()]
  assert scipy.stats.chisquare(counts).pvalue > ALARM


@pytest.mark.long
def test_images_come_out_as_from_torchvision():
  """Also by numbers that all four factors and their order change."""
  torch = pytest.importorskip("torch")
  transforms = pytest.importorskip("torchvision.transforms")
  image, num = photo(16, 20), 3000
  with torch.random.fork_rng():
    torch.manual_seed(4)
    jitter = transforms.ColorJitter(0.4, 0.3, 0.5, 0.1)
    their = np.stack([jitter(pillow(image)) for _ in range(num)])
  assert_same_images(
    run_many("color_jitter(0.4, 0.3, 0.5, 0.1)", image, num),
    their,
    lambda x: x.std(3).mean((1, 2)),
    lambda x: (x[..., 0] - x[..., 2]).mean((1, 2)),
    lambda x: x[:, 3, 4, 1],
  )


def test_jitter_of_nothing_is_nothing():
  for args in ("", "0, 0, 0, 0", "(1, 1)"):
    np.testing.assert_array_equal(
      run(f"color_jitter({args})", photo()), photo()
    )


def test_every_image_survives():
  spec = "color_jitter(0.4, 0.4, 0.4, 0.1)"
  for image in IMAGES.values():
    out = traced(spec, (None, None, image.shape[-1]))(image, 0).numpy()
    assert out.dtype == np.uint8 and out.shape == image.shape


def test_a_seed_decides_whatever_the_threads():
  for spec in (
    "color_jitter(0.4, 0.4, 0.4, 0.1)",
    "value_range(0, 1)|lighting",
  ):
    one = run_many(spec, photo(), 64, threads=1)
    np.testing.assert_array_equal(one, run_many(spec, photo(), 64, threads=4))
    assert len({out.tobytes() for out in one}) == 64


def test_lighting_adds_one_colour_along_the_axes():
  values = np.array([0.2175, 0.0188, 0.0045])
  image, num = np.random.default_rng(0).random((5, 6, 3), np.float32), 4000
  shift = run_many("lighting(0.1)", image, num) - image
  assert np.abs(shift - shift[:, :1, :1]).max() < 1e-6
  shift = shift[:, 0, 0].astype(float)
  # The covariance of the colours is sum_i v_i v_i^T (0.1 lambda_i)^2.
  axes = np.array(color._EIGENVECTORS)
  np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=2e-4)
  factors = shift @ axes / values / 0.1
  for i in range(3):
    # The axes are given to four digits.
    assert scipy.stats.kstest(factors[:, i], "norm").pvalue > ALARM
  assert np.abs(np.corrcoef(factors.T) - np.eye(3)).max() < 0.08
  np.testing.assert_array_equal(run("lighting(0)", image), image)


def test_lighting_is_the_sum_over_axes():
  out = color.get_lighting(0.5)(tf.zeros([1, 1, 3]), Rng(example_seed(1, 0, 0)))
  alpha = 0.5 * Rng(example_seed(1, 0, 0)).normal([3]).numpy()
  axes = [[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948]]
  axes.append([0.4009, -0.814, 0.4203])
  expected = sum(
    a * e * np.array(axis)
    for a, e, axis in zip(alpha, (0.2175, 0.0188, 0.0045), axes, strict=True)
  )
  np.testing.assert_allclose(out[0, 0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
  "spec, message",
  [
    ("hue(0.6)", "factor=0.6: need a number, -0.5 <= factor <= 0.5"),
    ("color_jitter(-0.1)", "brightness=-0.1: need a number, 0 <= brightness"),
    ("color_jitter(hue=0.6)", "hue=0.6: need a number, 0 <= hue <= 0.5"),
    ("color_jitter(contrast=(1, 0.5))", "contrast[1]=0.5: need a number, 1 <="),
    ("color_jitter(contrast=(1,))", "contrast=(1,): need a number or (least"),
    ("color_jitter(saturation='a')", "saturation='a'"),
    ("color_jitter(hue=(-0.6, 0))", "hue[0]=-0.6"),
    ("lighting(-1)", "alphastd=-1: need a number, 0 <= alphastd"),
  ],
)
def test_bad_arguments_raise_one_line(spec, message):
  raises_one_line(spec, message)


def test_wrong_images_raise():
  for spec, image in (
    ("color_jitter", np.zeros((4, 4, 3), "f4")),
    ("hue(0)", np.zeros((4, 4, 3), "f4")),
    ("lighting", np.zeros((4, 4, 3), "u1")),
    ("lighting", np.zeros((4, 4, 1), "f4")),
  ):
    raises_one_line(spec, "need", image)
