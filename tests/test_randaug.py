"""RandAugment and its 16 ops, against Pillow, TensorFlow's kernel and NumPy."""

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
  error,
  first_quick,
  photo,
  pillow,
  raises_one_line,
  run,
  run_many,
  traced,
)
from PIL import ImageEnhance, ImageOps

from pp_ops import pixels
from pp_ops.random import example_seed
from pp_ops.registry import get_preprocess_fn


@pytest.fixture(params=IMAGES)
def image(request):
  return IMAGES[request.param]


# The ops on values, against Pillow.

FACTORS = (0, 0.1, 0.46, 1, 1.9, 2.5)
SAME_AS_PILLOW = {
  "equalize": ImageOps.equalize,
  "invert": ImageOps.invert,
  **{
    f"posterize({b})": lambda x, b=b: ImageOps.posterize(x, b)
    for b in range(1, 9)
  },
  **{
    f"solarize({t})": lambda x, t=t: ImageOps.solarize(x, t)
    for t in (0, 1, 77, 128, 255, 256)
  },
  **{
    f"{name}({f})": lambda x, e=enhancer, f=f: e(x).enhance(f)
    for name, enhancer in {
      "color": ImageEnhance.Color,
      "contrast": ImageEnhance.Contrast,
      "brightness": ImageEnhance.Brightness,
      "sharpness": ImageEnhance.Sharpness,
    }.items()
    for f in FACTORS
  },
}


@pytest.mark.parametrize("spec", SAME_AS_PILLOW)
def test_is_pillows(spec, image):
  out = run(spec, image)
  assert out.dtype == np.uint8 and out.shape == image.shape
  expected = array(SAME_AS_PILLOW[spec](pillow(image)), image)
  np.testing.assert_array_equal(out, expected)


def test_autocontrast(image):
  """Exact floor(255 (x - low) / (high - low)), which Pillow rounds."""
  low = image.min((0, 1), keepdims=True).astype(int)
  high = image.max((0, 1), keepdims=True).astype(int)
  exact = (image - low) * 255 // np.maximum(high - low, 1)
  out = run("autocontrast", image)
  np.testing.assert_array_equal(out, np.where(high > low, exact, image))
  assert error(out, array(ImageOps.autocontrast(pillow(image)), image)) <= 1


def test_posterize_to_no_bits_is_black(image):
  assert not run("posterize(0)", image).any()


@pytest.mark.parametrize("addition", [-255, -60, 0, 1, 110, 255])
@pytest.mark.parametrize("threshold", [0, 100, 128, 256])
def test_solarize_add(addition, threshold, image):
  added = np.clip(image.astype(int) + addition, 0, 255)
  expected = np.where(image < threshold, added, image)
  out = run(f"solarize_add({addition}, threshold={threshold})", image)
  np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("shape", [(224, 224), (300, 280), (20, 13), (1, 1)])
def test_legacy_contrast_counts_pixels(factor, shape):
  image = photo(*shape)
  # The broken formula takes the mean of the histogram's counts, not of levels.
  grey = np.asarray(pillow(image).convert("L"))
  counts = np.histogram(grey, 256, (0, 255))[0]
  mean = np.float32(counts.sum()) / np.float32(256)
  mean = np.float32(np.uint8(np.clip(mean, 0, 255)))
  blend = mean + np.float32(factor) * (image.astype(np.float32) - mean)
  expected = np.clip(blend, 0, 255).astype(np.uint8)
  out = run(f"contrast({factor}, legacy=True)", image)
  np.testing.assert_array_equal(out, expected)


def test_legacy_contrast_brightens_a_dark_image():
  dark = np.full((224, 224, 3), 40, np.uint8)
  assert (run("contrast(0.1, legacy=True)", dark) == 180).all()
  assert (run("contrast(0.1)", dark) == 40).all()


# The ops on positions, against TensorFlow's kernel and Pillow.


def projective(image, coefficients, fill=128):
  """EfficientNet's transform, by TensorFlow's own kernel."""
  return tf.raw_ops.ImageProjectiveTransformV3(
    images=image[None],
    transforms=tf.constant([[*coefficients, 0, 0]], tf.float32),
    output_shape=image.shape[:2],
    interpolation="NEAREST",
    fill_mode="CONSTANT",
    fill_value=float(fill),
  )[0].numpy()


def pillow_affine(image, coefficients):
  """Pillow's transform, about the first pixel's centre like TensorFlow's."""
  a, b, c, d, e, f = coefficients
  coefficients = (a, b, c + (1 - a - b) / 2, d, e, f + (1 - d - e) / 2)
  fill = 128 if image.shape[-1] == 1 else (128, 128, 128)
  picture = pillow(image)
  out = picture.transform(
    picture.size,
    PIL.Image.Transform.AFFINE,
    coefficients,
    PIL.Image.Resampling.NEAREST,
    fillcolor=fill,
  )
  return array(out, image)


