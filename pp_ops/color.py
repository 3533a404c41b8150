"""Colour ops: torchvision's hue, AlexNet's lighting, permutation."""

import tensorflow as tf

from pp_ops.augmentations import (
  EIGENVALUES,
  PERMUTATIONS,
  check_channels,
  saturated_colours,
)
from pp_ops.augmentations import EIGENVECTORS as _EIGENVECTORS
from pp_ops.checks import check_number
from pp_ops.errors import UserError
from pp_ops.registry import register
from pp_ops.uint8_op import register_uint8


def _hue_and_saturation(image):
  """Pillow's H and S of uint8 [n, 3]: int32 [n] and float32 [n], in 0..255."""
  r, g, b = tf.unstack(tf.cast(image, tf.float32), axis=-1)
  high = tf.maximum(tf.maximum(r, g), b)
  span = high - tf.minimum(tf.minimum(r, g), b)
  divisor = tf.maximum(span, 1.0)
  red, green, blue = ((high - c) / divisor for c in (r, g, b))
  # Each step has Pillow's precision, float64 or float32, because truncation
  # below turns a difference in the last digit into a grey level.
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
  """Shifts the hue; torchvision's `adjust_hue` of a Pillow image.

  torchvision converts to Pillow's integer HSV and back, which loses some grey
  levels even at factor 0. It shifts the hue by int(255 factor) steps modulo
  256, although 255 steps are a full circle.

  Args:
    factor: fraction of the colour circle, -0.5 to 0.5.

  Returns:
    The op. It leaves an image of one channel unchanged.
  """
  check_number("factor", factor, -0.5, 0.5)
  colours = saturated_colours()

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


def permute_channels(image: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
  """The channels of [..., 3] in the order `PERMUTATIONS[which]`."""
  order = tf.gather(PERMUTATIONS, which)
  return tf.ensure_shape(tf.gather(image, order, axis=-1), image.shape)


@register("channel_permute")
def get_channel_permute():
  """Permutes the three channels: all six orders are equally likely.

  The identity is one of the six. An image of one channel is left unchanged. Any
  dtype will do.
  """

  def channel_permute(image, rng):
    image = tf.convert_to_tensor(image)
    check_channels("channel_permute", image, image.shape.rank)
    which = rng.uniform([], 0, len(PERMUTATIONS), tf.int32)
    return image if image.shape[-1] == 1 else permute_channels(image, which)

  return channel_permute


@register("lighting")
def get_lighting(alphastd: float = 0.1):
  """Adds one colour to all pixels, along ImageNet's principal axes.

  AlexNet's colour augmentation (Krizhevsky et al., 2012, section 4.1), with the
  constants that are in use since fb.resnet.torch.

  Args:
    alphastd: standard deviation of the three normal factors.

  Returns:
    A random op on float [..., 3] in [0, 1]; use it before the image is
    normalised.
  """
  check_number("alphastd", alphastd, 0)

  def lighting(image, rng):
    image = tf.convert_to_tensor(image)
    if not (image.dtype.is_floating and image.shape[-1] == 3):
      raise UserError(
        f"op 'lighting' got {image.dtype.name} {image.shape}: need float "
        "[height, width, 3] in [0, 1], after value_range(0, 1)"
      )
    alpha = alphastd * rng.normal([3]) * EIGENVALUES
    colour = tf.linalg.matvec(tf.constant(_EIGENVECTORS), alpha)
    return image + tf.cast(colour, image.dtype)

  return lighting
