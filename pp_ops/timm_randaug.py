"""timm's RandAugment: ops that grow with the magnitude, and noise on it.

"ResNet strikes back" (Wightman et al., 2021), appendix A, says how it differs
from the one of the RandAugment paper, for which see `pp_ops.randaug`: each op
is applied with probability one half, each time at a magnitude of its own, the
levels of `inc1` all go from weak to strong, what moves pixels interpolates,
empty places get the mean colour, and there is no Cutout. Definitions are those
of timm 1.0.31.
"""

import math

import tensorflow as tf

from pp_ops.checks import INTERPOLATIONS, check_fill, check_interpolation
from pp_ops.policies import MAX_LEVEL, parse_config, timm_moves, timm_values
from pp_ops.uint8_op import one_of, ops_of, register_uint8


def levels(config: dict[str, float], num: int, rng) -> tf.Tensor:
  """Magnitudes for `num` ops, float64 [num], as fractions of the tables' 10."""
  magnitude = tf.fill([num], tf.constant(config["m"], tf.float64))
  if config["mstd"] == math.inf:
    magnitude *= rng.uniform([num], dtype=tf.float64)
  elif config["mstd"]:
    magnitude += config["mstd"] * rng.normal([num], tf.float64)
  return tf.clip_by_value(magnitude, 0, config["mmax"]) / MAX_LEVEL


def value_ops(increasing: bool):
  """The ten ops on values.

  Args:
    increasing: whether a higher level is always a stronger change.

  Returns:
    Functions from a uint8 image and the level and sign, float64 scalar tensors,
    1 for the tables' 10 and 1 or -1, to an image.
  """
  return ops_of(timm_values(increasing, tf, tf.cast))


def moves(fill, interpolation: str):
  """The five ops that move pixels, like `value_ops`.

  Args:
    fill: grey level or one per channel.
    interpolation: "nearest", "bilinear" or "bicubic".

  Returns:
    Such functions.
  """
  return ops_of(timm_moves(fill, interpolation, tf.cast))


@register_uint8("rand_augment")
def get_rand_augment(
  config: str, fill=(124, 116, 104), interpolation: str = "random"
):
  """timm's RandAugment, from timm's string: "rand-m7-mstd0.5-inc1".

  Ops are drawn with replacement, uniformly from 15: AutoContrast, Equalize,
  Invert, Posterize, Solarize, SolarizeAdd, Color, Contrast, Brightness,
  Sharpness, Rotate, ShearX, ShearY, TranslateX and TranslateY.

  Args:
    config: "rand", and any of these sections, joined by "-":
      m: magnitude, 10 by default, where the tables end. (timm: whole numbers.)
      n: ops per image, 2 by default.
      p: chance that an op that was drawn is applied, 0.5 by default.
      mstd: standard deviation of each op's magnitude, 0 by default. "inf", or
        more than 100, means uniform from 0 to m; timm knows only the latter.
      mmax: bounds the magnitude from above, noise included; 10 by default.
      inc: 1: all levels get stronger with the magnitude, and Color, Contrast,
        Brightness and Sharpness go either way from the image itself; 0, the
        default: as in `randaug`.
      timm's t (other line-ups) and w (gone from timm) are not there.
    fill: what comes from outside the image, a grey level or one per channel;
      round(255 * ImageNet's mean) by default, as timm's factory gives it.
    interpolation: of the five ops that move pixels: "random" draws bilinear or
      bicubic each time; or one of `checks.INTERPOLATIONS`.

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  values = parse_config(config)
  num_layers, probability = values["n"], values["p"]
  check_fill(fill)
  check_interpolation(interpolation, ("random", *INTERPOLATIONS))
  methods = [interpolation]
  if interpolation == "random":
    methods = ["bilinear", "bicubic"]
  still = value_ops(bool(values["inc"]))
  moving = [moves(fill, method) for method in methods]
  num_still, num_moving = len(still), len(moving[0])
  ops = sum(moving, still)
  scalar = tf.TensorSpec([], tf.float64)
  nothing = lambda image, level, sign: image
  choose = one_of([*ops, nothing], scalar, scalar)

  def rand_augment(image, rng):
    # Outside of the branches, so that each layer draws once.
    level = tf.unstack(levels(values, num_layers, rng))
    draws = tf.unstack(rng.uniform([num_layers, 4], dtype=tf.float64))
    for at, draw in zip(level, draws, strict=True):
      which, way, applied, method = tf.unstack(draw)
      which = tf.cast(which * (num_still + num_moving), tf.int32)
      method = tf.cast(method * len(methods), tf.int32)
      which += tf.where(which < num_still, 0, method * num_moving)
      which = tf.where(applied < probability, which, len(ops))
      sign = tf.where(way < 0.5, tf.constant(-1, tf.float64), 1)
      image = choose(which, image, at, sign)
    return image

  return rand_augment
