"""Interpolation between pixels: Pillow's bilinear and bicubic affine transform.

This computes what `Image.transform(size, AFFINE, ...)` and `Image.rotate` do,
in a graph. Positions are in double precision, the kernel covers the nearest 2x2
or 4x4 pixels, pixels beyond an edge are replaced by those on it, and the result
is truncated to whole grey levels. A position outside the image becomes `fill`.

Positions are Pillow's: the image goes from 0 to its width or height, and the
first pixel's centre is at 0.5.
"""

import tensorflow as tf

from pp_ops.uint8_op import filled

# Added before truncating, because the weights sum to 1 only up to float32's
# rounding: a sum slightly below a grey level must become that level.
_ROUNDING = 2.0**-10


def _kernel(d, method):
  """Weights of consecutive pixels, and which pixel is the first.

  Args:
    d: float32, distance of the position beyond the pixel before it, 0 <= d < 1.
    method: "bilinear" or "bicubic".

  Returns:
    (offset of the first weighted pixel from the pixel before the position, list
    of weights shaped like `d`). The cubic is that of Keys (1981) with a = -1.
  """
  if method == "bilinear":
    return 0, [1.0 - d, d]
  left, inverse = d * d, 1.0 - d
  right = inverse * inverse
  return -1, [
    -d * right,
    1.0 - left * (2.0 - d),
    1.0 - right * (2.0 - inverse),
    -inverse * left,
  ]


def _whole_and_rest(position):
  """The floor as int32, and the fraction as float32."""
  floor = tf.floor(position)
  return tf.cast(floor, tf.int32), tf.cast(position - floor, tf.float32)


def _grey_levels(values, method):
  if method == "bicubic":  # bicubic weights can be negative
    values = tf.minimum(tf.maximum(values, 0.0), 255.0)
  return tf.cast(values + _ROUNDING, tf.uint8)


def _places(image, row, column):
  """Rows and columns, clipped to the image, as `_pixels` takes them."""
  height, width = tf.unstack(tf.shape(image)[:2])
  row = tf.clip_by_value(row, 0, height - 1) * width
  return row, tf.clip_by_value(column, 0, width - 1)


def _pixels(flat, row, column):
  """The pixels at places that `_places` made.

  Args:
    flat: [height * width, C].
    row: int32, index in `flat` of the row's first pixel.
    column: int32; broadcasts against `row`.

  Returns:
    [..., C], of the dtype of `flat`.
  """
  # For entries of so few bytes gather_nd is twice as fast as gather.
  return tf.gather_nd(flat, tf.expand_dims(row + column, -1))


def _repeat(values, times):
  """`tf.repeat` of values [n], in a fifth of the graph nodes."""
  return tf.reshape(tf.tile(values[:, None], [1, times]), [-1])


def _inside(position, size):
  return (position >= 0) & (position < tf.cast(size, position.dtype))


def slide(image, offset, axis: int, fill, method: str) -> tf.Tensor:
  """Shifts every row, or every column, by an offset of its own.

  Args:
    image: uint8 [height, width, channels].
    offset: float64 [height] for axis 1, [width] for axis 0: pixel x of row y
      comes from x + offset[y], or pixel y of column x from y + offset[x].
    axis: 1 to slide rows, 0 columns.
    fill: grey level or one per channel.
    method: "bilinear" or "bicubic".

  Returns:
    uint8 like `image`.
  """
  shape, channels = tf.shape(image), image.shape[-1]
  size = shape[axis]
  # Vectors along the axis are [n] for axis 1 and [n, 1] for axis 0; those
  # across it are the other way around.
  along = (lambda v: v) if axis else (lambda v: v[:, None])
  across = (lambda v: v[:, None]) if axis else (lambda v: v)
  per_pixel = (lambda v: v) if axis else (lambda v: _repeat(v, channels))
  whole, rest = _whole_and_rest(offset)
  first, weights = _kernel(rest, method)
  # Neighbouring positions use overlapping pixels, so each is fetched once and
  # the taps below are slices of the result.
  more = len(weights) - 1
  reach = tf.range(first, size + (first + more))
  place = along(reach) + across(whole)
  other = across(tf.range(shape[1 - axis]))
  places = _places(image, *((other, place) if axis else (place, other)))
  found = _pixels(tf.reshape(image, [-1, channels]), *places)
  found = tf.reshape(found, [tf.shape(found)[0], -1])
  step = channels if axis else 1
  length = size * step

  def tap(k):
    start = k * step
    part = found[:, start : start + length] if axis else found[start:][:length]
    return tf.cast(part, tf.float32) * across(per_pixel(weights[k]))

  out = _grey_levels(tf.add_n([tap(k) for k in range(more + 1)]), method)
  own = tf.cast(tf.range(size), tf.float64) + 0.5
  flat = (lambda v: _repeat(v, channels)) if axis else (lambda v: v)
  position = along(flat(own)) + across(per_pixel(offset))
  empty = tf.reshape(filled(1, shape[1], image, fill), [1, -1])
  out = tf.where(_inside(position, size), out, empty)
  return tf.reshape(out, shape)


def sample(image, x, y, fill, method: str) -> tf.Tensor:
  """Samples the image at any positions.

  Args:
    image: uint8 [height, width, channels].
    x: float64 [height, width], the column of each result pixel's position.
    y: float64 [height, width], the row.
    fill: grey level or one per channel.
    method: "bilinear" or "bicubic".

  Returns:
    uint8 like `image`.
  """
  shape, channels = tf.shape(image), image.shape[-1]
  inside = _inside(x, shape[1]) & _inside(y, shape[0])
  # Everything is expanded to [pixels * channels], because broadcasting over
  # channels is slow.
  spread = lambda v: _repeat(tf.reshape(v, [-1]), channels)
  (column, right), (row, down) = map(_whole_and_rest, (x - 0.5, y - 0.5))
  first, across = _kernel(spread(right), method)
  _, along = _kernel(spread(down), method)
  levels = tf.reshape(tf.cast(image, tf.float32), [-1, channels])
  places = [
    _places(image, row + (first + k), column + (first + k))
    for k in range(len(along))
  ]
  out = 0.0
  for (start, _), weight in zip(places, along, strict=True):
    line = 0.0
    for (_, column), part in zip(places, across, strict=True):
      line += part * tf.reshape(_pixels(levels, start, column), [-1])
    out += weight * line
  out = _grey_levels(out, method)
  empty = tf.reshape(filled(shape[0], shape[1], image, fill), [-1])
  return tf.reshape(tf.where(spread(inside), out, empty), shape)
