"""Colour jitter as torchvision's on Pillow images, and AlexNet's lighting."""

import numpy as np
import tensorflow as tf

from pp_ops import pixels
from pp_ops.errors import UserError
from pp_ops.registry import register
from pp_ops.uint8_op import check_number, one_of, register_uint8


def _saturated_colours():
  """Distance from the highest channel for each hue of Pillow's 0..255.

  Returns:
    float32 [256, 3]: 0 in the channel that is highest, 1 in the lowest.
  """
  # In single precision as Pillow, whose sixths begin where it rounds them to.
  place = np.arange(256, dtype=np.float32) * 6.0 / 255.0
  sixth = np.floor(place).astype(int)
  rest = (place - sixth).astype(np.float32)
  zero, one = np.zeros(256, np.float32), np.ones(256, np.float32)
  channels = [
    [zero, rest, one, one, 1 - rest, zero],
    [1 - rest, zero, zero, rest, one, one],
    [one, one, 1 - rest, zero, zero, rest],
  ]
  return np.stack([np.choose(sixth % 6, by_sixth) for by_sixth in channels], -1)


def _hue_and_saturation(image):
  """Pillow's, of uint8 [n, 3]: int32 [n] 0..255 and float32 [n] 0..255."""
  r, g, b = tf.unstack(tf.cast(image, tf.float32), axis=-1)
  high = tf.maximum(tf.maximum(r, g), b)
  span = high - tf.minimum(tf.minimum(r, g), b)
  divisor = tf.maximum(span, 1.0)
  red, green, blue = ((high - c) / divisor for c in (r, g, b))
  # Truncated below: doubles where Pillow has doubles, floats where floats.
  double = lambda x: tf.cast(x, tf.float64)
  to_float = lambda x: tf.cast(x, tf.float32)
  hue = tf.where(
    r == high,
    blue - green,
    tf.where(
      g == high,
      to_float(2.0 + double(red) - double(blue)),
      to_float(4.0 + double(green) - double(red)),
    ),
  )
  turn = double(hue) / 6.0 + 1.0
  turn = double(to_float(turn - tf.floor(turn)))
  hue = tf.where(span > 0, tf.cast(turn * 255.0, tf.int32), 0)
  saturation = double(span / tf.maximum(high, 1.0))
  return hue, to_float(tf.floor(saturation * 255.0))


@register_uint8("hue")
def get_hue(factor: float):
  """Turns the hue; torchvision's `adjust_hue` of a Pillow image.

  That goes by Pillow's integer HSV, which loses some grey levels even at factor
  0, and turns by int(255 factor) steps, modulo 256 although 255 are a circle.

  Args:
    factor: part of the circle, -0.5 to 0.5.

  Returns:
    The op. An image of one channel stays as it is.
  """
  check_number("factor", factor, -0.5, 0.5)
  colours = _saturated_colours()

  def hue(image):
    if image.shape[-1] == 1:
      return image
    rows = tf.reshape(image, [-1, 3])
    steps = tf.cast(tf.cast(factor, tf.float64) * 255.0, tf.int32)
    old, saturation = _hue_and_saturation(rows)
    distance = tf.gather(colours, tf.bitwise.bitwise_and(old + steps, 255))
    value = tf.cast(tf.reduce_max(rows, -1, keepdims=True), tf.float32)
    out = value * (1.0 - distance * (saturation[:, None] / 255.0))
    out = tf.cast(tf.floor(out + 0.5), tf.uint8)
    return tf.reshape(out, tf.shape(image))

  return hue


def _range(name, value, centre, low, high):
  """(least, most) factor from an amount or a pair."""
  if isinstance(value, (tuple, list)):
    if len(value) != 2:
      raise UserError(f"{name}={value!r}: need a number or (least, most)")
    check_number(f"{name}[0]", value[0], low, high)
    check_number(f"{name}[1]", value[1], value[0], high)
    return tuple(map(float, value))
  check_number(name, value, 0, high)
  return float(max(low, centre - value)), float(centre + value)


@register_uint8("color_jitter")
def get_color_jitter(brightness=0, contrast=0, saturation=0, hue=0):
  """Changes four things by random factors, in random order; torchvision's.

  Args:
    brightness: the factor is uniform in [max(0, 1 - brightness),
      1 + brightness], or in a given (least, most).
    contrast: likewise.
    saturation: likewise, of the op `color`.
    hue: the factor of the op `hue` is uniform in [-hue, hue], at most 0.5, or
      in a given (least, most).

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  inf = float("inf")
  ranges = {
    pixels.get_brightness: _range("brightness", brightness, 1, 0, inf),
    pixels.get_contrast: _range("contrast", contrast, 1, 0, inf),
    pixels.get_color: _range("saturation", saturation, 1, 0, inf),
    get_hue: _range("hue", hue, 0, -0.5, 0.5),
  }
  # These ranges leave the image alone, which `hue` at factor 0 would not.
  nothing = dict.fromkeys(ranges, (1, 1)) | {get_hue: (0, 0)}
  used = {k: v for k, v in ranges.items() if v != nothing[k]}
  ops = [
    lambda image, factor, get_op=get_op: get_op(factor)(image)
    for get_op in used
  ]
  choose = one_of(ops, tf.TensorSpec([], tf.float32))

  def color_jitter(image, rng):
    if not ops:
      return image
    low, high = (
      tf.constant(v, tf.float32) for v in zip(*used.values(), strict=True)
    )
    u = rng.uniform([2, len(ops)])
    factors, order = low + u[0] * (high - low), tf.argsort(u[1])
    for which in tf.unstack(order):
      image = choose(which, image, factors[which])
    return image

  return color_jitter


# Deviations along, and as columns, the principal axes of ImageNet's colours.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
  (-0.5675, 0.7192, 0.4009),
  (-0.5808, -0.0045, -0.8140),
  (-0.5836, -0.6948, 0.4203),
)


@register("lighting")
def get_lighting(alphastd: float = 0.1):
  """Adds one colour to all pixels, along ImageNet's principal axes.

  AlexNet's (Krizhevsky et al., 2012, section 4.1), with the constants that are
  in use since fb.resnet.torch.

  Args:
    alphastd: standard deviation of the three normal factors.

  Returns:
    A random op on float [..., 3] in [0, 1], for before its normalisation.
  """
  check_number("alphastd", alphastd, 0)

  def lighting(image, rng):
    image = tf.convert_to_tensor(image)
    if not (image.dtype.is_floating and image.shape[-1] == 3):
      raise UserError(
        f"op 'lighting' got {image.dtype.name} {image.shape}: need float "
        "[height, width, 3] in [0, 1], after value_range(0, 1)"
      )
    alpha = alphastd * rng.normal([3]) * _EIGENVALUES
    colour = tf.linalg.matvec(tf.constant(_EIGENVECTORS), alpha)
    return image + tf.cast(colour, image.dtype)

  return lighting
