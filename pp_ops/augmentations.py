"""What augmentation ops are on every engine: line-ups, levels, constants.

No TensorFlow here. A line-up is a dict, in the order in which a policy numbers
its ops: name of the op -> function that gives the op's arguments. Formulas take
the namespace to compute in, `xp` = `tensorflow` or `jax.numpy`.
"""

import math
import re
from collections.abc import Callable

import numpy as np

from pp_ops.checks import check_choice, check_number
from pp_ops.errors import UserError
from pp_ops.laws.law import first_admissible
from pp_ops.registry import did_you_mean

# Images and constants.

# Pillow's integer weights for R, G and B, in 65536ths.
GREY = (19595, 38470, 7471)

# Deviations along, and as columns, the principal axes of ImageNet's colours.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
  (-0.5675, 0.7192, 0.4009),
  (-0.5808, -0.0045, -0.8140),
  (-0.5836, -0.6948, 0.4203),
)


def check_uint8_image(name: str, image, rank: int | None) -> None:
  """Raises unless `image` is uint8 [height, width, 3 or 1].

  Args:
    name: the op's.
    image: a tensor or array.
    rank: the number of its axes, None if unknown.
  """
  dtype = image.dtype.name
  if dtype != "uint8" or rank != 3 or image.shape[-1] not in (1, 3):
    raise UserError(
      f"op {name!r} got {dtype} {image.shape}: need uint8 [height, width, "
      "channels] with 3 channels or 1, as decoded"
    )


def check_fill_fits(fill, channels: int) -> None:
  """Raises unless `fill` is one number, or as many as there are channels."""
  if not isinstance(fill, int) and len(fill) not in (1, channels):
    raise UserError(f"fill={fill!r} for an image of {channels} channel: need 1")


def check_bool(name: str, value) -> None:
  """Raises unless `value` is True or False."""
  if not isinstance(value, bool):
    raise UserError(f"{name}={value!r}: need True or False")


def saturated_colours() -> np.ndarray:
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


def _jitter_range(name, value, centre, low, high):
  """(least, most) factor from an amount or a pair."""
  if isinstance(value, (tuple, list)):
    if len(value) != 2:
      raise UserError(f"{name}={value!r}: need a number or (least, most)")
    check_number(f"{name}[0]", value[0], low, high)
    check_number(f"{name}[1]", value[1], value[0], high)
    return tuple(map(float, value))
  check_number(name, value, 0, high)
  return float(max(low, centre - value)), float(centre + value)


def jitter_ranges(brightness, contrast, saturation, hue) -> dict:
  """The ops of `color_jitter` that change anything, with their factors' ranges.

  Args:
    brightness: see `pp_ops.color.get_color_jitter`, like the next ones.
    contrast: an amount or (least, most).
    saturation: likewise.
    hue: likewise.

  Returns:
    Name of the op -> (least, most).
  """
  ranges = {
    "brightness": _jitter_range("brightness", brightness, 1, 0, math.inf),
    "contrast": _jitter_range("contrast", contrast, 1, 0, math.inf),
    "color": _jitter_range("saturation", saturation, 1, 0, math.inf),
    "hue": _jitter_range("hue", hue, 0, -0.5, 0.5),
  }
  # These ranges leave the image alone, which `hue` at factor 0 would not.
  nothing = dict.fromkeys(ranges, (1, 1)) | {"hue": (0, 0)}
  return {k: v for k, v in ranges.items() if v != nothing[k]}


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


def timm_moves(fill, interpolation) -> dict[str, Callable[..., tuple]]:
  """The five ops of `rand_augment` that move pixels, like `timm_values`.

  Args:
    fill: what these ops take as fill.
    interpolation: what they take as interpolation.

  Returns:
    Functions as there.
  """
  how = (fill, interpolation)
  shear = lambda level, sign, side: (sign * (level * 0.3), *how, True)

  def translate(axis):
    # At the tables' highest level by 0.45 of the side.
    return lambda level, sign, side: (sign * (level * 0.45) * side(axis), *how)

  return {
    "rotate": lambda level, sign, side: (sign * (level * 30), *how),
    "shear_x": shear,
    "shear_y": shear,
    "translate_x": translate(1),
    "translate_y": translate(0),
  }


# Random Erasing, for which see `pp_ops.random_erasing`.


def erasing_law(
  probability,
  mode,
  min_area,
  max_area,
  min_aspect,
  max_aspect,
  min_count,
  max_count,
) -> dict:
  """The arguments of `erased_boxes` from those of the op `random_erasing`.

  Raises:
    ValueError: in one line, for a wrong one.
  """
  check_number("probability", probability, 0, 1)
  check_choice("mode", mode, ("pixel", "rand", "const"))
  check_number("min_area", min_area, 0)
  check_number("max_area", max_area, min_area)
  check_number("min_aspect", min_aspect, 1e-6)
  max_aspect = 1 / min_aspect if max_aspect is None else max_aspect
  check_number("max_aspect", max_aspect, min_aspect)
  check_number("min_count", min_count, 1, whole=True)
  max_count = min_count if max_count is None else max_count
  check_number("max_count", max_count, min_count, whole=True)
  return {
    "area": (min_area, max_area),
    "log_aspect": (math.log(min_aspect), math.log(max_aspect)),
    "count": (min_count, max_count),
  }


ERASING_ATTEMPTS = 10


def erased_boxes(drawn, u, height, width, area, log_aspect, xp) -> list:
  """Boxes to erase; timm's law, for which see `pp_ops.random_erasing`.

  Args:
    drawn: float scalar, the number of boxes, at least 1.
    u: float [4, num, ERASING_ATTEMPTS], uniform in [0, 1).
    height: float scalar, the image's.
    width: float scalar.
    area: (least, most) fraction of the image.
    log_aspect: (least, most).
    xp: the array namespace.

  Returns:
    Floats [num]: top, left, height, width; all 0 for boxes that are not there.
  """
  between = lambda u, low, high: low + u * (high - low)
  target = between(u[0], *area) * (height * width / drawn)
  aspect = xp.exp(between(u[1], *log_aspect))
  h = xp.round(xp.sqrt(target * aspect))
  w = xp.round(xp.sqrt(target / aspect))

  def place(u, room):
    # The product rounds up to room + 1 in float32 now and then.
    return xp.minimum(xp.floor(u * (room + 1)), room)

  boxes = [place(u[2], height - h), place(u[3], width - w), h, w]
  fits = (h < height) & (w < width)
  *boxes, found = first_admissible(fits, boxes, [0.0] * 4, xp)
  there = found & (np.arange(u.shape[1]) < drawn)
  return [xp.where(there, side, 0.0) for side in boxes]
