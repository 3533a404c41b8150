import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from op_helpers import first_quick

from pp_ops import crops, laws, registry
from pp_ops.random import Rng, example_seed
from pp_ops.registry import get_preprocess_fn

CROPS = {
  "inception_crop": "",
  "inception_crop_port": "area_min=10",
  "inception_crop_fixed": "",
  "beta_crop": "alpha=2, beta=3, area_min=1",
}
SHAPE = (83, 119)


def photo(height, width):
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:height, :width]
  waves = [np.sin(x / 9 + y / 13), np.cos(x / 5), np.sin(y / 7 - x / 21)]
  noise = rng.normal(0, 30, (height, width, 3))
  return np.clip(127 + 120 * np.stack(waves, -1) + noise, 0, 255).astype("u1")


def encoded(mode="RGB", form="JPEG", **kwargs):
  out = io.BytesIO()
  PIL.Image.fromarray(photo(*SHAPE)).convert(mode).save(out, form, **kwargs)
  return out.getvalue()


IMAGES = {
  "rgb_420": lambda: encoded(subsampling=2),
  "rgb_422": lambda: encoded(subsampling=1),
  "rgb_444": lambda: encoded(subsampling=0),
  "progressive": lambda: encoded(progressive=True),
  "grey": lambda: encoded("L"),
  "cmyk": lambda: encoded("CMYK"),
  "png": lambda: encoded(form="PNG"),
  "png_alpha": lambda: encoded("RGBA", "PNG"),
  "gif": lambda: encoded("P", "GIF"),
}


def many(spec, images, num):
  """What the pp string makes of each image under `num` seeds."""
  fn = get_preprocess_fn(spec)
  data = tf.data.Dataset.from_tensor_slices(images)
  data = data.flat_map(
    lambda image: tf.data.Dataset.range(num).map(
      lambda i: dict(image=image, _seed=example_seed(3, 0, i))
    )
  )
  return [out["image"] for out in data.map(fn, 4).as_numpy_iterator()]


@pytest.mark.parametrize("name", CROPS)
@pytest.mark.first(1)
def test_fused_is_decode_then_crop_bit_for_bit(name):
  images = [image() for image in IMAGES.values()]
  op = f"{name}({CROPS[name]})"
  # An op draws by its position, which must be the same in both strings.
  fused = many(f"keep('image')|decode_jpeg_and_{op}", images, 40)
  plain = many(f"decode|{op}", images, 40)
  assert len({image.shape for image in plain}) > 10
  for i, (a, b) in enumerate(zip(fused, plain, strict=True)):
    np.testing.assert_array_equal(a, b, err_msg=list(IMAGES)[i // 40])


@pytest.mark.parametrize("name", CROPS)
def test_the_pixels_are_the_windows(name):
  law = registry.law_of(f"{name}({CROPS[name]})")
  native = type(law) is laws.NativeLaw
  sampler = (crops.native_sampler if native else crops.law_sampler)(law)
  height, width = 90, 120
  coordinates = np.stack(np.mgrid[:height, :width], -1).astype(np.int32)
  for i, out in enumerate(many(f"{name}({CROPS[name]})", [coordinates], 50)):
    window = sampler(height, width, Rng(example_seed(3, 0, i), 0))
    y, x, h, w = (int(v) for v in window)
    np.testing.assert_array_equal(out, coordinates[y : y + h, x : x + w])


def test_inception_crop_is_tensorflows_op():
  height, width = 90, 120
  image = tf.random.stateless_uniform([height, width, 3], [1, 2])
  spec = "inception_crop(area_min=20, area_max=60, ratio_min=0.5, ratio_max=2)"
  for i, out in enumerate(many(spec, image[None], 50)):
    seed = example_seed(3, 0, i)
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
      [height, width, 3],
      tf.zeros([0, 0, 4]),
      seed,
      min_object_covered=0,
      aspect_ratio_range=(0.5, 2),
      area_range=(0.2, 0.6),
      max_attempts=100,
      use_image_if_no_bounding_boxes=True,
    )
    np.testing.assert_array_equal(out, tf.slice(image, begin, size))


@pytest.mark.parametrize("name", first_quick(sorted(CROPS), 2))
@pytest.mark.first(1)
def test_a_size_resizes_as_the_resize_op_does(name):
  data = IMAGES["rgb_420"]()
  cropped = many(f"decode_jpeg_and_{name}()", [data], 8)
  for args in ("", ", method='bicubic', antialias=True"):
    resized = many(f"decode_jpeg_and_{name}((24, 40){args})", [data], 8)
    fn = get_preprocess_fn(f"resize((24, 40){args})")
    for a, b in zip(resized, cropped, strict=True):
      expected = fn(dict(image=tf.constant(b)))["image"]
      np.testing.assert_array_equal(a, expected)


@pytest.mark.parametrize("prefix", first_quick(["decode_jpeg_and_", ""], 1))
@pytest.mark.parametrize("name", CROPS)
@pytest.mark.first(1)
def test_without_a_seed_it_is_random(name, prefix):
  data = IMAGES["rgb_444"]()
  fn = get_preprocess_fn(("" if prefix else "decode|") + f"{prefix}{name}()")

  def shapes():
    dataset = tf.data.Dataset.from_tensors(data).repeat(30)
    dataset = dataset.map(lambda image: fn(dict(image=image)))
    return [out["image"].shape for out in dataset.as_numpy_iterator()]

  tf.random.set_seed(1)
  first = shapes()
  assert len(set(first)) > 15
  if name != "inception_crop":  # TensorFlow's own op ignores the global seed.
    tf.random.set_seed(1)
    assert shapes() == first
  tf.random.set_seed(2)
  assert shapes() != first


@pytest.mark.long
def test_hard_images():
  images = []
  for shape in ((1, 1), (1, 300), (300, 1), (2, 3), (3000, 10)):
    out = io.BytesIO()
    PIL.Image.fromarray(photo(*shape)).save(out, "JPEG")
    images.append(out.getvalue())
  for name in CROPS:
    for spec in (f"decode_jpeg_and_{name}(8)", f"decode|{name}(8)"):
      for image in many(spec, images, 5):
        assert image.shape == (8, 8, 3) and image.dtype == np.uint8


def test_a_corrupt_image_raises():
  fn = get_preprocess_fn("decode_jpeg_and_inception_crop_fixed(8)")
  for data in (b"", b"\xff\xd8\xff", b"text", encoded()[:60]):
    with pytest.raises(tf.errors.InvalidArgumentError):
      fn(dict(image=tf.constant(data)))


@pytest.mark.long
def test_static_shapes():
  for name in CROPS:
    for size, shape in (("7", [7, 7, 3]), ("None", [None, None, 3])):
      for crop in (f"decode_jpeg_and_{name}", f"decode|{name}"):
        spec = f"{crop}({size})|flip_lr|value_range"
        fn = tf.function(get_preprocess_fn(spec)).get_concrete_function(
          dict(image=tf.TensorSpec([], tf.string))
        )
        assert fn.structured_outputs["image"].shape.as_list() == shape
