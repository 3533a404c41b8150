"""Ops on one image: decode, resize, crop, flip, scale its values.

Images are [height, width, channels] tensors, uint8 unless an op says so.
"""

from collections.abc import Callable

import tensorflow as tf

from pp_ops.checks import check_method, check_rounding, check_size
from pp_ops.errors import UserError
from pp_ops.registry import register
from pp_ops.resize import (
  resize_antialiased,
  resize_as_pillow,
  resize_by_tensorflow,
)

_Op = Callable[..., tf.Tensor]

# This DCT gives the pixels of Pillow and torchvision. TensorFlow's default is
# off by up to 17 grey levels and hardly faster.
JPEG = {"dct_method": "INTEGER_ACCURATE"}


def decode(
  data: tf.Tensor, channels: int = 3, precise: bool = True
) -> tf.Tensor:
  """Decodes JPEG, PNG, BMP or the first frame of a GIF.

  Greyscale and CMYK images become RGB; an alpha channel is dropped.

  Args:
    data: scalar string tensor; or an already decoded image, uint8 [height,
      width, channels], which packed datasets hold and which is returned
      unchanged.
    channels: 3 or 1.
    precise: decode JPEGs as Pillow does. False is TensorFlow's default, the
      fast DCT, which is big_vision's default too.

  Returns:
    uint8 [height, width, channels].
  """
  data = tf.convert_to_tensor(data)
  if data.dtype == tf.uint8:
    return tf.ensure_shape(data, [None, None, channels])
  jpeg = JPEG if precise else {}
  image = tf.cond(
    tf.image.is_jpeg(data),
    lambda: tf.io.decode_jpeg(data, channels, **jpeg),
    lambda: tf.io.decode_image(data, channels, expand_animations=False),
  )
  return tf.ensure_shape(image, [None, None, channels])


@register("decode")
def get_decode(channels: int = 3, precise: bool = True) -> _Op:
  """Decodes JPEG, PNG, BMP or the first frame of a GIF to uint8.

  Greyscale and CMYK images become RGB; an alpha channel is dropped.

  Args:
    channels: 3 or 1.
    precise: decode JPEGs as Pillow does. False is TensorFlow's default, the
      fast DCT, which is big_vision's default too.

  Returns:
    encoded image -> uint8 [height, width, channels].
  """
  if channels not in (1, 3):
    raise UserError(f"channels={channels}: need 1 or 3")
  return lambda data: decode(data, channels, precise)


def _resize(image, size, method, antialias, as_pillow=False):
  """Resizes to a static or dynamic (height, width), keeping the dtype."""
  separable = antialias and method in ("bilinear", "bicubic")
  if separable and as_pillow and image.dtype == tf.uint8:
    out = resize_as_pillow(image, size, method)
  elif separable:
    out = resize_antialiased(image, size, method)
  else:
    out = resize_by_tensorflow(image, size, method, antialias)
  return to_dtype(out, image.dtype, method)


def to_dtype(out, dtype, method):
  """Casts what a resize by `method` gave to the dtype of the original image."""
  if dtype.is_floating or method == "nearest":
    return tf.cast(out, dtype)
  # Rounded, because casting truncates, which darkens by half a grey level.
  out = tf.round(out)
  if method in ("bilinear", "area"):  # Averages stay in range.
    return tf.cast(out, dtype)
  return tf.saturate_cast(out, dtype)


def _random_method(resize, rng):
  """resize("bilinear") or resize("bicubic"), each with probability 1/2."""
  return tf.cond(
    rng.uniform() < 0.5, lambda: resize("bilinear"), lambda: resize("bicubic")
  )


@register("resize")
def get_resize(size, method: str = "bilinear", antialias: bool = False) -> _Op:
  """Resizes to exactly `size`, ignoring the aspect ratio.

  Args:
    size: pixels, or (height, width).
    method: bilinear, bicubic, nearest, area, lanczos3, lanczos5, gaussian or
      mitchellcubic; or random, which draws bilinear or bicubic for each image,
      timm's default for training.
    antialias: widen the filter when shrinking, as Pillow and torchvision do.

  Returns:
    image -> image of the same dtype; integers are rounded and saturated. With
    "random" the op is a random one, (image, rng) -> image.
  """
  size = check_size(size)
  check_method(method, random=True)
  if method == "random":
    return lambda image, rng: _random_method(
      lambda drawn: _resize(image, size, drawn, antialias), rng
    )
  return lambda image: _resize(image, size, method, antialias)


