"""Augmentations on the accelerator against the ops of tf.data.

Both engines draw the same numbers, so their images can be compared directly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from op_helpers import first_quick, photo, preprocess_fn, traced

from big_crop.device_ops import geometry, pixels, registry
from big_crop.device_ops.canvas import unpack
from big_crop.device_ops.philox import seed_words
from pp_ops import registry as host
from pp_ops import seeds, timm_randaug


def _batch(height, width, channels=3):
  """Noise, smooth colours, and three kinds of images without much in them."""
  rng = np.random.default_rng(height * width)
  shape = (height, width, channels)
  smooth = photo(height, width, 1)[..., :channels]
  few = rng.choice(np.array([7, 8, 250], np.uint8), shape)
  step = np.zeros(shape, np.uint8)
  step[height // 2 :, width // 3 :] = 200
  noise = rng.integers(0, 256, (2, *shape), np.uint8)
  flat = np.full(shape, 77, np.uint8)
  return np.stack([*noise, smooth, few, step, flat])


BATCHES = {
  f"{h}x{w}x{c}": _batch(h, w, c)
  for h, w, c in ((33, 47, 3), (24, 20, 1), (1, 1, 3), (2, 3, 3))
}


def words(num, start=0):
  index = np.arange(start, start + num, dtype=np.int64)
  return seed_words(*seeds.pack(3, np.int64(0), index, np.int64(0)))


def on_device(spec, images, start=0):
  run = jax.jit(registry.get_preprocess_fn(spec))
  return np.asarray(run({"image": images}, words(len(images), start))["image"])


def on_host(spec, images):
  """The op of tf.data, not a random one, on each image of a batch."""
  preprocess = preprocess_fn(spec)
  return np.stack(
    [preprocess({"image": tf.constant(x)})["image"] for x in images]
  )


def random_on_host(spec, images, start=0):
  fn = traced(spec, (None, None, images.shape[-1]), tf.as_dtype(images.dtype))
  return np.stack([fn(x, start + i) for i, x in enumerate(images)])


def difference(ours, theirs):
  assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
  return np.abs(ours.astype(np.float32) - theirs.astype(np.float32))


# Each op with fixed parameters. They are compiled together, which is faster.

# Tables and hue are computed in whole numbers.
EXACT = (
  *("autocontrast", "equalize", "invert", "hue(0)", "hue(0.1)", "hue(-0.37)"),
  *("posterize(0)", "posterize(3)", "posterize(8)"),
  *("solarize(0)", "solarize(100)", "solarize(256)"),
  *("solarize_add(60)", "solarize_add(-60, 200)"),
)
BLENDS = (
  *("color(0.3)", "color(1.9)", "color(1.9, legacy=True)"),
  *("contrast(0.4)", "contrast(1.9)", "contrast(1.9, legacy=True)"),
  *("brightness(0)", "brightness(0.33)", "brightness(1.9)"),
  *("sharpness(0)", "sharpness(1.9)", "sharpness(1.9, legacy=True)"),
)
# In none of these a position lies on the image's border, where float32 and
# float64 may decide differently.
NEAREST = (
  *("rotate(30)", "rotate(-21.3, fill=3)", "rotate(90)", "rotate(180)"),
  *("shear_x(0.3)", "shear_x(-0.3)", "shear_y(-0.3)", "shear_y(9)"),
  *("shear_x(-0.3, corner=True)", "shear_y(0.21, corner=True)"),
  *("translate_x(7.5)", "translate_y(-4.5)", "translate_x(-1e9)"),
  *("rotate(45, 3, 'nearest_pillow')", "shear_x(2e6, 3, 'nearest_pillow')"),
  "shear_y(0.2, 3, 'nearest_pillow', corner=True)",
)
BETWEEN = (
  *("rotate(30, {})", "rotate(-21.3, {})", "rotate(90, {})"),
  *("rotate(180, {})", "shear_x(0.31, {})", "shear_y(-0.217, {})"),
  *("shear_x(-0.3, {}, corner=True)", "shear_y(0.21, {}, corner=True)"),
  *("translate_x(7.3, {})", "translate_y(-4.5, {})", "translate_x(-1e9, {})"),
)
BILINEAR = tuple(m.format("interpolation='bilinear'") for m in BETWEEN)
BICUBIC = tuple(m.format("77, 'bicubic'") for m in BETWEEN)


def differences(specs, batch):
  images = BATCHES[batch]
  fns = {spec: registry.get_preprocess_fn(spec) for spec in specs}
  run = jax.jit(
    lambda images, words: {
      spec: fn({"image": images}, words)["image"] for spec, fn in fns.items()
    }
  )
  for spec, ours in run(images, words(len(images))).items():
    yield spec, difference(np.asarray(ours), on_host(spec, images))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.first(2)
def test_ops_on_values(batch):
  for spec, off in differences(EXACT + BLENDS, batch):
    if "sharpness" in spec and "legacy" in spec:
      assert off.max() <= 1 and (off > 0).mean() < 0.01, spec
    else:
      # Truncation may turn a sum of floats into the neighbouring grey level.
      most = 0 if spec in EXACT else 1e-3
      assert off.max() <= 1 and (off > 0).mean() <= most, spec


@pytest.mark.parametrize("batch", first_quick([*BATCHES], 1))
@pytest.mark.long
def test_ops_that_move_pixels(batch):
  for spec, off in differences(NEAREST + BILINEAR + BICUBIC, batch):
    assert (off > 1).mean() <= 1e-3, spec
    assert (off > 0).mean() <= (1e-3 if spec in NEAREST else 5e-3), spec


def test_fill_per_channel():
  fill = "fill=(124, 116, 104)"
  specs = (
    f"rotate(30, {fill})",
    f"shear_x(0.31, {fill}, interpolation='bicubic')",
  )
  for spec, off in differences(specs, "33x47x3"):
    assert off.max() <= 1, spec


def test_hue_of_whole_quotients():
  """Pillow's float arithmetic decides about colours on a border of two hues."""
  fives = np.arange(0, 256, 5, dtype=np.uint8)
  colours = np.stack(np.meshgrid(fives, fives, fives), -1).reshape(1, 52, -1, 3)
  any_ = np.random.default_rng(0).integers(0, 256, colours.shape, np.uint8)
  images = np.concatenate([colours, colours + (any_[..., :1] % 2), any_])
  np.testing.assert_array_equal(
    on_device("hue(0.1)", images), on_host("hue(0.1)", images)
  )