def rotation(degrees, image):
  height, width = image.shape[:2]
  angle = np.float32(degrees) * np.float32(np.pi / 180)
  cos, sin = tf.cos(angle).numpy(), tf.sin(angle).numpy()
  right, bottom = np.float32(width - 1), np.float32(height - 1)
  c = (right - (cos * right - sin * bottom)) / np.float32(2)
  f = (bottom - (sin * right + cos * bottom)) / np.float32(2)
  return cos, -sin, c, sin, cos, f


MOVES = {
  **{
    f"rotate({d})": lambda image, d=d: rotation(d, image)
    for d in (-30, 0, 7.5, 30, 90, 180, 300)
  },
  **{f"shear_x({s})": (1, s, 0, 0, 1, 0) for s in (-0.3, 0, 0.12, 0.3, 1.5)},
  **{f"shear_y({s})": (1, 0, 0, s, 1, 0) for s in (-0.3, 0, 0.12, 0.3, 1.5)},
  **{f"translate_x({p})": (1, 0, p, 0, 1, 0) for p in (-9.7, 0, 1, 12, 999)},
  **{f"translate_y({p})": (1, 0, 0, 0, 1, p) for p in (-999, -8, 0, 1, 12.3)},
}


@pytest.mark.parametrize("spec", MOVES)
def test_moves_as_tensorflows_kernel_and_pillow(spec, image):
  matrix = MOVES[spec]
  matrix = matrix(image) if callable(matrix) else matrix
  out = run(spec, image)
  np.testing.assert_array_equal(out, projective(image, matrix))
  # Rounding decides where positions are midway between two pixels; with a shear
  # of 0.3 that is every tenth row or column.
  other = (out != pillow_affine(image, matrix)).any(-1).sum()
  ties = 0 if spec.startswith("translate") else 2 + 0.12 * out[..., 0].size
  assert other <= ties


def test_rotation_is_pillows_rotate():
  image = photo(61, 33)
  for degrees in (-30, 10, 25):
    expected = pillow(image).rotate(degrees, fillcolor=(128, 128, 128))
    other = (run(f"rotate({degrees})", image) != np.asarray(expected)).any(-1)
    assert other.mean() < 0.01


CORNER_MOVES = {
  "rotate(17": None,
  "shear_x(0.23": (1, 0.23, 0, 0, 1, 0),
  "shear_y(-0.23": (1, 0, 0, -0.23, 1, 0),
  "translate_x(-3.3": (1, 0, -3.3, 0, 1, 0),
  "translate_y(7.8": (1, 0, 0, 0, 1, 7.8),
}


@pytest.mark.parametrize(
  "method", ["nearest", "nearest_pillow", "bilinear", "bicubic"]
)
@pytest.mark.parametrize("move", CORNER_MOVES)
def test_moves_with_a_method_are_pillows(move, method):
  matrix, image = CORNER_MOVES[move], photo(61, 33)
  resample = method.removesuffix("_pillow").upper()
  how = {"resample": getattr(PIL.Image.Resampling, resample)}
  how["fillcolor"] = (1, 2, 3)
  if matrix is None:
    expected = pillow(image).rotate(17, **how)
  else:
    affine = PIL.Image.Transform.AFFINE
    expected = pillow(image).transform((33, 61), affine, matrix, **how)
  corner = ", corner=True" * move.startswith("shear")
  spec = f"{move}, (1, 2, 3), interpolation='{method}'{corner})"
  off = np.abs(run(spec, image).astype(int) - np.asarray(expected))
  # Pillow's positions are in fixed point, which decides midway between pixels.
  assert (off > 1).any(-1).mean() <= (0.01 if method == "nearest" else 0)
  assert method != "nearest_pillow" or not off.any()


def test_moves_have_a_fill():
  image = photo()
  moves = ("translate_x(5", "translate_y(5", "rotate(20", "shear_x(0.5")
  for move in (*moves, "shear_y(0.5", "cutout(9"):
    out = run(f"{move}, fill=3)", image)
    assert (out == 3).all(-1).any() and (image > 3).all()
    out = run(f"{move}, fill=(1, 2, 3))", image)
    assert (out == (1, 2, 3)).all(-1).any()


