"""Policies that choose among augmentation ops, as tables, for every engine.

No TensorFlow here. A line-up is a dict, in the order in which a policy numbers
its ops: name of the op -> function that gives the op's arguments. Formulas take
the namespace to compute in, `xp` = `tensorflow` or `jax.numpy`.
"""

import math
import re
from collections.abc import Callable

import numpy as np

from pp_ops.autoaugment_tables import AUTOAUGMENT
from pp_ops.checks import (
  check_choice,
  check_fill,
  check_interpolation,
  check_number,
)
from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean

# RandAugment, for which see `pp_ops.randaug`.

MAX_LEVEL = 10  # of the tables; magnitudes above it are in use nevertheless


def check_randaug(num_layers, magnitude, contrast) -> None:
  """Raises unless these are arguments of the op `randaug`."""
  check_number("num_layers", num_layers, 0, whole=True)
  check_number("magnitude", magnitude, 0, 30)
  check_choice("contrast", contrast, ("fixed", "legacy"))


def randaug_line_up(magnitude: float, legacy: bool) -> dict[str, Callable]:
  """The 16 ops of `randaug`.

  Args:
    magnitude: the level.
    legacy: whether as big_vision rounds, and with its contrast.

  Returns:
    Functions of the sign, 1.0 or -1.0: which way the directed ops go.
  """
  level = magnitude / MAX_LEVEL
  enhance = level * 1.8 + 0.1
  # efficientnet's arithmetic is on uint8: it counts thresholds modulo 256, and
  # any shift that is not 0 to 7, by 8 - bits, is one by 7.
  bits = int(level * 4)
  bits = bits if 0 < bits <= 8 else 1
  return {
    "autocontrast": lambda sign: (),
    "equalize": lambda sign: (),
    "invert": lambda sign: (),
    "rotate": lambda sign: (sign * (level * 30),),
    "posterize": lambda sign: (bits,),
    "solarize": lambda sign: (int(level * 256) % 256,),
    "color": lambda sign: (enhance, legacy),
    "contrast": lambda sign: (enhance, legacy),
    "brightness": lambda sign: (enhance,),
    "sharpness": lambda sign: (enhance, legacy),
    "shear_x": lambda sign: (sign * (level * 0.3),),
    "shear_y": lambda sign: (sign * (level * 0.3),),
    "translate_x": lambda sign: (sign * (level * 100),),
    "translate_y": lambda sign: (sign * (level * 100),),
    "cutout": lambda sign: (int(level * 40),),
    "solarize_add": lambda sign: (min(int(level * 110), 255),),
  }


# timm's RandAugment, for which see `pp_ops.timm_randaug`.

_UNIFORM_ABOVE = 100  # a standard deviation of more means uniform

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
  """Reads a string such as "rand-m7-mstd0.5-inc1".

  Args:
    config: "rand" and sections, a key of `rand_augment` and a number each.

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


def timm_values(
  increasing: bool, xp, cast: Callable
) -> dict[str, Callable[..., tuple]]:
  """The ten ops on values that `rand_augment` draws from.

  Args:
    increasing: whether a higher level is always a stronger change.
    xp: the array namespace.
    cast: function from a number and "int32" or "float32" to that kind.

  Returns:
    Functions of (level, sign, side): 1 for the tables' 10, as a scalar array;
    likewise 1 or -1; and a function from axis to the image's size along it.
  """

  def whole(level, most, cap):
    return xp.minimum(cast(level * most, "int32"), cap)

  up = (lambda most, value: most - value) if increasing else (lambda _, v: v)

  def bits(level, sign, side):
    return (xp.minimum(xp.maximum(up(4, whole(level, 4, 8)), 0), 8),)

  def enhance(level, sign, side):
    # Away from the image's own, 1, either way; or from 0.1 up.
    if increasing:
      factor = xp.maximum(1.0 + sign * (level * 0.9), 0.1)
    else:
      factor = level * 1.8 + 0.1
    return (cast(factor, "float32"),)

  return {
    "autocontrast": lambda level, sign, side: (),
    "equalize": lambda level, sign, side: (),
    "invert": lambda level, sign, side: (),
    "posterize": bits,
    "solarize": lambda level, sign, side: (up(256, whole(level, 256, 256)),),
    "solarize_add": lambda level, sign, side: (whole(level, 110, 128),),
    **dict.fromkeys(["color", "contrast", "brightness", "sharpness"], enhance),
  }


def timm_moves(
  fill, interpolation, cast: Callable
) -> dict[str, Callable[..., tuple]]:
  """The five ops of `rand_augment` that move pixels, like `timm_values`.

  Args:
    fill: what these ops take as fill.
    interpolation: what they take as interpolation.
    cast: function from a number and a dtype to that kind.

  Returns:
    Functions as there.
  """
  how = (fill, interpolation)
  shear = lambda level, sign, side: (sign * (level * 0.3), *how, True)

  def translate(axis):
    # At the tables' highest level by 0.45 of the side.
    pixels = lambda level, sign, side: (
      sign * (level * 0.45) * cast(side(axis), level.dtype)
    )
    return lambda *drawn: (pixels(*drawn), *how)

  return {
    "rotate": lambda level, sign, side: (sign * (level * 30), *how),
    "shear_x": shear,
    "shear_y": shear,
    "translate_x": translate(1),
    "translate_y": translate(0),
  }


# torchvision's TrivialAugmentWide and AutoAugment, see `pp_ops.autoaugment`.

AUTOAUGMENT_BINS = 10  # magnitudes, numbered 0 to 9 in the policies


def _linspace(start: float, end: float, num: int) -> np.ndarray:
  """`torch.linspace`, whose float32 steps lead from both ends to the middle."""
  start, end = np.float32(start), np.float32(end)
  i, step = np.arange(num, dtype=float), (end - start) / np.float32(num - 1)
  values = np.where(i < num // 2, start + step * i, end - step * i[::-1])
  return values.astype(np.float32)


def _how(fill, interpolation):
  """Checked (fill, interpolation) of moves that give torchvision's pixels."""
  check_fill(fill)
  check_interpolation(interpolation, ("nearest", "bilinear", "bicubic"))
  return fill, {"nearest": "nearest_pillow"}.get(interpolation, interpolation)


