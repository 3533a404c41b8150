"""Crops: apply a law to a decoded image, or to a JPEG while decoding it.

`inception_crop` is TensorFlow's own op; every other law of `pp_ops.laws.LAWS`
runs in the graph as array maths, and so does `inception_crop_coupled`, which
has TensorFlow's law. Each op also exists fused with decoding, as
`decode_jpeg_and_...`, which decodes no more of a JPEG than the window needs and
gives the same pixels.
"""

import copy
from collections.abc import Callable

import tensorflow as tf

from pp_ops import image as image_ops
from pp_ops.checks import check_method
from pp_ops.laws import Law, NativeLaw
from pp_ops.laws.names import COUPLED, FUSED
from pp_ops.random import Rng

# (height, width, rng) -> (y, x, h, w), all scalar int32 tensors.
Sampler = Callable[[tf.Tensor, tf.Tensor, Rng], tuple[tf.Tensor, ...]]


def law_sampler(law) -> Sampler:
  """Runs a `pp_ops.laws` law in the graph, in float64."""

  def sample(height, width, rng):
    big_h, big_w = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    u = rng.uniform([law.max_attempts, law.draws], dtype=tf.float64)
    v = rng.uniform([2], dtype=tf.float64)
    *window, _ = law.window(u, v, big_h, big_w, tf)
    return tuple(tf.cast(a, tf.int32) for a in window)

  return sample


def native_sampler(law: NativeLaw) -> Sampler:
  """TensorFlow's own `sample_distorted_bounding_box`, untouched."""
  kwargs = dict(
    bounding_boxes=tf.zeros([0, 0, 4], tf.float32),
    min_object_covered=0.0,
    aspect_ratio_range=(law.ratio_min, law.ratio_max),
    area_range=(law.area_min, law.area_max),
    max_attempts=law.max_attempts,
    use_image_if_no_bounding_boxes=True,
  )

  def sample(height, width, rng):
    shape = tf.stack([height, width, 3])
    seed = rng.seed()
    if seed is None:
      begin, size, _ = tf.image.sample_distorted_bounding_box(shape, **kwargs)
    else:
      begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape, seed=seed, **kwargs
      )
    return begin[0], begin[1], size[0], size[1]

  return sample


def get_sampler(law: Law, coupled: bool = False) -> Sampler:
  """The function that draws a law's windows.

  Args:
    law: the law.
    coupled: draw TensorFlow's law by array maths too, instead of by its kernel,
      so that it uses the same uniforms as the other laws.
  """
  # Exactly NativeLaw, because the kernel cannot do what a subclass changes.
  native = type(law) is NativeLaw and not coupled
  return native_sampler(law) if native else law_sampler(law)


def cut(image: tf.Tensor, window) -> tf.Tensor:
  """The window (y, x, h, w) of an image [H, W, C]."""
  y, x, h, w = tf.unstack(window)
  # Slicing by tensors loses the static number of channels.
  return tf.ensure_shape(
    tf.slice(image, [y, x, 0], [h, w, -1]), [None, None, image.shape[-1]]
  )


def decode_window(data: tf.Tensor, window, width: tf.Tensor) -> tf.Tensor:
  """Decodes the window (y, x, h, w) of a JPEG that is `width` pixels wide."""
  y, x, h, w = tf.unstack(window)
  # One more column on each side, because the decoder interpolates chroma from
  # neighbours: without them the window's edge columns would differ.
  left = tf.minimum(x, 1)
  wide = tf.minimum(w + left + 1, width - x + left)
  window = tf.stack([y, x - left, h, wide])
  image = tf.image.decode_and_crop_jpeg(data, window, 3, **image_ops.JPEG)
  return tf.slice(image, [0, left, 0], [h, w, 3])


def _crop_image(sample):
  def crop(image, rng):
    shape = tf.shape(image)
    return cut(image, sample(shape[0], shape[1], rng))

  return crop


def _decode_and_crop(sample):
  def crop(data, rng):
    data = tf.convert_to_tensor(data)
    if data.dtype == tf.uint8:  # packed data are decoded
      return _crop_image(sample)(image_ops.decode(data), rng)

    # Both branches draw from copies of rng, so that the window does not depend
    # on the format.
    def from_jpeg():
      shape = tf.image.extract_jpeg_shape(data)
      window = sample(shape[0], shape[1], copy.copy(rng))
      return decode_window(data, window, shape[1])

    def from_other():
      return _crop_image(sample)(image_ops.decode(data), copy.copy(rng))

    image = tf.cond(tf.image.is_jpeg(data), from_jpeg, from_other)
    return tf.ensure_shape(image, [None, None, 3])

  return crop


def get_crop(name: str, law: Law, size, resize: dict) -> Callable:
  """The function of a crop op: (image or encoded image, rng) -> image.

  Args:
    name: the op's name, whose prefix says whether to decode as well.
    law: the crop's law.
    size: side of the result in pixels, or (height, width); None keeps the
      window's size.
    resize: {"method": ..., "antialias": ...} of `pp_ops.image.get_resize`.
  """
  check_method(resize["method"], random=True)
  sampler = get_sampler(law, coupled=name.removeprefix(FUSED) == COUPLED)
  fused = name.startswith(FUSED)
  crop = _decode_and_crop(sampler) if fused else _crop_image(sampler)
  if size is None:
    return crop
  resize_op = image_ops.get_resize(size, **resize)
  if resize["method"] != "random":
    return lambda image, rng: resize_op(crop(image, rng))

  def crop_and_resize(image, rng):
    own = copy.copy(rng)
    rng.seed()  # skips the draw that the resize uses
    return resize_op(crop(image, rng), own)

  return crop_and_resize