def square_of(out, image):
  """Top, bottom, left, right of the grey square in `out`; the rest is equal."""
  assert not (image == 128).all(-1).any()
  covered = (out == 128).all(-1)
  np.testing.assert_array_equal(out[~covered], image[~covered])
  rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
  assert covered.sum() == len(rows) * len(columns)
  return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def test_cutout_is_a_clipped_square_at_a_uniform_place():
  image = np.zeros((8, 13, 3), np.uint8)
  pad, num = 2, 4000
  expected = {}
  for y, x in itertools.product(range(8), range(13)):
    rows = (max(0, y - pad), min(8, y + pad))
    columns = (max(0, x - pad), min(13, x + pad))
    square = (*map(int, rows), *map(int, columns))
    expected[square] = expected.get(square, 0) + num / (8 * 13)
  counts = dict.fromkeys(expected, 0)
  for out in run_many(f"cutout({pad})", image, num):
    counts[tuple(map(int, square_of(out, image)))] += 1
  test = scipy.stats.chisquare([*counts.values()], [*expected.values()])
  assert test.pvalue > ALARM
  np.testing.assert_array_equal(run("cutout(0)", image), image)


# RandAugment itself.


POSTERIZE = {0: 1, 30: 1}  # the bits that uint8 arithmetic leaves


def candidates(magnitude, legacy=False):
  """Specs of the 15 ops other than cutout, with both signs, by name."""
  level = magnitude / 10
  enhance = level * 1.8 + 0.1
  specs = {
    "autocontrast": [""],
    "equalize": [""],
    "invert": [""],
    "rotate": [level * 30, -level * 30],
    "posterize": [POSTERIZE.get(magnitude, int(level * 4))],
    "solarize": [int(level * 256) % 256],
    "color": [f"{enhance}, {legacy}"],
    "contrast": [f"{enhance}, {legacy}"],
    "brightness": [enhance],
    "sharpness": [f"{enhance}, {legacy}"],
    "shear_x": [level * 0.3, -level * 0.3],
    "shear_y": [level * 0.3, -level * 0.3],
    "translate_x": [level * 100, -level * 100],
    "translate_y": [level * 100, -level * 100],
    "solarize_add": [min(int(level * 110), 255)],
  }
  return [f"{name}({arg})" for name, args in specs.items() for arg in args]


def which(outs, specs, image):
  """For each output the spec that gives it, or "cutout"."""
  known = {run(spec, image).tobytes(): spec for spec in specs}
  assert len(known) == len(specs)  # all different
  return [known.get(out.tobytes(), "cutout") for out in outs]


@pytest.mark.parametrize("seeded", [True, False])
def test_ops_are_equally_likely_and_signs_balanced(seeded):
  image = photo()
  magnitude = 3.3  # a translation of less than the image, and 1 bit
  specs = candidates(magnitude)
  num = 1600 if seeded else 400
  outs = run_many(f"randaug(1, {magnitude})", image, num, seeded=seeded)
  names = which(outs, specs, image)
  for out in outs[[n == "cutout" for n in names]]:
    top, bottom, left, right = square_of(out, image)
    assert bottom - top <= 26 and right - left <= 26  # int(0.33 * 40) = 13
    assert bottom - top == 26 or top == 0 or bottom == image.shape[0]
    assert right - left == 26 or left == 0 or right == image.shape[1]
  ops = [name.partition("(")[0] for name in names]
  counts = [ops.count(op) for op in set(ops)]
  assert len(counts) == 16
  assert scipy.stats.chisquare(counts).pvalue > ALARM
  for op in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
    one, other = (names.count(s) for s in specs if s.startswith(f"{op}("))
    assert scipy.stats.binomtest(one, one + other).pvalue > ALARM
    assert one and other


@pytest.mark.parametrize("magnitude", first_quick([0, 10, 5, 15, 30], 2))
@pytest.mark.parametrize("contrast", ["fixed", "legacy"])
@pytest.mark.first(1)
def test_levels(magnitude, contrast):
  image = photo(70, 90)
  specs = candidates(magnitude, contrast == "legacy")
  known = {run(spec, image).tobytes(): spec for spec in specs}
  outs = run_many(f"randaug(1, {magnitude}, '{contrast}')", image, 400)
  seen = {known.get(out.tobytes()) for out in outs}
  assert set(known.values()) <= seen
  for out in (o for o in outs if o.tobytes() not in known):
    square_of(out, image)  # is nothing but a cutout


@pytest.mark.slow
def test_layers_draw_independently():
  image, num = photo(), 300
  specs = candidates(3)
  ops = [traced(spec, image.shape) for spec in specs]
  singles = [op(image, 0) for op in ops]
  pairs = {op(a, 0).numpy().tobytes() for a in singles for op in ops}
  outs = run_many("randaug(2, 3)", image, num)
  found = [out.tobytes() for out in outs if out.tobytes() in pairs]
  # The others are those with a cutout.
  test = scipy.stats.binomtest(len(found), num, (15 / 16) ** 2)
  assert test.pvalue > ALARM
  assert len(set(found)) > 130  # about 20 if layers drew alike
  np.testing.assert_array_equal(run("randaug(0)", image), image)


