"""TrivialAugment, AutoAugment, blur, grey, permuted channels, ops in an op.

The reference is torchvision on Pillow images, or, where torchvision is not
installed, a transcription of it. Tests of frequencies fail by chance once in
1 / ALARM runs.
"""

import collections
import functools
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
  check_law,
  error,
  first_quick,
  photo,
  pillow,
  preprocess_fn,
  raises_one_line,
  run,
  run_many,
)
from PIL import ImageEnhance, ImageOps

from pp_ops import autoaugment
from pp_ops.augmentations import PERMUTATIONS
from pp_ops.autoaugment_tables import AUTOAUGMENT
from pp_ops.random import example_seed
from pp_ops.registry import get_preprocess_fn
from pp_ops.uint8_op import ops_of

FILL = (1, 2, 3)
# Set of ops -> its number of magnitudes.
BINS = {"wide": 31, "auto": 10}


# The ops of TrivialAugment and AutoAugment at each magnitude.


@functools.cache
def _ops(kind, interpolation, channels):
  """Name -> graph of (image, k), for images of all sizes."""
  fill = FILL if channels == 3 else 9
  if kind == "wide":
    line_up = autoaugment.wide_line_up(31, fill, interpolation, tf.cast)
  else:
    line_up = autoaugment.autoaugment_line_up(fill, interpolation, tf.cast)
  image = tf.TensorSpec([None, None, channels], tf.uint8)
  signature = [image, tf.TensorSpec([], tf.int32)]
  graph = functools.partial(
    tf.function, input_signature=signature, autograph=False
  )
  return {n: graph(op) for n, op in zip(line_up, ops_of(line_up), strict=True)}


def ours(kind, name, k, image, interpolation="nearest"):
  return _ops(kind, interpolation, image.shape[-1])[name](image, k).numpy()


def written_down(kind, name, k, image, interpolation):
  """The op on a Pillow image, at its k-th magnitude."""
  bins = BINS[kind]
  i, last, sign = k % bins, bins - 1, 1 - 2 * (k >= bins)
  wide = kind == "wide"
  resample = getattr(PIL.Image.Resampling, interpolation.upper())
  grey = image.mode == "L"
  fill = 9 if grey else FILL

  def affine(*matrix):
    method = PIL.Image.Transform.AFFINE
    return image.transform(image.size, method, matrix, resample, fillcolor=fill)

  def at_most(most):
    """torch.linspace in float32: its first half counts up, its second down."""
    step = float(np.float32(most) / np.float32(last))
    most = float(np.float32(most))
    value = step * i if i < bins // 2 else most - step * (last - i)
    return sign * float(np.float32(value))

  shear = at_most(0.99 if wide else 0.3)
  width, height = (
    int(at_most(32 if wide else 150 / 331 * side)) for side in image.size
  )
  factor = 1 + at_most(0.99 if wide else 0.9)
  return {
    "shear_x": lambda: affine(1, shear, 0, 0, 1, 0),
    "shear_y": lambda: affine(1, 0, 0, shear, 1, 0),
    "translate_x": lambda: affine(1, 0, -width, 0, 1, 0),
    "translate_y": lambda: affine(1, 0, 0, 0, 1, -height),
    "rotate": lambda: image.rotate(
      at_most(135 if wide else 30), resample, fillcolor=fill
    ),
    "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
    "color": lambda: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
    "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
    "posterize": lambda: ImageOps.posterize(
      image, 8 - round(i / last * (6 if wide else 4))
    ),
    "solarize": lambda: ImageOps.solarize(image, 255 - 255 * i / last),
    "autocontrast": lambda: ImageOps.autocontrast(image),
    "equalize": lambda: ImageOps.equalize(image),
    "invert": lambda: ImageOps.invert(image),
  }[name]()


def _their_name(name, space):
  """torchvision's "TranslateX" for "translate_x"."""
  (found,) = (n for n in space if n.lower() == name.replace("_", ""))
  return found


