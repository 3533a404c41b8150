"""Augmentation ops that move pixels: rotate, shear, translate, cutout.

They map uint8 [height, width, channels], 3 channels or 1, to uint8 of the same
shape. What comes from outside the image is `fill`, a grey level or one per
channel. Numbers may be scalar tensors, so that a policy can draw them per
image.

By default all pick the nearest pixel, and the result equals that of
TensorFlow's RandAugment (tensorflow/tpu, efficientnet), which uses
`ImageProjectiveTransformV3`. With `interpolation="nearest_pillow"`, "bilinear"
or "bicubic" the result equals Pillow's. Pillow's nearest pixel may be the other
one where a position is close to the border between two. Shears keep the centre
of the first pixel in place, like efficientnet's; with `corner=True` they keep
the image's corner in place, like Pillow's.
"""

import math

import tensorflow as tf

from pp_ops import interpolation as between
from pp_ops.augmentations import check_bool, check_cutout, fixed_point
from pp_ops.checks import check_fill, check_interpolation, check_number
from pp_ops.uint8_op import filled, register_uint8


def _pick(image, x, y, fill):
  """The pixels of `image` nearest to (x, y), or `fill` for those outside.

  The columns x and rows y are float32 and broadcast to [height, width]; pixel
  centres are at whole numbers. Halves round up, but -0.5 is outside.
  """
  shape = tf.shape(image)
  height, width = tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)
  inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
  row, column = (tf.cast(tf.floor(a + 0.5), tf.int32) for a in (y, x))
  return _gather(image, row, column, inside, fill)


def _gather(image, row, column, inside, fill):
  """The pixels at int32 rows and columns, or `fill` where not `inside`."""
  shape = tf.shape(image)
  # One extra pixel at the end holds `fill` for all positions outside. Gathering
  # whole pixels is several times faster than the projective transform, which
  # works channel by channel. For entries of so few bytes gather_nd is twice as
  # fast as gather.
  pixels = tf.reshape(image, [-1, image.shape[-1]])
  pixels = tf.concat([pixels, filled(1, 1, image, fill)[0]], 0)
  index = tf.where(inside, row * shape[1] + column, shape[0] * shape[1])
  return tf.gather_nd(pixels, index[..., None])


def _pick_as_pillow(image, column_terms, row_terms, fill):
  """The pixels that `Image.transform` picks; see `fixed_point` for terms."""
  shape = tf.shape(image)
  x, y = _positions(image, tf.int32)
  column, row = (
    fixed_point(x, y, terms, tf, lambda v: tf.cast(v, tf.int32))
    for terms in (column_terms, row_terms)
  )
  inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
  return _gather(image, row, column, inside, fill)


def _positions(image, dtype):
  """Column numbers [width] and row numbers [height, 1], of a dtype."""
  shape = tf.cast(tf.shape(image), dtype)
  return tf.range(shape[1]), tf.range(shape[0])[:, None]


def _rotation(degrees, right, bottom):
  """cos, sin, and the source of (0, 0) in a turn about (right, bottom) / 2."""
  angle = tf.cast(degrees, right.dtype) * (math.pi / 180)
  cos, sin = tf.cos(angle), tf.sin(angle)
  if right.dtype == tf.float64:  # to the digits that Pillow keeps
    cos, sin = (tf.round(a * 1e15) / 1e15 for a in (cos, sin))
  from_x = (right - (cos * right - sin * bottom)) / 2.0
  from_y = (bottom - (sin * right + cos * bottom)) / 2.0
  return cos, sin, from_x, from_y


def _turned(degrees, x, y, right, bottom):
  """Where pixels at (x, y) come from, turned about (right, bottom) / 2."""
  cos, sin, from_x, from_y = _rotation(degrees, right, bottom)
  # The difference first, not a sum of three terms: graph optimisation would
  # reorder such a sum, and the last digit decides between two pixels.
  return cos * x - sin * y + from_x, sin * x - (-cos) * y + from_y


def _either(get_op, bicubic):
  """The op whose interpolation a policy draws: bicubic or else bilinear."""
  return lambda image: tf.cond(
    bicubic,
    lambda: get_op("bicubic")(image),
    lambda: get_op("bilinear")(image),
  )


@register_uint8("rotate")
def get_rotate(degrees: float, fill=128, interpolation: str = "nearest"):
  """Turns the image about its centre, counterclockwise; `Image.rotate`.

  Pillow does no sampling for multiples of 90 degrees; this op always does.

  Args:
    degrees: the angle.
    fill: grey level, or one per channel.
    interpolation: "nearest", "nearest_pillow", "bilinear" or "bicubic".

  Returns:
    The op.
  """
  if tf.is_tensor(interpolation):
    return _either(lambda how: get_rotate(degrees, fill, how), interpolation)
  check_number("degrees", degrees, -math.inf)
  check_fill(fill)
  check_interpolation(interpolation)

  def rotate(image):
    if interpolation == "nearest":
      x, y = _positions(image, tf.float32)
      return _pick(image, *_turned(degrees, x, y, x[-1], y[-1, 0]), fill)
    x, y = _positions(image, tf.float64)
    if interpolation == "nearest_pillow":
      cos, sin, from_x, from_y = _rotation(degrees, x[-1], y[-1, 0])
      column, row = (cos, -sin, from_x + 0.5), (sin, cos, from_y + 0.5)
      return _pick_as_pillow(image, column, row, fill)
    x, y = _turned(degrees, x + 0.5, y + 0.5, x[-1] + 1, y[-1, 0] + 1)
    return between.sample(image, x, y, fill, interpolation)

  return rotate


