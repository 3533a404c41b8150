"""timm's RandAugment: ops that grow with the magnitude, and noise on it.

"ResNet strikes back" (Wightman et al., 2021), appendix A, says how it differs
from the one of the RandAugment paper, for which see `pp_ops.randaug`: each op
is applied with probability one half, each time at a magnitude of its own, the
levels of `inc1` all go from weak to strong, what moves pixels interpolates,
empty places get the mean colour, and there is no Cutout. Definitions are those
of timm 1.0.31.
"""

import math
import re

import tensorflow as tf

from pp_ops import geometry, pixels
from pp_ops.errors import UserError
from pp_ops.interpolation import INTERPOLATIONS, check_interpolation
from pp_ops.registry import did_you_mean
from pp_ops.uint8_op import check_fill, check_number, one_of, register_uint8

_MAX_LEVEL = 10  # of the tables
_TRANSLATE = 0.45  # of the side, at that level
_UNIFORM_ABOVE = 100  # a standard deviation of more means uniform

# Key -> (default, least, most, whole).
_KEYS = {
  "m": (10, 0, math.inf, False),
  "n": (2, 0, math.inf, True),
  "p": (0.5, 0, 1, False),
  "mstd": (0, 0, math.inf, False),
  "mmax": (_MAX_LEVEL, 1e-3, math.inf, False),
  "inc": (0, 0, 1, True),
}


def parse_config(config: str) -> dict[str, float]:
  """Reads a string such as "rand-m7-mstd0.5-inc1".

  Args:
    config: "rand" and sections, a key of `get_rand_augment` and a number each.

  Returns:
    A value for each key; mstd is infinite for "inf" and above 100.

  Raises:
    ValueError: in one line, for anything else.
  """
  first, *sections = str(config).split("-")
  if first != "rand":
    raise UserError(f"{config!r}: need 'rand' and keys, as 'rand-m7-mstd0.5'")
  values = {}
  for section in sections:
    key, value = re.fullmatch(r"([a-zA-Z]*)(.*)", section, re.DOTALL).groups()
    if section == "mstdinf":
      key, value = "mstd", str(_UNIFORM_ABOVE + 1)
    if key not in _KEYS:
      raise UserError(f"unknown key {key!r}: {did_you_mean(key, _KEYS)}")
    if key in values:
      raise UserError(f"{config!r} gives {key!r} twice")
    if not re.fullmatch(r"\d+(\.\d*)?", value):
      raise UserError(f"{section!r}: need a number after {key!r}")
    _, least, most, whole = _KEYS[key]
    number = float(value) if "." in value else int(value)
    check_number(key, number, least, most, whole)
    values[key] = number
  values = {**{key: spec[0] for key, spec in _KEYS.items()}, **values}
  if values["mstd"] > _UNIFORM_ABOVE:
    values["mstd"] = math.inf
  return values


def levels(config: dict[str, float], num: int, rng) -> tf.Tensor:
  """Magnitudes for `num` ops, float64 [num], as fractions of the tables' 10."""
  magnitude = tf.fill([num], tf.constant(config["m"], tf.float64))
  if config["mstd"] == math.inf:
    magnitude *= rng.uniform([num], dtype=tf.float64)
  elif config["mstd"]:
    magnitude += config["mstd"] * rng.normal([num], tf.float64)
  return tf.clip_by_value(magnitude, 0, config["mmax"]) / _MAX_LEVEL


def _enhanced(get_op, increasing):
  """A blend: away from the image's own, 1, either way; or from 0.1 up."""

  def at(level, sign):
    if increasing:
      factor = tf.maximum(1.0 + sign * (level * 0.9), 0.1)
    else:
      factor = level * 1.8 + 0.1
    return get_op(tf.cast(factor, tf.float32))

  return at


def _whole(level, most, cap):
  return tf.minimum(tf.cast(level * most, tf.int32), cap)


def value_ops(increasing: bool):
  """The ten ops on values.

  Args:
    increasing: whether a higher level is always a stronger change.

  Returns:
    Functions from level and sign, float64 scalar tensors, 1 for the tables' 10
    and 1 or -1, to an op on uint8 images.
  """
  up = (lambda most, value: most - value) if increasing else (lambda _, v: v)
  bits = lambda level: tf.clip_by_value(up(4, _whole(level, 4, 8)), 0, 8)
  threshold = lambda level: up(256, _whole(level, 256, 256))
  addition = lambda level: _whole(level, 110, 128)
  return [
    lambda level, sign: pixels.get_autocontrast(),
    lambda level, sign: pixels.get_equalize(),
    lambda level, sign: pixels.get_invert(),
    lambda level, sign: pixels.get_posterize(bits(level)),
    lambda level, sign: pixels.get_solarize(threshold(level)),
    lambda level, sign: pixels.get_solarize_add(addition(level)),
    _enhanced(pixels.get_color, increasing),
    _enhanced(pixels.get_contrast, increasing),
    _enhanced(pixels.get_brightness, increasing),
    _enhanced(pixels.get_sharpness, increasing),
  ]


def moves(fill, interpolation: str):
  """The five ops that move pixels, like `value_ops`.

  Args:
    fill: grey level or one per channel.
    interpolation: "nearest", "bilinear" or "bicubic".

  Returns:
    Such functions.
  """
  how = (fill, interpolation)

  def translate(get_op, axis, level, sign):
    def op(image):
      side = tf.cast(tf.shape(image)[axis], tf.float64)
      return get_op(sign * (level * _TRANSLATE) * side, *how)(image)

    return op

  shear = lambda level, sign: sign * (level * 0.3)
  return [
    lambda level, sign: geometry.get_rotate(sign * (level * 30), *how),
    lambda level, sign: geometry.get_shear_x(shear(level, sign), *how, True),
    lambda level, sign: geometry.get_shear_y(shear(level, sign), *how, True),
    lambda level, sign: translate(geometry.get_translate_x, 1, level, sign),
    lambda level, sign: translate(geometry.get_translate_y, 0, level, sign),
  ]


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
      bicubic each time; or "bilinear", "bicubic" or "nearest".

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

  def branch(op_at):
    return lambda image, level, sign: op_at(level, sign)(image)

  scalar = tf.TensorSpec([], tf.float64)
  branches = [*map(branch, ops), lambda image, level, sign: image]
  choose = one_of(branches, scalar, scalar)

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
