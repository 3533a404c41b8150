"""Augmentation ops that move pixels: rotate, shear, translate, cutout.

uint8 [height, width, channels], 3 channels or 1, to uint8 of the same shape.
What comes from outside the image is `fill`, a grey level or one per channel.
Numbers may be scalar tensors, so that a policy can draw them per image.

All pick the nearest pixel, as TensorFlow's RandAugment (tensorflow/tpu,
efficientnet) does by way of `ImageProjectiveTransformV3`, and give what that op
gives.
"""

import math

import tensorflow as tf

from pp_ops.uint8_op import check_fill, check_number, filled, register_uint8


def _pick(image, x, y, fill):
  """The pixels of `image` that are nearest to positions.

  Args:
    image: uint8 [height, width, channels].
    x: float32, broadcasts with y to [height, width]: the columns, pixel centres
      at whole numbers.
    y: float32: the rows.
    fill: for positions outside, where the nearest pixel would be none.

  Returns:
    uint8 like `image`. Halves go up, but -0.5 is outside.
  """
  shape = tf.shape(image)
  height, width = tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)
  inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
  row, column = (tf.cast(tf.floor(a + 0.5), tf.int32) for a in (y, x))
  # Outside is one pixel more, at the end. Gathering pixels is several times
  # faster than the projective transform, which goes by channel.
  pixels = tf.reshape(image, [-1, image.shape[-1]])
  pixels = tf.concat([pixels, filled(1, 1, image, fill)[0]], 0)
  index = tf.where(inside, row * shape[1] + column, shape[0] * shape[1])
  return tf.gather(pixels, index)


def _positions(image):
  """Columns [width] and rows [height, 1], float32."""
  shape = tf.cast(tf.shape(image), tf.float32)
  return tf.range(shape[1]), tf.range(shape[0])[:, None]


@register_uint8("rotate")
def get_rotate(degrees: float, fill=128):
  """Turns the image about its centre, counterclockwise; `Image.rotate`.

  Pillow computes positions in fixed point and some pixels on the border between
  two neighbours fall to the other one. It does no such sampling for multiples
  of 90 degrees; this op always does.
  """
  check_number("degrees", degrees, -math.inf)
  check_fill(fill)

  def rotate(image):
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x, y = _positions(image)
    right, bottom = x[-1], y[-1, 0]
    from_x = (right - (cos * right - sin * bottom)) / 2.0
    from_y = (bottom - (sin * right + cos * bottom)) / 2.0
    # Not as a sum of three: graph optimisation would add those in another
    # order, and their last digit decides between two pixels.
    from_x = cos * x - sin * y + from_x
    from_y = sin * x - (-cos) * y + from_y
    return _pick(image, from_x, from_y, fill)

  return rotate


@register_uint8("shear_x")
def get_shear_x(level: float, fill=128):
  """Row y moves left by level * y pixels; the top row stays.

  `Image.transform(size, AFFINE, (1, level, 0, 0, 1, 0))`, except that Pillow
  shears about the top left corner of the image, this op, as efficientnet's,
  about the centre of its first pixel: half of `level` pixels of difference.
  """
  check_number("level", level, -math.inf)
  check_fill(fill)

  def shear_x(image):
    x, y = _positions(image)
    return _pick(image, x + level * y, y, fill)

  return shear_x


@register_uint8("shear_y")
def get_shear_y(level: float, fill=128):
  """Column x moves up by level * x pixels; the first column stays.

  The centre differs from Pillow's as that of `shear_x` does.
  """
  check_number("level", level, -math.inf)
  check_fill(fill)

  def shear_y(image):
    x, y = _positions(image)
    return _pick(image, x, level * x + y, fill)

  return shear_y


def _shift(image, pixels, axis, fill):
  """Moves the content towards the start of an axis by whole pixels."""
  pixels = tf.cast(tf.floor(tf.cast(pixels, tf.float32) + 0.5), tf.int32)
  side = tf.shape(image)[axis]
  lost = tf.clip_by_value(pixels, 0, side)  # at the start
  new = tf.clip_by_value(-pixels, 0, side)

  def along(size, rest):
    """`size` along the axis, `rest` along the others."""
    return [size if i == axis else r for i, r in enumerate(rest)]

  kept = tf.slice(
    image, along(lost, [0, 0, 0]), along(side - lost - new, [-1, -1, -1])
  )
  shape = tf.unstack(tf.shape(image))
  empty = lambda size: filled(*along(size, shape[:2]), image, fill)
  return tf.concat([empty(new), kept, empty(lost)], axis)


@register_uint8("translate_x")
def get_translate_x(pixels: float, fill=128):
  """Moves the content left by `pixels`, to the nearest pixel, halves up.

  `Image.transform(size, AFFINE, (1, 0, pixels, 0, 1, 0))`.
  """
  check_number("pixels", pixels, -math.inf)
  check_fill(fill)
  return lambda image: _shift(image, pixels, 1, fill)


@register_uint8("translate_y")
def get_translate_y(pixels: float, fill=128):
  """Moves the content up by `pixels`, to the nearest pixel, halves up.

  `Image.transform(size, AFFINE, (1, 0, 0, 0, 1, pixels))`.
  """
  check_number("pixels", pixels, -math.inf)
  check_fill(fill)
  return lambda image: _shift(image, pixels, 0, fill)


def cut_out(image, pad_size, place, fill):
  """A square of `fill`, as `cutout`, centred at a place in [0, 1), float32 [2].

  What lies outside the image is cut off.
  """
  shape = tf.shape(image)
  centre = tf.cast(place * tf.cast(shape[:2], tf.float32), tf.int32)
  top, left = tf.unstack(tf.maximum(centre - pad_size, 0))
  bottom, right = tf.unstack(tf.minimum(centre + pad_size, shape[:2]))
  rows = image[top:bottom]
  square = filled(bottom - top, right - left, image, fill)
  rows = tf.concat([rows[:, :left], square, rows[:, right:]], 1)
  return tf.concat([image[:top], rows, image[bottom:]], 0)


@register_uint8("cutout")
def get_cutout(pad_size: int, fill=128):
  """Covers a square of 2 pad_size pixels, its centre uniform over the image.

  Cutout (DeVries & Taylor, 2017), as efficientnet has it: the square's rows are
  centre - pad_size to centre + pad_size - 1, as far as they are in the image.
  """
  check_number("pad_size", pad_size, 0, whole=True)
  check_fill(fill)

  def cutout(image, rng):
    return cut_out(image, pad_size, rng.uniform([2]), fill)

  return cutout