def torchvisions(kind, name, k, image, interpolation):
  """Like `written_down`, by torchvision."""
  theirs = pytest.importorskip("torchvision.transforms.autoaugment")
  bins = BINS[kind]
  if kind == "wide":
    space = theirs.TrivialAugmentWide()._augmentation_space(bins)
  else:
    size = image.size[::-1]
    space = theirs.AutoAugment()._augmentation_space(bins, size)
  name = _their_name(name, space)
  magnitudes, signed = space[name]
  magnitude = float(magnitudes[k % bins]) if magnitudes.ndim else 0.0
  sign = -1 if signed and k >= bins else 1
  fill = 9 if image.mode == "L" else FILL
  method = theirs.InterpolationMode(interpolation)
  return theirs._apply_op(image, name, sign * magnitude, method, fill)


@pytest.mark.parametrize("kind", BINS)
@pytest.mark.parametrize("reference", [written_down, torchvisions])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.first(1)
def test_ops_are_torchvisions(kind, reference, interpolation):
  """Equal, but for one grey level where a fraction is truncated.

  Fractions are truncated in autocontrast, where ours are exact and Pillow's are
  not, and in ops that interpolate.
  """
  rounded = {"autocontrast"}
  if interpolation != "nearest":
    rounded |= {"rotate", "shear_x", "shear_y"}
  images = [photo(33, 48)]
  if interpolation != "nearest":
    images.append(IMAGES["grey"])
  for image in images:
    for name in _ops(kind, interpolation, image.shape[-1]):
      for k in range(2 * BINS[kind]):
        out = ours(kind, name, k, image, interpolation)
        expected = reference(kind, name, k, pillow(image), interpolation)
        off = error(out, array(expected, image))
        assert off <= (name in rounded), (name, k, image.shape)


def test_magnitudes_are_torchs():
  torch = pytest.importorskip("torch")
  for num in (2, 3, 10, 12, 31, 100):
    for ends in ((0, 0.99), (0, 0.3), (0, 32), (0, 135), (0, 0.9), (255, 0)):
      np.testing.assert_array_equal(
        autoaugment._linspace(*ends, num), torch.linspace(*ends, num)
      )


@pytest.mark.parametrize("policy", AUTOAUGMENT)
def test_policies_are_torchvisions(policy):
  theirs = pytest.importorskip("torchvision.transforms.autoaugment")
  names = [*_ops("auto", "nearest", 3)]
  which, chance, number = autoaugment.autoaugment_tables(policy)
  assert (which.shape, which.max(), number.max()) == ((25, 2), 13, 9)
  expected = theirs.AutoAugment(theirs.AutoAugmentPolicy(policy)).policies
  for i, pair in enumerate(expected):
    for j, (name, p, magnitude) in enumerate(pair):
      assert name.lower() == names[which[i, j]].replace("_", "")
      assert (chance[i, j], number[i, j]) == (np.float32(p), magnitude or 0)


# A picture on which our autocontrast and Pillow's agree.
PICTURE = photo(24, 32, 6)
WIDE = f"trivial_augment_wide(31, {FILL})"


@pytest.mark.long
def test_trivial_augment_draws_all_alike():
  """Each of 14 ops, at each magnitude and either way."""
  chances = collections.Counter({PICTURE.tobytes(): 1 / 14})
  for name, k in itertools.product(_ops("wide", "nearest", 3), range(62)):
    out = ours("wide", name, k, PICTURE)
    chances[out.tobytes()] += 1 / 14 / 62
  assert check_law(run_many(WIDE, PICTURE, 6000), chances) > 500


@pytest.mark.parametrize("policy", first_quick([*AUTOAUGMENT], 1))
@pytest.mark.long
def test_autoaugment_draws_as_its_policy_says(policy):
  """Sub-policy, whether each op is applied, and its direction."""
  chances = collections.Counter()

  @functools.cache
  def apply(name, k, image):
    image = np.frombuffer(image, np.uint8).reshape(PICTURE.shape)
    return ours("auto", name, k, image).tobytes()

  def branches(op, image):
    name, p, magnitude = op.split()
    yield 1 - float(p), image
    for k in (int(magnitude), 10 + int(magnitude)):
      yield float(p) / 2, apply(name, k, image)

  for pair in AUTOAUGMENT[policy]:
    first, second = pair.split(", ")
    for p, middle in branches(first, PICTURE.tobytes()):
      for q, out in branches(second, middle):
        chances[out] += p * q / 25
  outs = run_many(f"autoaugment('{policy}', {FILL})", PICTURE, 3000)
  assert check_law(outs, chances) > 50