def _resize_side(image, side, size, method, antialias, rounding="big_vision"):
  """Resizes so that side(height and width) is `size`, keeping the ratio.

  `side` is `tf.reduce_min` or `tf.reduce_max`.
  """
  shape = tf.shape(image)[:2]
  if rounding == "torchvision":
    target = tf.maximum(shape * size // side(shape), 1)
    return _resize(image, target, method, antialias, as_pillow=True)
  # float32, like big_vision, because for one image in ten thousand the side
  # lies midway between two pixel counts, where the precision decides.
  factor = tf.cast(size, tf.float32) / tf.cast(side(shape), tf.float32)
  target = tf.maximum(tf.round(tf.cast(shape, tf.float32) * factor), 1)
  return _resize(image, tf.cast(target, tf.int32), method, antialias)


@register("resize_small")
def get_resize_small(
  size: int,
  method: str = "area",
  antialias: bool = False,
  rounding: str = "big_vision",
) -> _Op:
  """Resizes so that the shorter side is `size`, keeping the aspect ratio.

  Args:
    size: pixels.
    method: as in `resize`.
    antialias: as in `resize`.
    rounding: how the longer side becomes whole: "big_vision" rounds it to the
      nearest pixel, "torchvision" rounds it down, as torchvision's
      `Resize(size)` does. "torchvision" also makes an antialiased bilinear or
      bicubic resize of a uint8 image round between its two passes, as Pillow
      does.

  Returns:
    image -> image of the same dtype.
  """
  check_size((size, size))
  check_method(method)
  check_rounding(rounding)
  return lambda image: _resize_side(
    image, tf.reduce_min, size, method, antialias, rounding
  )


@register("resize_long")
def get_resize_long(
  size: int, method: str = "area", antialias: bool = True
) -> _Op:
  """Resizes so that the longer side is `size`, keeping the aspect ratio."""
  check_size((size, size))
  check_method(method)
  return lambda image: _resize_side(
    image, tf.reduce_max, size, method, antialias
  )


@register("random_resize_small")
def get_random_resize_small(
  min_size: int, max_size: int, method: str = "area", antialias: bool = False
) -> _Op:
  """Resizes so that the shorter side is uniform on [min_size, max_size].

  Together with `random_crop` this is the scale augmentation of He et al.
  (https://arxiv.org/abs/1512.03385, section 3.4), who use 256 to 480 pixels.
  The method may be "random", as in `resize`.
  """
  check_size((min_size, max_size), "(min_size, max_size)")
  check_method(method, random=True)
  if min_size > max_size:
    raise UserError(f"min_size={min_size} is above max_size={max_size}")

  def resize(image, rng):
    size = rng.uniform([], min_size, max_size + 1, tf.int32)
    by = lambda drawn: _resize_side(
      image, tf.reduce_min, size, drawn, antialias
    )
    return _random_method(by, rng) if method == "random" else by(method)

  return resize


def _slice_window(image, size, offset_of):
  """The window of `size` at offset_of(image's size - window's size)."""
  room = tf.shape(image)[:2] - tf.constant(size)
  check = tf.debugging.assert_greater_equal(
    room, 0, f"the image is smaller than the crop of {size}"
  )
  with tf.control_dependencies([check]):
    begin = tf.concat([offset_of(room), [0]], 0)
  out = tf.slice(image, begin, [*size, -1])
  return tf.ensure_shape(out, [*size, image.shape[-1]])


def _central_square(image, offset_of):
  sides = tf.shape(image)[:2]
  side = tf.reduce_min(sides)
  begin = tf.concat([offset_of(sides - side), [0]], 0)
  crop = tf.slice(image, begin, tf.stack([side, side, -1]))
  return tf.ensure_shape(crop, [None, None, image.shape[-1]])


@register("central_crop")
def get_central_crop(size=None, rounding: str = "big_vision") -> _Op:
  """Cuts out the window in the centre.

  Args:
    size: pixels, or (height, width). Default the largest square.
    rounding: how the window's offset is rounded if the image is larger by an
      odd number of pixels: "big_vision" rounds down, "torchvision" to the even
      number, as torchvision's `CenterCrop` does.

  Returns:
    image -> image of the same dtype.
  """
  check_rounding(rounding)
  to_even = int(rounding == "torchvision")
  offset = lambda room: room // 2 + to_even * tf.cast(room % 4 == 3, tf.int32)
  if size is None:
    return lambda image: _central_square(image, offset)
  size = check_size(size)
  return lambda image: _slice_window(image, size, offset)


@register("random_crop")
def get_random_crop(size) -> _Op:
  """Cuts out a uniformly placed window of `size` pixels, or (height, width)."""
  size = check_size(size)

  def crop(image, rng):
    def offset(room):
      u = rng.uniform([2], dtype=tf.float64)
      return tf.cast(u * tf.cast(room + 1, tf.float64), tf.int32)

    return _slice_window(image, size, offset)

  return crop


def _get_flip(axis):
  def flip(image, rng):
    return tf.cond(
      rng.uniform() < 0.5, lambda: tf.reverse(image, [axis]), lambda: image
    )

  return flip


@register("flip_lr")
def get_flip_lr() -> _Op:
  """Mirrors left and right with probability one half."""
  return _get_flip(1)


@register("flip_ud")
def get_flip_ud() -> _Op:
  """Mirrors top and bottom with probability one half."""
  return _get_flip(0)
