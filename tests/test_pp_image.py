import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from op_helpers import first_quick

from pp_ops.random import example_seed
from pp_ops.registry import get_preprocess_fn
from pp_ops.resize import resize_antialiased

PILLOW = {
  "bilinear": PIL.Image.Resampling.BILINEAR,
  "bicubic": PIL.Image.Resampling.BICUBIC,
  "lanczos3": PIL.Image.Resampling.LANCZOS,
}


def run(spec, image, **features):
  features["image"] = tf.constant(image)
  return get_preprocess_fn(spec)(features)["image"].numpy()


def photo(height, width, seed=0):
  """Smooth colours plus noise, reaching 0 and 255."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  waves = [np.sin(x / 9 + y / 13), np.cos(x / 5), np.sin(y / 7 - x / 21)]
  noise = rng.normal(0, 30, (height, width, 3))
  return np.clip(127 + 120 * np.stack(waves, -1) + noise, 0, 255).astype("u1")


def encoded(image, form, **kwargs):
  out = io.BytesIO()
  image = image if isinstance(image, PIL.Image.Image) else pillow(image)
  image.save(out, form, **kwargs)
  return out.getvalue()


pillow = PIL.Image.fromarray


# Decoding.


def test_decode_png_is_exact():
  image = photo(13, 17)
  np.testing.assert_array_equal(run("decode", encoded(image, "PNG")), image)
  np.testing.assert_array_equal(run("decode", encoded(image, "BMP")), image)
  grey = image[..., 0]
  out = run("decode", encoded(grey, "PNG"))
  np.testing.assert_array_equal(out, np.stack([grey] * 3, -1))
  out = run("decode(channels=1)", encoded(grey, "PNG"))
  np.testing.assert_array_equal(out, grey[..., None])


def test_decode_drops_alpha():
  image = photo(13, 17)
  alpha = np.full((13, 17, 1), 77, np.uint8)
  data = encoded(np.concatenate([image, alpha], -1), "PNG")
  np.testing.assert_array_equal(run("decode", data), image)
  grey = pillow(image[..., 0]).convert("LA")
  out = run("decode", encoded(grey, "PNG"))
  np.testing.assert_array_equal(out, np.stack([image[..., 0]] * 3, -1))


def test_decode_reduces_sixteen_bits_and_expands_palettes():
  deep = np.random.default_rng(0).integers(0, 1 << 16, (13, 17), np.uint16)
  out = run("decode", encoded(pillow(deep), "PNG"))
  np.testing.assert_array_equal(out, np.stack([deep >> 8] * 3, -1))
  palette = pillow(photo(13, 17)).quantize(16)
  for form in ("PNG", "GIF"):
    out = run("decode", encoded(palette, form))
    np.testing.assert_array_equal(out, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("mode, most", [("RGB", 0), ("L", 0), ("CMYK", 1)])
def test_decode_jpeg_gives_pillows_pixels(mode, most):
  image = pillow(photo(40, 50)).convert(mode)
  data = encoded(image, "JPEG", quality=95, subsampling=2)
  expected = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
  out = run("decode", data)
  assert out.dtype == np.uint8 and out.shape == (40, 50, 3)
  assert np.abs(out.astype(int) - expected).max() <= most


def test_decode_has_a_static_channel_count():
  fn = tf.function(get_preprocess_fn("decode"))
  out = fn.get_concrete_function(dict(image=tf.TensorSpec([], tf.string)))
  assert out.structured_outputs["image"].shape.as_list() == [None, None, 3]


# Resizing.


@pytest.mark.parametrize("method", PILLOW)
@pytest.mark.parametrize("size", [(32, 20), (57, 113), (100, 100), (13, 150)])
def test_antialiased_resize_is_pillows(method, size):
  # Pillow cuts overshoot off between the two passes, so leave it some room.
  image = photo(64, 100) // 4 + 96
  expected = pillow(image).resize(size[::-1], PILLOW[method])
  out = run(f"resize({size}, '{method}', antialias=True)", image)
  assert out.dtype == np.uint8 and out.shape == (*size, 3)
  error = np.abs(out.astype(int) - np.asarray(expected).astype(int))
  assert error.max() <= 1


def test_antialiased_bilinear_resize_is_pillows_at_full_contrast():
  image = photo(64, 100)
  expected = pillow(image).resize((31, 50), PILLOW["bilinear"])
  out = run("resize((50, 31), antialias=True)", image)
  error = np.abs(out.astype(int) - np.asarray(expected).astype(int))
  assert error.max() <= 1 and abs(error.mean()) < 0.3


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", first_quick([np.uint8, np.float32], 1))
@pytest.mark.first(1)
def test_antialiased_resize_is_tensorflows(method, dtype):
  # Among them 1-pixel sides, long filters, and no change of size.
  shapes = [((64, 100), (32, 20)), ((64, 100), (64, 13)), ((50, 31), (77, 90)),
            ((1, 9), (5, 1)), ((400, 3), (2, 2)), ((1, 1), (3, 3)),
            ((31, 17), (31, 17)), ((333, 500), (224, 224))]  # fmt: skip
  spec = tf.TensorSpec([None, None, 3], tf.as_dtype(dtype))
  to_any_size = tf.function(
    lambda image, size: resize_antialiased(image, size, method),
    input_signature=[spec, tf.TensorSpec([2], tf.int32)],
  )
  for before, after in shapes:
    image = photo(*before).astype(dtype)
    expected = tf.image.resize(image, after, method, antialias=True)
    for out in (
      tf.function(resize_antialiased)(image, after, method),
      to_any_size(image, after),
    ):
      assert out.dtype == tf.float32
      np.testing.assert_allclose(out, expected, atol=1e-3)
    # A shape that is unknown to the graph.
    fn = tf.function(lambda image, size=after: resize_antialiased(
      image, size, method))  # fmt: skip
    out = fn.get_concrete_function(spec)(tf.constant(image))
    assert out.shape == (*after, 3)
    np.testing.assert_allclose(out, expected, atol=1e-3)


def test_antialiased_resize_keeps_constants_and_channels():
  for channels in (1, 3, 4):
    image = np.full((90, 60, channels), 200, np.uint8)
    out = run("resize(31, antialias=True)", image)
    np.testing.assert_array_equal(out, np.full((31, 31, channels), 200))


def bilinear(image, size):
  """NumPy: half-pixel centres, two taps, edges repeated, in float64."""
  for axis, after in enumerate(size):
    before = image.shape[axis]
    at = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.floor(at).astype(int)
    weight = (at - low).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
    high = np.minimum(low + 1, before - 1)
    image = (
      np.take(image, low, axis) * (1 - weight)
      + np.take(image, high, axis) * weight
    )
  return image


@pytest.mark.parametrize("size", [(32, 20), (57, 113), (64, 300)])
def test_plain_resize_is_bilinear_and_rounds(size):
  image = photo(64, 100)
  expected = bilinear(image.astype(np.float64), size)
  out = run(f"resize({size})", image)
  assert out.dtype == np.uint8
  # Rounded, not cut off: a mean error of a half would betray it.
  assert np.abs(out - expected).max() < 0.5 + 1e-3
  assert abs((out - expected).mean()) < 0.02
  out = run(f"resize({size})", image.astype(np.float32))
  assert out.dtype == np.float32
  np.testing.assert_allclose(out, expected, atol=1e-3)


def test_resize_area_averages_blocks_and_bicubic_saturates():
  image = photo(60, 90)
  out = run("resize((20, 30), 'area')", image)
  expected = image.reshape(20, 3, 30, 3, 3).mean((1, 3))
  assert np.abs(out - expected).max() < 0.5 + 1e-3
  step = np.repeat(np.uint8([[0, 255]]), 8, 1)[..., None].repeat(3, -1)
  out = run("resize((4, 64), 'bicubic')", step.repeat(4, 0))
  assert out.min() == 0 and out.max() == 255
  assert (np.diff(out[0, :, 0].astype(int)) >= 0).all()


def test_every_method_resizes():
  image = np.full((10, 12, 3), 9, np.uint8)
  for method in ("bilinear", "bicubic", "nearest", "area", "lanczos3",
                 "lanczos5", "gaussian", "mitchellcubic"):  # fmt: skip
    for antialias in (False, True):
      out = run(f"resize(7, '{method}', antialias={antialias})", image)
      np.testing.assert_array_equal(out, np.full((7, 7, 3), 9))


@pytest.mark.parametrize("args", ["", ", 'bilinear', antialias=True"])
@pytest.mark.parametrize(
  "spec, before, after",
  [
    ("resize_small(32", (64, 100), (32, 50)),
    ("resize_small(32", (100, 64), (50, 32)),
    ("resize_small(256", (333, 500), (256, 384)),
    ("resize_small(60", (30, 31), (60, 62)),
    ("resize_long(50", (64, 100), (32, 50)),
    ("resize_long(50", (100, 64), (50, 32)),
    ("resize_long(10", (1000, 20), (10, 1)),
  ],
)
def test_resize_by_one_side(spec, before, after, args):
  assert run(spec + args + ")", photo(*before)).shape == (*after, 3)


def test_random_resize_small_draws_its_size_uniformly():
  fn = get_preprocess_fn("random_resize_small(20, 24)")
  image = tf.constant(photo(30, 60))
  data = tf.data.Dataset.range(1000).map(
    lambda i: fn(dict(image=image, _seed=example_seed(0, 0, i)))
  )
  shapes = [out["image"].shape for out in data.as_numpy_iterator()]
  assert set(shapes) == {(n, 2 * n, 3) for n in range(20, 25)}
  counts = np.bincount([shape[0] for shape in shapes])[20:]
  # 200 each, give or take four standard deviations.
  assert np.abs(counts - 200).max() < 51
  with pytest.raises(ValueError, match="min_size=9 is above max_size=8"):
    get_preprocess_fn("random_resize_small(9, 8)")


# Cropping.


def coordinates(height, width):
  """[h, w, 2] whose values are y and x."""
  return np.stack(np.mgrid[:height, :width], -1).astype(np.int32)


def test_central_crop():
  image = coordinates(11, 20)
  for size, y, x, h, w in (("4", 3, 8, 4, 4), ("(3, 20)", 4, 0, 3, 20),
                           ("(11, 1)", 0, 9, 11, 1)):  # fmt: skip
    out = run(f"central_crop({size})", image)
    np.testing.assert_array_equal(out, image[y : y + h, x : x + w])
  np.testing.assert_array_equal(run("central_crop", image), image[:, 4:15])


def test_random_crop_reaches_every_place_equally():
  image = tf.constant(coordinates(6, 9))
  fn = get_preprocess_fn("random_crop((4, 8))")
  data = tf.data.Dataset.range(1200).map(
    lambda i: fn(dict(image=image, _seed=example_seed(0, 0, i)))
  )
  starts = []
  for out in data.as_numpy_iterator():
    y, x = out["image"][0, 0]
    assert out["image"].shape == (4, 8, 2)
    np.testing.assert_array_equal(
      out["image"], coordinates(6, 9)[y : y + 4, x : x + 8]
    )
    starts.append(y * 2 + x)
  counts = np.bincount(starts, minlength=6)
  # 200 each, give or take four standard deviations.
  assert len(counts) == 6 and np.abs(counts - 200).max() < 52


def test_rounding_of_torchvision():
  """Its formulas for the size and the offset, in every remainder."""
  like = 'rounding="torchvision"'
  for h, w in [(37, 50), (50, 37), (41, 41), (40, 97), (33, 65), (30, 101)]:
    image = np.arange(h * w * 3, dtype=np.int32).reshape(h, w, 3)
    size = 30
    out = run(f"resize_small({size}, {like})", image.astype(np.float32))
    long = int(size * max(h, w) / min(h, w))
    assert out.shape[:2] == ((size, long) if h <= w else (long, size))
    for size in range(27, 31):
      top, left = (round((room - size) / 2.0) for room in (h, w))
      np.testing.assert_array_equal(
        run(f"central_crop({size}, {like})", image),
        image[top : top + size, left : left + size],
      )
  with pytest.raises(ValueError, match="rounding='pil': need one of"):
    get_preprocess_fn("central_crop(8, rounding='pil')")


@pytest.mark.parametrize("op", ["central_crop", "random_crop"])
def test_crops_larger_than_the_image_raise(op):
  with pytest.raises(tf.errors.InvalidArgumentError, match="smaller than the"):
    run(f"{op}((4, 8))", coordinates(9, 7))


@pytest.mark.parametrize("op, axis", [("flip_lr", 1), ("flip_ud", 0)])
def test_flips(op, axis):
  image = coordinates(3, 4)
  flipped = 0
  for i in range(100):
    out = run(op, image, _seed=example_seed(0, 0, i))
    mirrored = (out == np.flip(image, axis)).all()
    assert mirrored or (out == image).all()
    flipped += mirrored
  assert 30 <= flipped <= 70


# Values.


def test_value_ranges():
  image = photo(5, 6)
  x = image.astype(np.float64)
  cases = {
    "value_range": x / 127.5 - 1,
    "value_range(0, 1)": x / 255,
    "value_range(-1, 1, 100, 200)": (x - 100) / 50 - 1,
    "value_range(1, 0)": 1 - x / 255,
    "value_range(0, 1, 100, 200, clip_values=True)": np.clip(
      (x - 100) / 100, 0, 1
    ),
    "value_range(0, 1, (0, 1, 2), [10, 20, 50])": (x - [0, 1, 2])
    / [10, 19, 48],
    "value_range(0, 1, in_min=(0, 1, 2))": (x - [0, 1, 2]) / [255, 254, 253],
    "clip_value_range": (x / 255 - [0.48145466, 0.4578275, 0.40821073])
    / [0.26862954, 0.26130258, 0.27577711],
    "vgg_value_range": (x / 255 - [0.485, 0.456, 0.406])
    / [0.229, 0.224, 0.225],
    "vgg_value_range((1, 2, 3), (2, 4, 5))": (x - [1, 2, 3]) / [2, 4, 5],
  }
  for spec, expected in cases.items():
    out = run(spec, image)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-5, err_msg=spec)


# Labels and features.


@pytest.mark.parametrize(
  "spec, label, expected",
  [
    ("onehot(4)", 2, [0, 0, 1, 0]),
    ("onehot(4)", [2], [0, 0, 1, 0]),
    ("onehot(4)", [2, 0, 2], [1, 0, 1, 0]),
    ("onehot(2)", np.zeros([0], np.int64), [0, 0]),
    ("onehot(3, on=0.9, off=0.05)", 1, [0.05, 0.9, 0.05]),
    ("onehot(3, on=0, off=1)", [0, 1], [0, 0, 1]),
    ("onehot(3, multi=False)", [2, 0], [[0, 0, 1], [1, 0, 0]]),
    ("onehot(3)", -1, [0, 0, 0]),
    ("onehot(3)", 7, [0, 0, 0]),
  ],
)
def test_onehot(spec, label, expected):
  out = get_preprocess_fn(spec)(dict(label=tf.constant(label)))
  assert set(out) == {"label", "labels"}
  assert out["labels"].dtype == tf.float32
  np.testing.assert_allclose(out["labels"], expected, rtol=1e-6)


def test_onehot_reads_and_writes_as_it_is_told():
  one, two = tf.constant(1), tf.constant([2])
  features = dict(label=one, labels=two, real=two)
  for spec, key, hot in (
    ("onehot(3)", "labels", 2),  # big_vision's default, where there is one
    ("onehot(3, 'label')", "label", 1),
    ("onehot(3, key='label', key_result='labels')", "labels", 1),
    ("onehot(3, 'real', 'a', False)", "a", 2),
    ("onehot(3, inkey='label')", "labels", 1),
    ("onehot(3, outkey='a')", "a", 2),
  ):
    out = get_preprocess_fn(spec)(features)
    changed = [k for k in out if out[k] is not features.get(k)]
    assert changed == [key], spec
    np.testing.assert_array_equal(np.squeeze(out[key]), np.eye(3)[hot])
  for spec, message in (
    ("onehot(3, False)", "key=False: need the name of a feature"),
    ("onehot(3, key='a', outkey='b')", "not both"),
    ("onehot(3, key='x')", "op 'onehot': no feature 'x'"),
  ):
    with pytest.raises(ValueError, match=message):
      get_preprocess_fn(spec)(features)


def test_keep_drop_copy():
  features = dict(a=1, b=2, c=3)
  run_on = lambda spec: get_preprocess_fn(spec)(features)
  assert run_on("keep('c', 'a')") == dict(c=3, a=1)
  assert run_on("drop('b')") == dict(a=1, c=3)
  assert run_on("drop('a', 'b', 'c')") == {}
  assert run_on("copy('a', 'd')|drop('a')") == dict(b=2, c=3, d=1)
  assert run_on("copy('a', 'b')") == dict(a=1, b=1, c=3)