@pytest.mark.parametrize(
  "count", [pixels._count_by_groups, pixels._count_by_scattering]
)
def test_histogram(count):
  for shape in ((33, 47, 3), (255, 2, 1), (1, 1, 3), (20, 51, 1)):
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for image in (noise, noise % 5 + 251, np.full(shape, 255, np.uint8)):
      expected = [
        np.bincount(image[..., c].ravel(), minlength=256)
        for c in range(shape[-1])
      ]
      np.testing.assert_array_equal(jax.jit(count)(image), expected)


# Policies and other random ops: what they draw, and what they make of it.

RAND = "rand_augment('rand-m7-mstd0.5-inc1')"
NORMAL = "vgg_value_range|random_erasing"
INNER = 'random_apply(0.5, "cutout(3)|random_grayscale(0.3)")'


# pp string -> share of pixels that may be off by more than a grey level.
RANDOM = {
  "flip_lr|randaug(2, 10)": 1e-3,
  RAND: 1e-3,
  "cutout(9)": 0,
  "color_jitter(0.4, 0.4, (0.5, 1.2), 0.1)": 1e-3,
  "cutout(9, 3, (0.4, 1))": 0,
  "trivial_augment_wide": 1e-3,
  f"random_apply(0.5, 'gaussian_blur(9)|{INNER}|flip_lr')|channel_permute": 0,
  # `legacy` truncates sums that are close to whole numbers, and a factor of 3.2
  # makes several grey levels out of one.
  "randaug(3, 17, 'legacy')": 3e-3,
  "rand_augment('rand-m9-n3-p0.9-mstdinf-mmax12', 9, 'nearest')": 1e-3,
  "rand_augment('rand-m4.5-p1', interpolation='bilinear')": 1e-3,
  "color_jitter(saturation=0.3)|color_jitter()": 1e-3,
  "autoaugment": 1e-3,
  "autoaugment('svhn', 9, 'bicubic')": 1e-3,
  "trivial_augment_wide(9, (1, 2, 3), 'bilinear')": 1e-3,
  "random_apply(0.5, 'color_jitter(hue=0.1)|randaug(1)')|randaug(1)": 1e-3,
}


FEW = first_quick([*RANDOM][:6], 4)
MORE = first_quick([*RANDOM][6:], 0, pytest.mark.slow)


@pytest.mark.parametrize("spec", [*FEW, *MORE])
@pytest.mark.first(1)
@pytest.mark.long
def test_random_ops(spec):
  images = np.concatenate([BATCHES["33x47x3"]] * 8)
  ours, theirs = on_device(spec, images), random_on_host(spec, images)
  assert (ours != images).any((1, 2, 3)).mean() > 0.5
  assert (difference(ours, theirs) > 1).mean() <= RANDOM[spec]


@pytest.mark.parametrize("spec", ["randaug(2, 10)", RAND])
def test_no_traced_value_outlives_its_program(spec):
  """Training traces a string twice, because it first asks for the shapes."""
  for cached in (geometry._stage, geometry._covering):
    cached.cache_clear()
  image = jax.ShapeDtypeStruct((1, 8, 8, 3), np.uint8)
  seed = jax.ShapeDtypeStruct((1, 4), np.uint32)
  pp = registry.get_preprocess_fn(spec)
  with jax.checking_leaks():
    jax.eval_shape(lambda x, seed: pp({"image": x}, seed), image, seed)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["randaug(2, 10)", RAND])
