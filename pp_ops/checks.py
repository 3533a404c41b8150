"""Checks of ops' arguments, for the ops of every engine.

Each check raises a one-line ValueError that says what would be right. This
module does not import TensorFlow.
"""

import math

from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean

METHODS = (
  "bilinear",
  "bicubic",
  "nearest",
  "area",
  "lanczos3",
  "lanczos5",
  "gaussian",
  "mitchellcubic",
)
INTERPOLATIONS = ("nearest", "nearest_pillow", "bilinear", "bicubic")
ROUNDINGS = ("big_vision", "torchvision")

_LARGEST_SIDE = 1 << 14  # a square RGB image of this side has 3 GB as float32


def check_choice(what: str, value, choices) -> None:
  """Raises unless `value` is one of `choices`; the error names the nearest."""
  if value not in choices:
    near = did_you_mean(str(value), choices)
    raise UserError(f"unknown {what} {value!r}: {near}")


def check_method(method: str, random: bool = False) -> None:
  """Raises unless `method` is one of `METHODS`, or "random" if `random`."""
  check_choice("resize method", method, [*METHODS, *(["random"] * random)])


def check_rounding(rounding: str) -> None:
  """Raises unless `rounding` is "big_vision" or "torchvision"."""
  if rounding not in ROUNDINGS:
    raise UserError(f"rounding={rounding!r}: need one of {ROUNDINGS}")


def check_interpolation(name: str, choices=INTERPOLATIONS) -> None:
  """Raises unless `name` is one of `choices`."""
  check_choice("interpolation", name, choices)


def check_size(size, name: str = "size") -> tuple[int, int]:
  """(height, width) from an int or a pair of ints; raises for all else."""
  pair = (size, size) if isinstance(size, int) else size
  good = isinstance(pair, (tuple, list)) and len(pair) == 2
  if not good or not all(type(s) is int and s > 0 for s in pair):
    raise UserError(f"{name}={size!r}: need a pixel count or (height, width)")
  if max(pair) > _LARGEST_SIDE:
    raise UserError(f"{name}={size!r}: need at most {_LARGEST_SIDE} pixels")
  return tuple(pair)


def check_number(
  name: str, value, low: float, high: float = math.inf, whole: bool = False
) -> None:
  """Raises unless low <= value <= high, and value is an int if `whole`.

  A tensor or array always passes, because a policy draws its value only when an
  image is processed.
  """
  if hasattr(value, "dtype"):
    return
  kinds = int if whole else (int, float)
  number = isinstance(value, kinds) and not isinstance(value, bool)
  if not (number and math.isfinite(value) and low <= value <= high):
    text = lambda end: f"{end:g}" if abs(end) < 1e6 else f"{end:,.0f}"
    ends = [f"{text(low)} <= "] * math.isfinite(low) + [name]
    ends += [f" <= {text(high)}"] * math.isfinite(high)
    what = "a whole number" if whole else "a number"
    bounds = "".join(ends) if len(ends) > 1 else "finite"
    raise UserError(f"{name}={value!r}: need {what}, {bounds}")


def check_fill(fill) -> None:
  """Raises unless `fill` is a grey level, or one for each of 3 channels."""
  values = fill if isinstance(fill, (tuple, list)) else [fill]
  if len(values) not in (1, 3) or not all(
    type(v) is int and 0 <= v <= 255 for v in values
  ):
    raise UserError(
      f"fill={fill!r}: need a whole number, 0 to 255, or one per channel"
    )


def check_there(features, keys, op):
  """Raises unless `features` has all of the `keys` that an op reads."""
  missing = [k for k in keys if k not in features]
  if missing:
    raise UserError(
      f"op {op!r}: no feature {missing[0]!r}; there are "
      + ", ".join(map(repr, features))
    )


def check_random_apply(p, ops) -> None:
  """Raises unless these are arguments of the op `random_apply`."""
  check_number("p", p, 0, 1)
  if not isinstance(ops, str):
    raise UserError(f"ops={ops!r}: need a pp string, as 'hue(0.1)|flip_lr'")


def check_same_features(ops: str, before: dict, after: dict) -> None:
  """Raises unless the ops of `random_apply` keep all features and their kinds.

  `before` and `after` are {name of a feature: its dtype and rank, in words},
  without and with the ops.
  """
  for name in [*after, *before]:
    old, new = (kinds.get(name, "missing") for kinds in (before, after))
    if old != new:
      raise UserError(
        f"op 'random_apply': with {ops!r} feature {name!r} is {new}, without "
        f"{old}: need the same"
      )


def check_names(keys, what):
  """Raises unless `keys` is a non-empty list of strings."""
  good = isinstance(keys, (list, tuple)) and len(keys) > 0
  if not good or not all(isinstance(k, str) for k in keys):
    raise UserError(f"{what}={keys!r}: need the names of features")


def check_shape(shape, what, none_too=False):
  """Raises unless `shape` is a list of ints; None is an entry if `none_too`."""
  whole = lambda n: type(n) is int or (none_too and n is None)
  if not isinstance(shape, (list, tuple)) or not all(map(whole, shape)):
    raise UserError(f"{what}={shape!r}: need a list of whole numbers")


def check_onehot(depth, key, key_result, inkey, outkey) -> None:
  """Raises unless the arguments of `onehot` are valid and compatible."""
  if type(depth) is not int or depth < 1:
    raise UserError(f"depth={depth}: need a number of classes, at least one")
  if (key or key_result) and (inkey or outkey):
    raise UserError("give key and key_result, or inkey and outkey, not both")
  if not isinstance(key, str | None):
    raise UserError(f"key={key!r}: need the name of a feature")


def check_views(features, names, op) -> None:
  """Raises unless two features are images of one size, known statically."""
  check_there(features, names, op)
  shapes = [tuple(getattr(features[k], "shape", ())) for k in names]
  if shapes[0] != shapes[1] or len(shapes[0]) != 3 or None in shapes[0]:
    raise UserError(
      f"{op} needs two views of one size: {names[0]!r} has shape {shapes[0]}, "
      f"{names[1]!r} {shapes[1]}"
    )
