"""timm's RandAugment: against timm, against Pillow, and its laws."""

import collections
import functools
import random

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
  check_law,
  error,
  photo,
  pillow,
  preprocess_fn,
  raises_one_line,
  run,
  run_many,
)
from PIL import ImageEnhance, ImageOps

from pp_ops import timm_randaug, uint8_op
from pp_ops.random import Rng, example_seed

FILL = (124, 116, 104)
VALUE_OPS = (
  *("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize"),
  *("SolarizeAdd", "Color", "Contrast", "Brightness", "Sharpness"),
)
MOVES = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
METHODS = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers
MAGNITUDES = (0, 0.3, 3, 6.1, 7, 9.9, 10)


@functools.cache
def _in_graph(name, increasing, fill, channels):
  """One graph for all images, magnitudes, signs and methods."""
  line_up = timm_randaug.line_up(increasing, fill, "random", tf, tf.cast)
  op = uint8_op.ops_of(line_up)[(VALUE_OPS + MOVES).index(name)]
  image = tf.TensorSpec([None, None, channels], tf.uint8)
  drawn = [tf.TensorSpec([], dtype) for dtype in ("float64", "float64", "bool")]
  return tf.function(op, input_signature=[image, *drawn], autograph=False)


def our_op(name, increasing, method="bilinear", fill=FILL):
  """The op as a function of (image, magnitude, sign)."""

  def op(image, magnitude, sign):
    # Moves do not depend on `increasing`, and so share a graph.
    grows = bool(increasing) and name not in MOVES
    fn = _in_graph(name, grows, fill, image.shape[-1])
    return fn(image, magnitude / 10, float(sign), method == "bicubic").numpy()

  return op


# The ops, transcribed with Pillow alone.


def by_pillow(name, image, level, sign, increasing, method, fill):
  """Pillow image and level (1 is the most) -> Pillow image."""
  enhance = level * 1.8 + 0.1
  if increasing:
    enhance = max(0.1, 1 + sign * 0.9 * level)
  width, height = image.size

  def affine(*matrix):
    affine = PIL.Image.Transform.AFFINE
    return image.transform(image.size, affine, matrix, method, fillcolor=fill)

  add = min(128, int(level * 110))
  bits = 4 - int(level * 4) if increasing else int(level * 4)
  # Not `ImageOps.posterize`, because newer versions refuse 0 bits.
  kept = 256 - 2 ** min(8 - bits, 8) if bits < 8 else 255
  threshold = min(256, int(level * 256))
  threshold = 256 - threshold if increasing else threshold
  signed = sign * level
  return {
    "AutoContrast": lambda: ImageOps.autocontrast(image),
    "Equalize": lambda: ImageOps.equalize(image),
    "Invert": lambda: ImageOps.invert(image),
    "Posterize": lambda: image.point(lambda value: value & kept),
    "Solarize": lambda: ImageOps.solarize(image, threshold),
    "SolarizeAdd": lambda: image.point(
      lambda value: min(value + add, 255) if value < 128 else value
    ),
    "Color": lambda: ImageEnhance.Color(image).enhance(enhance),
    "Contrast": lambda: ImageEnhance.Contrast(image).enhance(enhance),
    "Brightness": lambda: ImageEnhance.Brightness(image).enhance(enhance),
    "Sharpness": lambda: ImageEnhance.Sharpness(image).enhance(enhance),
    "Rotate": lambda: image.rotate(signed * 30, method, fillcolor=fill),
    "ShearX": lambda: affine(1, signed * 0.3, 0, 0, 1, 0),
    "ShearY": lambda: affine(1, 0, 0, signed * 0.3, 1, 0),
    "TranslateXRel": lambda: affine(1, 0, signed * 0.45 * width, 0, 1, 0),
    "TranslateYRel": lambda: affine(1, 0, 0, 0, 1, signed * 0.45 * height),
  }[name]()


def variants(names):
  """(name, increasing, method, sign), without combinations that are equal."""
  for name in names:
    if name in MOVES:
      yield from ((name, True, m, s) for m in METHODS for s in (-1, 1))
    else:
      yield from ((name, i, "bilinear", s) for i in (0, 1) for s in (-1, 1))


@pytest.mark.parametrize(
  "name, increasing, method, sign", [*variants(VALUE_OPS + MOVES)]
)
def test_ops_are_pillows(name, increasing, method, sign):
  op = our_op(name, increasing, method)
  grey_op = our_op(name, increasing, method, fill=116)
  for magnitude in MAGNITUDES:
    for image in IMAGES.values():
      grey = image.shape[-1] == 1
      out = (grey_op if grey else op)(image, magnitude, sign)
      expected = by_pillow(
        *(name, pillow(image), magnitude / 10, sign, increasing),
        *(METHODS[method], 116 if grey else FILL),
      )
      # One level, because bicubic sums are truncated, and Pillow rounds in
      # autocontrast.
      assert error(out, array(expected, image)) <= 1