@pytest.mark.parametrize("batch", ["24x20x1", "2x3x3", "1x1x3"])
def test_random_ops_on_odd_images(spec, batch):
  images = np.concatenate([BATCHES[batch]] * 8)
  if images.shape[-1] == 1 and spec == RAND:
    spec = RAND.replace(")", ", fill=100)")
  ours, theirs = on_device(spec, images), random_on_host(spec, images)
  assert (difference(ours, theirs) > 1).mean() <= 1e-3


@pytest.mark.parametrize(
  "spec",
  first_quick(
    [
      f"{NORMAL}(0.7, max_count=3)",
      f"{NORMAL}(1, 'rand', min_count=2)",
      f"{NORMAL}(1, 'const', max_area=0.9, max_count=4)",
      f"{NORMAL}(1, min_area=0.9, max_area=1.3, max_aspect=1)",
      "value_range(0, 1)|lighting(0.5)",
    ],
    1,
  ),
)
@pytest.mark.long
def test_random_ops_on_floats(spec):
  images = np.concatenate([BATCHES["33x47x3"]] * 8)
  ours, theirs = on_device(spec, images), random_on_host(spec, images)
  # The noise also shows that boxes have the same size, on which it depends.
  np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_levels_in_float32_are_those_in_float64():
  magnitudes = np.arange(0, 101) / 10
  for increasing in (False, True):
    args = increasing, 9, "nearest"
    ours = timm_randaug.line_up(*args, jnp, jnp.asarray)
    theirs = timm_randaug.line_up(*args, tf, tf.cast)
    for name in [*ours][:10]:
      for sign in (-1.0, 1.0):
        a = ours[name](jnp.float32(magnitudes) / 10, sign, None, None)
        b = theirs[name](tf.constant(magnitudes / 10), sign, None, None)
        for x, y in zip(a, b, strict=True):
          assert str(x.dtype) == y.dtype.name
          np.testing.assert_allclose(x, y, rtol=1e-6, err_msg=name)


# The ops' arguments.


@pytest.mark.parametrize(
  "spec",
  [
    *("posterize(9)", "solarize(1.5)", "solarize_add(400)", "color(-1)"),
    *("sharpness(1, legacy=2)", "rotate('a')", "rotate(1, fill=(1, 2))"),
    *("shear_x(1, corner=3)", "translate_x(1, interpolation='cubic')"),
    *(
      "cutout(-1)",
      "cutout(1, fill=256)",
      "cutout(1, 9, 0.5)",
      "hue(0.6)",
      "lighting(-1)",
    ),
    *("color_jitter(-1)", "color_jitter(hue=(0.2, 0.1))", "randaug(2, 31)"),
    *("randaug(contrast='old')", "rand_augment('rand-t0')", "rand_augment(3)"),
    "rand_augment('rand', interpolation='area')",
    *("random_erasing(2)", "random_erasing(mode='noise')"),
    *("gaussian_blur(4)", "gaussian_blur(5, 0)", "random_grayscale(2)"),
    *(
      "trivial_augment_wide(1)",
      "autoaugment('x')",
      "random_apply(2, 'hue(0)')",
    ),
    *("random_apply(1, 3)", "random_apply(1, 'hue(3)')"),
    "random_erasing(min_count=3, max_count=2)",
  ],
)
def test_wrong_arguments_raise_what_they_raise_on_the_host(spec):
  messages = []
  for engine in (registry, host):
    with pytest.raises(ValueError) as e:
      engine.get_preprocess_fn(spec)
    messages.append(str(e.value))
  assert messages[0] == messages[1] and "\n" not in messages[0]


@pytest.mark.parametrize(
  "spec, image",
  [
    ("equalize", np.zeros((4, 5, 3), np.float32)),
    ("rotate(3)", np.zeros((4, 5, 2), np.uint8)),
    ("randaug", np.zeros((4, 5), np.uint8)),
    ("rotate(3, fill=(1, 2, 3))", np.zeros((4, 5, 1), np.uint8)),
    ("cutout(3, fill=(1, 2, 3))", np.zeros((4, 5, 1), np.uint8)),
    ("random_erasing", np.zeros((4, 5, 3), np.uint8)),
    ("lighting", np.zeros((4, 5, 3), np.uint8)),
    ("channel_permute", np.zeros((4, 5, 2), np.uint8)),
    ("gaussian_blur(9)", np.zeros((9, 4, 3), np.uint8)),
    ("random_grayscale", np.zeros((4, 5, 3), np.float32)),
  ],
)
def test_wrong_images_raise_what_they_raise_on_the_host(spec, image):
  with pytest.raises(ValueError) as ours:
    on_device(spec, image[None])
  with pytest.raises(ValueError) as theirs:
    on_host(spec, image[None])
  assert str(ours.value) == str(theirs.value)


def test_images_of_several_sizes_need_a_crop_first():
  canvas = unpack(np.zeros((2, 4, 5, 3), np.uint8), np.array([[4, 5], [4, 4]]))
  fn = registry.get_preprocess_fn("randaug")
  with pytest.raises(ValueError, match="'randaug' on the device needs images"):
    jax.eval_shape(fn, {"image": canvas}, words(2))