def _torchvision_line_up(num, most, translate, how, pick):
  """The 13 ops that both policies have, at one of `num` magnitudes.

  Args:
    num: how many magnitudes.
    most: (shear, degrees, distance of a factor from 1, bits that are lost) at
      the greatest magnitude.
    translate: (k, side of the image) -> pixels to the right or down.
    how: fill and interpolation of the moves.
    pick: (table, k) -> its k-th entry.

  Returns:
    Functions of (k, side): int32 scalar, the number of the magnitude, and `num`
    more for the opposite direction; a function from axis to the image's size.
  """
  shear, degrees, distance, lost = most
  twice = lambda table: np.concatenate([table, table])
  signs = np.repeat(np.float32([1, -1]), num)
  shears, turns, distances = (
    signs * twice(_linspace(0, m, num)) for m in (shear, degrees, distance)
  )
  factors = (1.0 + distances.astype(np.float64)).astype(np.float32)
  lost = np.arange(num, dtype=np.float32) / np.float32((num - 1) / lost)
  bits = twice(8 - np.round(lost).astype(np.int32))
  # A whole grey level is below 246.5 if it is below 247.
  thresholds = twice(np.ceil(_linspace(255, 0, num)).astype(np.int32))

  by = lambda table, *more: lambda k, side: (pick(table, k), *more)
  slide = lambda axis: lambda k, side: (-translate(k, side(axis)), *how)
  none = lambda k, side: ()
  return {
    "shear_x": by(shears, *how, True),
    "shear_y": by(shears, *how, True),
    "translate_x": slide(1),
    "translate_y": slide(0),
    "rotate": by(turns, *how),
    "brightness": by(factors),
    "color": by(factors),
    "contrast": by(factors),
    "sharpness": by(factors),
    "posterize": by(bits),
    "solarize": by(thresholds),
    "autocontrast": none,
    "equalize": none,
  }


def wide_line_up(num: int, fill, interpolation, pick) -> dict[str, Callable]:
  """The ops of `trivial_augment_wide` but for the identity.

  Args:
    num: how many magnitudes, at least 2.
    fill: of the ops that move pixels.
    interpolation: likewise.
    pick: function of a NumPy table and an int32 scalar k: its k-th entry.

  Returns:
    Functions of (k, side) that give the op's arguments: the number of the
    magnitude, an int32 scalar, and `num` more for the opposite direction; and a
    function from axis to the image's size along it.
  """
  check_number("num_magnitude_bins", num, 2, 1000, whole=True)
  how = _how(fill, interpolation)
  pixels = _linspace(0, 32, num).astype(np.int32)
  pixels = np.concatenate([pixels, -pixels])
  translate = lambda k, side: pick(pixels, k)
  return _torchvision_line_up(num, (0.99, 135, 0.99, 6), translate, how, pick)


def autoaugment_line_up(fill, interpolation, pick) -> dict[str, Callable]:
  """The 14 ops of `autoaugment`, like `wide_line_up`, at ten magnitudes."""
  num = AUTOAUGMENT_BINS
  signs = np.repeat(np.int32([1, -1]), num)
  bins = np.tile(np.arange(num, dtype=np.int32), 2)

  def translate(k, side):  # at most by 150 pixels of 331, a NASNet's image
    whole = pick(bins, k) * (150 * side) // (331 * (num - 1))
    return pick(signs, k) * whole

  how = _how(fill, interpolation)
  line_up = _torchvision_line_up(num, (0.3, 30, 0.9, 4), translate, how, pick)
  return {**line_up, "invert": lambda k, side: ()}


def autoaugment_tables(policy: str) -> tuple[np.ndarray, ...]:
  """Which ops an AutoAugment policy applies, and how.

  Args:
    policy: of `AUTOAUGMENT`.

  Returns:
    Three arrays [25, 2], for the two ops of each of 25 sub-policies: int32, the
    op's place in `autoaugment_line_up`; float32, the chance that it is applied;
    int32, the number of its magnitude.
  """
  check_choice("policy", policy, [*AUTOAUGMENT])
  names = [*autoaugment_line_up(0, "nearest", None)]
  entries = [
    op.split() for pair in AUTOAUGMENT[policy] for op in pair.split(", ")
  ]
  which, chance, number = (
    np.array(column).reshape(-1, 2) for column in zip(*entries, strict=True)
  )
  which = np.vectorize(names.index)(which)
  return which.astype(np.int32), np.float32(chance), number.astype(np.int32)