@pytest.mark.long
@pytest.mark.parametrize(
  "name, spec",
  [
    ("TrivialAugmentWide", WIDE),
    ("AutoAugment", f"autoaugment('imagenet', {FILL})"),
  ],
)
def test_images_come_out_as_from_torchvision(name, spec):
  torch = pytest.importorskip("torch")
  transforms = pytest.importorskip("torchvision.transforms")
  image, num = pillow(PICTURE), 3000
  with torch.random.fork_rng():
    torch.manual_seed(2)
    policy = getattr(transforms, name)(fill=FILL)
    their = np.stack([policy(image) for _ in range(num)])
  assert_same_images(run_many(spec, PICTURE, num), their)


# Blur, grey, and permuted channels.


def blurred(image, kernel_size, sigma):
  """The sum over the kernel in two dimensions, in double precision."""
  reach = kernel_size // 2
  x = np.arange(-reach, reach + 1)
  kernel = np.exp(-0.5 * (x / sigma) ** 2)
  kernel /= kernel.sum()
  padding = [(reach, reach), (reach, reach), (0, 0)]
  padded = np.pad(image.astype(float), padding, "reflect")
  windows = np.lib.stride_tricks.sliding_window_view(
    padded, (kernel_size, kernel_size), (0, 1)
  )
  return np.einsum("hwcij,i,j->hwc", windows, kernel, kernel)


def torchvisions_blur(image, kernel_size, sigma):
  functional = pytest.importorskip("torchvision.transforms.functional")
  return functional.gaussian_blur(pillow(image), kernel_size, sigma)


@pytest.mark.parametrize("reference", [blurred, torchvisions_blur])
def test_blur_is_torchvisions(reference):
  """Equal, but for a grey level where a sum lies midway between two."""
  for kernel_size, sigma in ((1, 2.0), (5, 0.1), (23, 1.3), (41, 7.0)):
    for name in ("photo", "portrait", "noise", "grey", "flat"):
      image = IMAGES[name]
      if min(image.shape[:2]) > kernel_size // 2:
        out = run(f"gaussian_blur({kernel_size}, {sigma})", image)
        expected = np.round(reference(image, kernel_size, sigma))
        off = np.abs(out - expected.reshape(image.shape).astype(float))
        assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_sigma_is_uniform():
  """By the brightness that a bright pixel keeps, in whole grey levels."""
  image = np.zeros((11, 11, 1), np.uint8)
  image[5, 5], num = 255, 2000
  outs = run_many("gaussian_blur(11, (0.4, 1.5))", image, num)[:, 5, 5, 0]
  sigmas = 0.4 + 1.1 * (np.arange(4000) + 0.5) / 4000
  kernels = np.exp(-0.5 * (np.arange(-5, 6) / sigmas[:, None]) ** 2)
  known = np.sort(np.round(255 * (kernels[:, 5] / kernels.sum(1)) ** 2))
  cdf = lambda x: np.searchsorted(known, x, "right") / len(known)
  levels = np.arange(256)
  ours = np.searchsorted(np.sort(outs), levels, "right") / num
  distance = np.abs(ours - cdf(levels)).max() - 1 / len(known)
  assert distance < scipy.stats.kstwo(num).isf(ALARM)
  assert len(set(outs)) > 50


def test_an_image_must_be_larger_than_the_reflection():
  with pytest.raises(ValueError, match="an image of 40x56: kernel_size=81"):
    run("gaussian_blur(81)", photo())
  spec = {"image": tf.TensorSpec([None, None, 3], tf.uint8)}
  fn = tf.function(get_preprocess_fn("gaussian_blur(81)"), [spec])
  with pytest.raises(tf.errors.InvalidArgumentError, match="is too small"):
    fn({"image": tf.constant(photo())})