@pytest.mark.parametrize(
  "name, increasing, method, sign", [*variants(VALUE_OPS + MOVES)]
)
def test_ops_are_timms(name, increasing, method, sign, monkeypatch):
  theirs = pytest.importorskip("timm.data.auto_augment")
  # timm negates the magnitude if the random number is above one half.
  monkeypatch.setattr(random, "random", lambda: 0.75 - 0.5 * (sign > 0))
  graded = {"Posterize", "Solarize", *VALUE_OPS[6:]}
  full = name + "Increasing" * (name in graded and bool(increasing))
  op = our_op(name, increasing, method)
  hparams = {"img_mean": FILL, "interpolation": METHODS[method]}
  # Newer versions of Pillow refuse to posterize to 0 bits.
  refused = (lambda m: m == 10) if increasing else (lambda m: m < 2.5)
  for magnitude in MAGNITUDES:
    if name == "Posterize" and refused(magnitude):
      continue
    their_op = theirs.AugmentOp(full, 1, magnitude, hparams)
    for image in (IMAGES[k] for k in ("photo", "portrait", "noise", "two")):
      out = op(image, magnitude, sign)
      assert error(out, np.asarray(their_op(pillow(image)))) <= 1


def test_magnitudes_above_ten_go_on():
  image = photo()
  for name in VALUE_OPS + MOVES:
    for increasing in (False, True):
      out = our_op(name, increasing)(image, 17, -1)
      args = (name, pillow(image), 1.7, -1, increasing, 2, FILL)
      assert error(out, np.asarray(by_pillow(*args))) <= 1, name


# The string.


def test_config():
  parse = timm_randaug.parse_config
  defaults = {"m": 10, "n": 2, "p": 0.5, "mstd": 0, "mmax": 10, "inc": 0}
  assert parse("rand") == defaults
  expected = {"m": 7, "n": 3, "p": 0.25, "mstd": 1, "mmax": 20, "inc": 1}
  assert parse("rand-inc1-mmax20-m7-p0.25-n3-mstd1.0") == expected
  for uniform in ("mstdinf", "mstd101"):
    assert parse(f"rand-{uniform}") == {**defaults, "mstd": np.inf}
  assert parse("rand-mstd100")["mstd"] == 100


def test_config_is_read_as_by_timm():
  theirs = pytest.importorskip("timm.data.auto_augment")
  for config in (
    *("rand", "rand-m7-mstd0.5-inc1", "rand-m9-n3-p1-mstd1.0"),
    *("rand-m15-mmax20-mstd101-inc0", "rand-n1-p0.25-mmax5"),
  ):
    ours = timm_randaug.parse_config(config)
    policy = theirs.rand_augment_transform(config, {})
    op = policy.ops[0]
    assert (ours["m"], ours["p"], ours["n"]) == (
      *(op.magnitude, op.prob, policy.num_layers),
    )
    assert ours["mstd"] == op.magnitude_std
    assert ours["mmax"] == (op.magnitude_max or 10)
    names = {o.name.removesuffix("Increasing") for o in policy.ops}
    assert names == {*VALUE_OPS, *MOVES}
    increasing = any(o.name.endswith("Increasing") for o in policy.ops)
    assert increasing == ours["inc"]


@pytest.mark.parametrize(
  "args, message",
  [
    ("", "missing a required argument: 'config'"),
    ("'m7'", "'m7': need 'rand' and keys"),
    ("7", "7: need 'rand' and keys"),
    ("'rand-m7-w0'", "unknown key 'w': did you mean 'p'? choices: inc, m, mm"),
    ("'rand-tweights'", "unknown key 'tweights'"),
    ("'rand-7'", "unknown key ''"),
    ("'rand-m7-m8'", "gives 'm' twice"),
    ("'rand-m'", "'m': need a number after 'm'"),
    ("'rand-minf'", "unknown key 'minf'"),
    ("'rand-m7e5'", "need a number after 'm'"),
    ("'rand-m-3'", "need a number after 'm'"),
    ("'rand-n2.5'", "n=2.5: need a whole number, 0 <= n"),
    ("'rand-p1.5'", "p=1.5: need a number, 0 <= p <= 1"),
    ("'rand-inc2'", "inc=2: need a whole number, 0 <= inc <= 1"),
    ("'rand-mmax0'", "mmax=0: need a number, 0.001 <= mmax"),
    ("'rand', fill=(1, 2)", "fill=(1, 2)"),
    ("'rand', interpolation='lanczos'", "unknown interpolation 'lanczos'"),
  ],
)
def test_bad_arguments_raise_one_line(args, message):
  raises_one_line(f"rand_augment({args})", message)


# Its laws.


def magnitudes(config, num=4000, seed=0):
  config, rng = timm_randaug.parse_config(config), Rng(example_seed(seed, 0, 0))
  return 10 * timm_randaug.levels(config, num, rng, tf).numpy()