def _register_shear(name, axis):
  @register_uint8(name)
  def get_shear(
    level: float,
    fill=128,
    interpolation: str = "nearest",
    corner: bool = False,
  ):
    """Shears the image: shifts each row left, or each column up.

    `shear_x` shifts row y by level * y pixels, `shear_y` column x by level * x,
    so that the first row or column stays in place.

    Args:
      level: shift in pixels from one row or column to the next.
      fill: grey level, or one per channel.
      interpolation: see `rotate`.
      corner: False keeps the centre of the first pixel in place, like
        efficientnet. True keeps the top left corner of the image in place, like
        `Image.transform(size, AFFINE, (1, level, 0, 0, 1, 0))`, which shifts
        everything by half of `level` pixels more.

    Returns:
      The op.
    """
    if tf.is_tensor(interpolation):
      return _either(
        lambda how: get_shear(level, fill, how, corner), interpolation
      )
    check_number("level", level, -math.inf)
    check_fill(fill)
    check_interpolation(interpolation)
    check_bool("corner", corner)
    start = 0.5 if corner else 0.0
    kind = tf.float32 if interpolation == "nearest" else tf.float64

    def shear(image):
      x, y = _positions(image, kind)
      slope = tf.cast(level, kind)
      if interpolation == "nearest_pillow":
        begin = slope * start + 0.5
        column, row = (1.0, 0.0, 0.5), (0.0, 1.0, 0.5)
        if axis:
          column = (1.0, slope, begin)
        else:
          row = (slope, 1.0, begin)
        return _pick_as_pillow(image, column, row, fill)
      if interpolation != "nearest":
        offset = slope * ((y[:, 0] if axis else x) + start)
        return between.slide(image, offset, axis, fill, interpolation)
      if axis:
        return _pick(image, x + slope * (y + start), y, fill)
      return _pick(image, x, slope * (x + start) + y, fill)

    return shear


_register_shear("shear_x", 1)
_register_shear("shear_y", 0)


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


def _register_translate(name, axis):
  @register_uint8(name)
  def get_translate(pixels: float, fill=128, interpolation: str = "nearest"):
    """Moves the content left (`translate_x`) or up (`translate_y`).

    With interpolation="nearest" it moves by whole pixels; halves round up.
    `translate_x` is Pillow's `Image.transform(size, AFFINE,
    (1, 0, pixels, 0, 1, 0))`, `translate_y` the same with
    (1, 0, 0, 0, 1, pixels).
    """
    if tf.is_tensor(interpolation):
      return _either(
        lambda how: get_translate(pixels, fill, how), interpolation
      )
    check_number("pixels", pixels, -math.inf)
    check_fill(fill)
    check_interpolation(interpolation)
    # Both kinds of "nearest" give the same pixels for a shift by whole pixels.
    if interpolation.startswith("nearest"):
      return lambda image: _shift(image, pixels, axis, fill)

    def translate(image):
      offset = tf.cast(pixels, tf.float64)
      offset = tf.fill([tf.shape(image)[1 - axis]], offset)
      return between.slide(image, offset, axis, fill, interpolation)

    return translate


_register_translate("translate_x", 1)
_register_translate("translate_y", 0)


def paste(image, patch, top, left):
  """A copy of the image with `patch` at (top, left); the patch must fit."""
  bottom, right = top + tf.shape(patch)[0], left + tf.shape(patch)[1]
  rows = image[top:bottom]
  rows = tf.concat([rows[:, :left], patch, rows[:, right:]], 1)
  return tf.concat([image[:top], rows, image[bottom:]], 0)


@register_uint8("cutout")
def get_cutout(pad_size: int, fill=128, place=None):
  """Covers a square of 2 pad_size pixels.

  Cutout (DeVries & Taylor, 2017), as efficientnet has it: the square's rows are
  centre - pad_size to centre + pad_size - 1, as far as they are in the image,
  and likewise its columns.

  Args:
    pad_size: half of the square's side, pixels.
    fill: grey level, or one per channel.
    place: centre of the square, (y, x), as fractions of the image in [0, 1). By
      default it is drawn uniformly for each image.

  Returns:
    The op, a random one unless `place` is given.
  """
  check_cutout(pad_size, fill, place)

  def cut_out(image, place):
    shape = tf.shape(image)
    centre = tf.cast(
      tf.cast(tf.stack(place), tf.float32) * tf.cast(shape[:2], tf.float32),
      tf.int32,
    )
    top, left = tf.unstack(tf.maximum(centre - pad_size, 0))
    bottom, right = tf.unstack(tf.minimum(centre + pad_size, shape[:2]))
    square = filled(bottom - top, right - left, image, fill)
    return paste(image, square, top, left)

  if place is not None:
    return lambda image: cut_out(image, place)
  return lambda image, rng: cut_out(image, rng.uniform([2]))