def test_grey_is_pillows():
  for image in IMAGES.values():
    out = run("random_grayscale(1)", image)
    expected = np.asarray(pillow(image).convert("L"))[..., None]
    np.testing.assert_array_equal(out, expected + np.zeros_like(image))
    np.testing.assert_array_equal(run("random_grayscale(0)", image), image)
  outs = run_many("random_grayscale(0.2)", photo(3, 4), 2000)
  grey = sum((out[..., :1] == out).all() for out in outs)
  assert scipy.stats.binomtest(grey, len(outs), 0.2).pvalue > ALARM


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_channels_have_all_orders(dtype):
  image = photo(3, 4).astype(dtype)
  orders = {image[..., order].tobytes(): 1 / 6 for order in PERMUTATIONS}
  outs = run_many("channel_permute", image, 2000)
  assert outs.dtype == dtype and check_law(outs, orders) == 6
  grey = image[..., :1]
  np.testing.assert_array_equal(run("channel_permute", grey), grey)


# Ops in an op.


def test_random_apply_is_its_ops_or_nothing():
  image, num, p = photo(9, 12), 2000, 0.3
  inner = "invert|shear_x(0.4)"
  outs = run_many(f"random_apply({p}, '{inner}')", image, num)
  check_law(outs, {image.tobytes(): 1 - p, run(inner, image).tobytes(): p})
  for p, expected in ((0, image), (1, run(inner, image))):
    out = run(f"random_apply({p}, '{inner}')", image)
    np.testing.assert_array_equal(out, expected)


def test_ops_of_random_apply_draw_apart():
  """All combinations, and those of an op in an op in an op."""
  image = photo(3, 4)
  spec = "random_apply(0.5, \"flip_lr|random_apply(0.5, 'invert')|flip_ud\")"
  chances = collections.Counter({image.tobytes(): 1 / 2})
  for turns in itertools.product((False, True), repeat=3):
    out = image[:, ::-1] if turns[0] else image
    out = ~out if turns[1] else out
    out = out[::-1] if turns[2] else out
    chances[out.tobytes()] += 1 / 16
  assert check_law(run_many(spec, image, 2000), chances) == 8


def test_eager_calls_draw_as_graphs():
  """An eager call skips the draws of a branch that it does not take."""
  spec = "random_apply(0.5, \"random_apply(0.5, 'lighting')|lighting\")"
  image = photo(3, 4).astype(np.float32)
  graph = run_many(spec, image, 8)
  eager = [run(spec, image, i) for i in range(8)]
  np.testing.assert_array_equal(graph, eager)
  assert 1 < len({out.tobytes() for out in graph}) < 8


def test_random_apply_leaves_other_features():
  spec = 'random_apply(0.5, \'flip_lr|invert(key="mask")|hue(0, key="c")\')'
  preprocess, image = get_preprocess_fn(spec), photo(5, 6)
  features = {
    **{"image": image, "mask": image, "c": image[..., :1], "label": 3},
    **{"name": b"x", "boxes": {"y": [1.0, 2.0], "x": np.zeros([0, 4])}},
  }
  data = tf.data.Dataset.range(20).map(
    lambda i: preprocess({**features, "_seed": example_seed(0, 0, i)})
  )
  applied = 0
  for out in data.as_numpy_iterator():
    assert {*out} == {*features} and {*out["boxes"]} == {"x", "y"}
    assert (out["name"], out["label"]) == (b"x", 3)
    flipped, inverted = out["image"] != image, out["mask"] != image
    assert inverted.all() or not (inverted.any() or flipped.any())
    applied += inverted.all()
  assert 0 < applied < 20


def test_random_apply_may_change_the_size():
  fn = get_preprocess_fn("random_apply(0.5, 'resize(4)')")
  data = tf.data.Dataset.from_tensors({"image": photo()}).map(fn)
  assert data.element_spec["image"].shape.as_list() == [None, None, 3]


