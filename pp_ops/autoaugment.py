"""TrivialAugment and AutoAugment as torchvision has them, on Pillow images.

A TrivialAugment applies one op at a random strength. An AutoAugment applies two
that were found together, by a search on one dataset, with the chances and the
strengths that were found too. Both draw from about the same ops.

They differ from efficientnet's ops of the same names (`pp_ops.randaug`): shears
are about the image's corner, AutoAugment translates by a part of the image and
not by a number of pixels, brightness and the like go either way from the image
itself, empty places are black, posterising and solarising wrap around nowhere.
"""

import tensorflow as tf

from pp_ops.policies import (
  AUTOAUGMENT_BINS,
  autoaugment_line_up,
  autoaugment_tables,
  wide_line_up,
)
from pp_ops.uint8_op import one_of, ops_of, register_uint8

_NUMBER = tf.TensorSpec([], tf.int32)  # of a magnitude


def _number(u, below):
  """int32 scalar in 0 to below - 1 from a uniform float32 in [0, 1)."""
  return tf.cast(u * below, tf.int32)


def _chooser(line_up):
  """Function (i, image, k) -> image, unchanged where i is beyond all ops."""
  return one_of([*ops_of(line_up), lambda image, k: image], _NUMBER)


@register_uint8("trivial_augment_wide")
def get_trivial_augment_wide(
  num_magnitude_bins: int = 31, fill=0, interpolation: str = "nearest"
):
  """One op of 14 at a random magnitude; torchvision's `TrivialAugmentWide`.

  Identity, ShearX and ShearY (by up to 0.99), TranslateX and TranslateY (32
  pixels), Rotate (135 degrees), Brightness, Color, Contrast and Sharpness
  (factor 1 +- 0.99), Posterize (to 2 bits), Solarize, AutoContrast and Equalize
  are equally likely, and so are the magnitudes. What has a direction goes
  either way with probability one half. Mueller and Hutter, 2021, table 1.

  Args:
    num_magnitude_bins: how many magnitudes there are, 0 and the greatest ones
      included.
    fill: what comes from outside the image, a grey level or one per channel.
    interpolation: "nearest", "bilinear" or "bicubic".

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  num = num_magnitude_bins
  line_up = wide_line_up(num, fill, interpolation, tf.gather)
  choose = _chooser(line_up)

  def trivial_augment_wide(image, rng):
    which, magnitude, way = tf.unstack(rng.uniform([3]))
    which = _number(which, len(line_up) + 1)  # the last is the identity
    k = _number(magnitude, num) + num * tf.cast(way < 0.5, tf.int32)
    return choose(which, image, k)

  return trivial_augment_wide


@register_uint8("autoaugment")
def get_autoaugment(
  policy: str = "imagenet", fill=0, interpolation: str = "nearest"
):
  """Two ops, by one of a policy's 25 sub-policies; torchvision's `AutoAugment`.

  Each op of the sub-policy is applied with the chance given there, and what has
  a direction goes either way with probability one half. Cubuk et al., 2019;
  the tables are in `pp_ops.autoaugment_tables`.

  Args:
    policy: what it was found for: "imagenet", "cifar10" or "svhn".
    fill: what comes from outside the image, a grey level or one per channel.
    interpolation: "nearest", "bilinear" or "bicubic".

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  tables = autoaugment_tables(policy)
  line_up = autoaugment_line_up(fill, interpolation, tf.gather)
  choose = _chooser(line_up)

  def autoaugment(image, rng):
    u = tf.unstack(rng.uniform([5]))
    row = _number(u[0], len(tables[0]))
    which, chance, magnitude = (tf.gather(table, row) for table in tables)
    for i in range(2):
      applied, way = u[1 + i], u[3 + i]
      at = tf.where(applied < chance[i], which[i], len(line_up))
      backwards = tf.cast(way < 0.5, tf.int32)
      image = choose(at, image, magnitude[i] + AUTOAUGMENT_BINS * backwards)
    return image

  return autoaugment