def test_magnitudes_follow_their_law():
  for std in (0.5, 1.0):
    for m, top in ((7, 10), (9.8, 10), (12, 10), (9.8, 20)):
      drawn = magnitudes(f"rand-m{m}-mstd{std}-mmax{top}")
      inner = drawn[(drawn > 0) & (drawn < top)]
      law = scipy.stats.norm(m, std)
      clipped = scipy.stats.binomtest(int((drawn == top).sum()), len(drawn))
      interval = clipped.proportion_ci(1 - ALARM)
      assert interval.low <= law.sf(top) <= interval.high
      if len(inner):
        cdf = lambda x: law.cdf(x) / law.cdf(top)
        assert scipy.stats.kstest(inner, cdf).pvalue > ALARM
  uniform = magnitudes("rand-m7-mstdinf")
  assert scipy.stats.kstest(uniform, "uniform", (0, 7)).pvalue > ALARM
  assert (magnitudes("rand-m7") == 7).all()
  assert (magnitudes("rand-m12") == 10).all()
  assert (magnitudes("rand-m12-mmax15") == 12).all()


@pytest.mark.parametrize(
  "config",
  [
    *("rand-m7-mstd0.5-inc1", "rand-m9-mstd1.0", "rand-m7-mstd101"),
    *("rand-m14-mstd101", "rand-m19-mstd2-mmax20"),
  ],
)
def test_magnitudes_are_timms(config):
  theirs = pytest.importorskip("timm.data.auto_augment")
  op = theirs.rand_augment_transform(config, {}).ops[0]
  seen = []
  op.prob, op.level_fn = 1, lambda level, _: (seen.append(level),)
  op.aug_fn = lambda image, *_, **__: image
  random.seed(1)
  for _ in range(4000):
    op(None)
  assert scipy.stats.ks_2samp(seen, magnitudes(config)).pvalue > ALARM


@pytest.mark.slow
def test_ops_signs_methods_and_layers_are_drawn_independently():
  """Pairs of ops, with replacement, each applied with its probability."""
  image, num, p, magnitude = photo(14, 18), 7000, 0.9, 6.1
  chances = {("none", 0, ""): 1 - p}
  # Without inc no sign matters to ops on values.
  chances |= {(name, 1, "bilinear"): p / 15 for name in VALUE_OPS}
  chances |= {
    (n, s, m): p / 60 for n in MOVES for s in (-1, 1) for m in METHODS
  }

  def apply(which, image):
    name, sign, method = which
    if name == "none":
      return image
    return our_op(name, False, method)(image, magnitude, sign)

  pairs = collections.Counter()
  for first, chance in chances.items():
    middle = apply(first, image)
    for second, other in chances.items():
      pairs[apply(second, middle).tobytes()] += chance * other
  spec = f"rand_augment('rand-m{magnitude}-n2-p{p}')"
  # Pairs of moves are rare, and so counted together.
  assert check_law(run_many(spec, image, num), pairs) > 150


@pytest.mark.parametrize(
  "config", ["rand-m7-mstd0.5-inc1", "rand-m9-mstd101-inc1"]
)
@pytest.mark.first(1)
@pytest.mark.long
def test_images_come_out_as_from_timm(config):
  theirs = pytest.importorskip("timm.data.auto_augment")
  image, num = photo(24, 32), 3000
  random.seed(2)
  np.random.seed(2)
  policy = theirs.rand_augment_transform(config, {"img_mean": FILL})
  their = np.stack([policy(pillow(image)) for _ in range(num)])
  assert_same_images(run_many(f"rand_augment('{config}')", image, num), their)


@pytest.mark.slow
def test_unseeded_draws_vary():
  spec = "rand_augment('rand-m7-mstd0.5-inc1-p1')"
  outs = run_many(spec, photo(), 64, seeded=False)
  assert len({out.tobytes() for out in outs}) > 40


def test_a_seed_decides_whatever_the_threads():
  spec = "rand_augment('rand-m7-mstd0.5-inc1-p1')"
  one = run_many(spec, photo(), 64, threads=1)
  np.testing.assert_array_equal(one, run_many(spec, photo(), 64, threads=4))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nearest", "random"])
def test_shapes_fills_and_methods(method):
  preprocess = preprocess_fn(
    f"rand_augment('rand-n3-p1', fill=7, interpolation='{method}')"
  )
  for channels in (1, 3):
    spec = tf.TensorSpec([None, None, channels], tf.uint8)
    fn = tf.function(preprocess, input_signature=[{"image": spec}])
    for image in IMAGES.values():
      if image.shape[-1] == channels:
        for _ in range(4):
          out = fn({"image": tf.constant(image)})["image"]
          assert out.shape == image.shape and out.dtype == tf.uint8
  data = tf.data.Dataset.from_tensors({"image": photo()}).map(preprocess)
  assert data.element_spec["image"].shape == photo().shape


@pytest.mark.slow
def test_no_ops_and_no_chance_change_nothing():
  for config in ("rand-n0", "rand-p0"):
    out = run(f"rand_augment('{config}', fill=0)", photo())
    np.testing.assert_array_equal(out, photo())


def test_a_colour_cannot_fill_a_grey_image():
  raises_one_line("rand_augment('rand')", "image of 1 channel", IMAGES["grey"])