def test_unseeded_draws_vary():
  for spec in ("channel_permute", "random_apply(0.5, 'gaussian_blur(5)')"):
    outs = run_many(spec, photo(9, 12), 24, seeded=False)
    assert 1 < len({out.tobytes() for out in outs})


@pytest.mark.parametrize(
  "ops, message",
  [
    ("value_range", "'image' is float32 of rank 3, without uint8 of rank 3"),
    ("reshape([-1])", "'image' is uint8 of rank 1, without uint8 of rank 3"),
    ("drop('label')", "'label' is missing, without int64 of rank 0"),
    ("onehot(5)", "'labels' is float32 of rank 1, without missing"),
    ("hue(0, key='x')", "op 'hue' reads feature 'x', which is not there"),
    ("hue(0, 'y')", "op 'random_apply': op 'hue': too many positional"),
    (
      "flip_rl",
      "op 'random_apply': unknown op 'flip_rl': did you mean",
    ),
    ("flip_lr(", "op 'random_apply': pp string 'flip_lr(' does not parse"),
    ("", "op 'random_apply': pp string '' has no op"),
  ],
)
def test_ops_that_cannot_be_left_out_raise_one_line(ops, message):
  """The error comes when the pipeline is built, even if p is 0."""
  data = tf.data.Dataset.from_tensors({"image": photo(), "label": 3})
  data = data.map(lambda f: {**f, "label": tf.cast(f["label"], tf.int64)})
  for p in (0, 0.5):
    with pytest.raises(ValueError) as e:
      data.map(get_preprocess_fn(f"random_apply({p}, {ops!r})"))
    assert message in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
  "spec, message",
  [
    ("random_apply(1.5, 'flip_lr')", "p=1.5: need a number, 0 <= p <= 1"),
    ("random_apply('flip_lr')", "missing a required argument: 'ops'"),
    ("random_apply(0.5, 3)", "ops=3: need a pp string"),
    ("random_apply(0.5, 'flip_lr', key='x')", "unexpected keyword argument"),
    ("random_grayscale(-1)", "p=-1: need a number, 0 <= p <= 1"),
    ("gaussian_blur(4)", "kernel_size=4: need an odd number"),
    ("gaussian_blur(5.0)", "kernel_size=5.0: need a whole number, 1 <="),
    ("gaussian_blur(5, 0)", "sigma=0: need a number, 0.01 <= sigma"),
    ("gaussian_blur(5, (1, 0.5))", "sigma[1]=0.5: need a number, 1 <= sigma"),
    ("gaussian_blur(5, (1,))", "sigma=(1,): need a number or (least, most)"),
    ("trivial_augment_wide(1)", "num_magnitude_bins=1: need a whole number"),
    ("trivial_augment_wide(fill=0.5)", "fill=0.5"),
    ("trivial_augment_wide(interpolation='cubic')", "did you mean 'bicubic'?"),
    ("autoaugment('imagnet')", "unknown policy 'imagnet': did you mean 'image"),
    ("autoaugment(['svhn'])", "unknown policy ['svhn']"),
    ("autoaugment(fill=None)", "fill=None"),
    ("autoaugment(interpolation='nearest_pillow')", "unknown interpolation"),
  ],
)
def test_bad_arguments_raise_one_line(spec, message):
  raises_one_line(spec, message)


def test_a_colour_cannot_fill_a_grey_image():
  for spec in (f"autoaugment(fill={FILL})", f"trivial_augment_wide(9, {FILL})"):
    raises_one_line(spec, "image of 1 channel", IMAGES["grey"])


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_survives(channels):
  spec = "trivial_augment_wide|autoaugment|random_grayscale|channel_permute"
  image = {"image": tf.TensorSpec([None, None, channels], tf.uint8)}
  fn = tf.function(preprocess_fn(spec), [image], autograph=False)
  for image in IMAGES.values():
    if image.shape[-1] == channels:
      for _ in range(4):
        out = fn({"image": tf.constant(image)})["image"]
        assert out.shape == image.shape and out.dtype == tf.uint8