@pytest.mark.long
def test_a_seed_decides_whatever_the_threads():
  image = photo()
  one = run_many("randaug(2, 7)", image, 64, threads=1)
  four = run_many("randaug(2, 7)", image, 64, threads=4)
  np.testing.assert_array_equal(one, four)
  assert len({out.tobytes() for out in one}) > 32
  eager = [run("randaug(2, 7)", image, i) for i in range(8)]
  np.testing.assert_array_equal(one[:8], eager)


def test_two_randaugs_in_a_string_draw_differently():
  preprocess = get_preprocess_fn("copy('image', 'b')|randaug|randaug(key='b')")
  image = tf.constant(photo())
  outs = [
    preprocess({"image": image, "_seed": example_seed(0, 0, i)})
    for i in range(8)
  ]
  assert sum((o["image"] != o["b"]).numpy().any() for o in outs) >= 6


def test_every_image_survives(image):
  # One graph for all images, because building it takes a second.
  fn = traced("randaug", (None, None, image.shape[-1]))
  for index in range(40):
    out = fn(image, index).numpy()
    assert out.dtype == np.uint8 and out.shape == image.shape


def test_static_shapes_are_kept():
  preprocess = get_preprocess_fn("randaug(1)")
  data = tf.data.Dataset.from_tensors({"image": photo()}).map(preprocess)
  assert data.element_spec["image"].shape == photo().shape


def test_shapes_may_be_unknown_to_the_graph():
  signature = {"image": tf.TensorSpec([None, None, 3], tf.uint8)}
  fn = tf.function(get_preprocess_fn("randaug(1)"), input_signature=[signature])
  for image in (photo(), photo(9, 5)):
    assert fn({"image": tf.constant(image)})["image"].shape == image.shape


def test_arguments_may_be_drawn_in_the_graph():
  image = photo()
  for name, value in (("color", 1.9), ("posterize", 3), ("solarize", 256)):
    factory = getattr(pixels, f"get_{name}")
    op = tf.function(lambda v, factory=factory: factory(v)(image))
    out = op(tf.constant(value))
    np.testing.assert_array_equal(out, run(f"{name}({value})", image))


@pytest.mark.parametrize(
  "spec, message",
  [
    ("randaug(-1)", "num_layers=-1: need a whole number, 0 <= num_layers"),
    ("randaug(1.5)", "num_layers=1.5"),
    ("randaug(True)", "num_layers=True"),
    ("randaug(2, -1)", "magnitude=-1: need a number, 0 <= magnitude <= 30"),
    ("randaug(2, 31)", "magnitude=31"),
    ("randaug(2, '10')", "magnitude='10'"),
    ("randaug(2, 1e999)", "magnitude=inf"),
    ("randaug(2, contrast='leagcy')", "did you mean 'legacy'?"),
    ("randaug(2, contrast=None)", "unknown contrast None"),
    ("randaug(2, magnitde=1)", "did you mean 'magnitude'?"),
    ("posterize(9)", "bits=9: need a whole number, 0 <= bits <= 8"),
    ("posterize(2.5)", "bits=2.5"),
    ("solarize(257)", "threshold=257"),
    ("solarize_add(256)", "addition=256"),
    ("solarize_add(1, threshold=-1)", "threshold=-1"),
    ("color(-0.1)", "factor=-0.1: need a number, 0 <= factor"),
    ("contrast(1, legacy='yes')", "legacy='yes'"),
    ("color(1, legacy='yes')", "legacy='yes'"),
    ("sharpness(1, legacy='yes')", "legacy='yes'"),
    ("brightness('a')", "factor='a'"),
    ("sharpness(None)", "factor=None"),
    ("rotate(1e999)", "degrees=inf: need a number, finite"),
    ("rotate", "missing a required argument: 'degrees'"),
    ("shear_x(1, fill=256)", "fill=256"),
    ("shear_y(1, fill=(1, 2))", "fill=(1, 2)"),
    ("translate_x('a')", "pixels='a'"),
    ("translate_y(1, fill=0.5)", "fill=0.5"),
    ("rotate(1, interpolation='cubic')", "did you mean 'bicubic'?"),
    ("shear_x(1, interpolation='linear')", "did you mean 'bilinear'?"),
    ("shear_y(1, corner=1)", "corner=1: need True or False"),
    ("translate_x(1, interpolation=2)", "unknown interpolation 2"),
    ("cutout(-1)", "pad_size=-1"),
    ("cutout(1.5)", "pad_size=1.5"),
  ],
)
def test_bad_arguments_raise_one_line(spec, message):
  raises_one_line(spec, message)


@pytest.mark.parametrize(
  "spec", ["randaug", "randaug(0)", "invert", "rotate(3)"]
)
@pytest.mark.parametrize(
  "bad", [np.zeros((4, 4, 3), "f4"), np.zeros((4, 4), "u1"), photo()[..., :2]]
)
def test_what_is_no_uint8_image_raises(spec, bad):
  raises_one_line(spec, "need uint8", bad)
