"""timm's RandAugment: ops get stronger with the magnitude, which has noise.

"ResNet strikes back" (Wightman et al., 2021), appendix A, says how it differs
from the RandAugment paper's (`pp_ops.randaug`): each op is applied with
probability one half and at a magnitude of its own, the levels of `inc1` all go
from weak to strong, ops that move pixels interpolate, empty places get the mean
colour, and there is no Cutout. Definitions are those of timm 1.0.31.
"""

import math
import re
from collections.abc import Callable

import numpy as np

from pp_ops.checks import (
  INTERPOLATIONS,
  check_fill,
  check_interpolation,
  check_number,
)
from pp_ops.errors import UserError
from pp_ops.randaug import MAX_LEVEL
from pp_ops.registry import did_you_mean

_UNIFORM_ABOVE = 100  # a larger mstd means a uniform magnitude

# Key -> (default, least, most, whole).
_KEYS = {
  "m": (10, 0, math.inf, False),
  "n": (2, 0, math.inf, True),
  "p": (0.5, 0, 1, False),
  "mstd": (0, 0, math.inf, False),
  "mmax": (MAX_LEVEL, 1e-3, math.inf, False),
  "inc": (0, 0, 1, True),
}


def parse_config(config: str) -> dict[str, float]:
  """A value for each key of a string such as "rand-m7-mstd0.5-inc1".

  Sections after "rand" are a key of `rand_augment` followed by a number. mstd
  becomes infinite if it is "inf" or above 100.
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


def line_up(
  increasing: bool, fill, interpolation, xp, cast: Callable
) -> dict[str, Callable[..., tuple]]:
  """The line-up (`pp_ops.engines`) of 15 ops, the five that move pixels last.

  Args:
    increasing: whether a higher level is always a stronger change.
    fill: what the ops that move pixels fill empty places with.
    interpolation: what the ops that move pixels interpolate by; "random" for
      the method that is drawn.
    xp: the array namespace.
    cast: see `Engine`.

  Returns:
    A line-up. The policy draws the level, where 1 is the tables' magnitude 10;
    the sign, 1 or -1; and a bool, True for bicubic and False for bilinear.
  """

  def whole(level, most, cap):
    return xp.minimum(cast(level * most, "int32"), cap)

  up = (lambda most, value: most - value) if increasing else (lambda _, v: v)

  def bits(level, sign, cubic, side):
    return (xp.minimum(xp.maximum(up(4, whole(level, 4, 8)), 0), 8),)

  def enhance(level, sign, cubic, side):
    # inc1: up or down from the original image, which is factor 1. Otherwise the
    # factor grows from 0.1.
    if increasing:
      factor = xp.maximum(1.0 + sign * (level * 0.9), 0.1)
    else:
      factor = level * 1.8 + 0.1
    return (cast(factor, "float32"),)

  def move(most, *corner, axis=None):
    def args(level, sign, cubic, side):
      amount = sign * (level * most)
      if axis is not None:
        amount *= cast(side(axis), level.dtype)
      how = cubic if interpolation == "random" else interpolation
      return amount, fill, how, *corner

    return args

  none = lambda *drawn: ()
  return {
    "autocontrast": none,
    "equalize": none,
    "invert": none,
    "posterize": bits,
    "solarize": lambda level, *_: (up(256, whole(level, 256, 256)),),
    "solarize_add": lambda level, *_: (whole(level, 110, 128),),
    **dict.fromkeys(["color", "contrast", "brightness", "sharpness"], enhance),
    "rotate": move(30),
    "shear_x": move(0.3, True),
    "shear_y": move(0.3, True),
    # At magnitude 10, the shift is 0.45 of the side.
    "translate_x": move(0.45, axis=1),
    "translate_y": move(0.45, axis=0),
  }


def levels(config: dict[str, float], num: int, rng, xp):
  """Levels for `num` ops, float [num]: magnitudes / 10, noise included."""
  magnitude = np.full([num], config["m"], float)
  if config["mstd"] == math.inf:
    magnitude = config["m"] * rng.uniform([num], dtype="float64")
  elif config["mstd"]:
    magnitude = config["m"] + config["mstd"] * rng.normal([num], "float64")
  return xp.minimum(xp.maximum(magnitude, 0.0), config["mmax"]) / MAX_LEVEL


def get_rand_augment(
  engine, config: str, fill=(124, 116, 104), interpolation: str = "random"
):
  """timm's RandAugment, from timm's string: "rand-m7-mstd0.5-inc1".

  Ops are drawn with replacement, uniformly from 15: AutoContrast, Equalize,
  Invert, Posterize, Solarize, SolarizeAdd, Color, Contrast, Brightness,
  Sharpness, Rotate, ShearX, ShearY, TranslateX and TranslateY.

  Args:
    engine: see `pp_ops.engines`.
    config: "rand", and any of these sections, joined by "-":
      m: magnitude, by default 10, the tables' top level. (timm takes only whole
        numbers.)
      n: ops per image, 2 by default.
      p: probability that a drawn op is applied, 0.5 by default.
      mstd: standard deviation of each op's magnitude, 0 by default. "inf", or
        more than 100, means uniform from 0 to m; timm knows only the latter.
      mmax: bounds the magnitude from above, noise included; 10 by default.
      inc: 1: all levels get stronger with the magnitude, and Color, Contrast,
        Brightness and Sharpness go either way from the image itself; 0, the
        default: as in `randaug`.
      timm's t (other line-ups) and w (gone from timm) are not supported.
    fill: what comes from outside the image, a grey level or one per channel;
      round(255 * ImageNet's mean) by default, as timm's factory gives it.
    interpolation: how the five ops that move pixels interpolate: "random" draws
      bilinear or bicubic each time; or one of `checks.INTERPOLATIONS`.

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  values = parse_config(config)
  check_fill(fill)
  check_interpolation(interpolation, ("random", *INTERPOLATIONS))
  xp, cast, num = engine.xp, engine.cast, values["n"]
  ops = line_up(bool(values["inc"]), fill, interpolation, xp, cast)
  choose = engine.chooser(ops, "float64", "float64", "bool")

  def rand_augment(image, rng):
    level = levels(values, num, rng, xp)
    draws = rng.uniform([num, 4], dtype="float64")
    for i in range(num):
      which, way, applied, method = (draws[i, j] for j in range(4))
      which = cast(which * len(ops), "int32")
      which = xp.where(applied < values["p"], which, len(ops))
      sign = cast(xp.where(way < 0.5, -1.0, 1.0), way.dtype)
      image = choose(which, image, level[i], sign, method >= 0.5)
    return image

  return rand_augment


OPS = {"rand_augment": get_rand_augment}
