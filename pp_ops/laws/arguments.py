"""A law's arguments in a pp string: their names, defaults and units.

A law's areas are fractions of the image. In a pp string, and wherever else a
person types them, areas are in percent, as in big_vision's `inception_crop`.
Only this module converts between the two.
"""

import dataclasses
import inspect
import numbers
from typing import Any

from pp_ops.errors import UserError
from pp_ops.laws.law import Law, check_range

_AREAS = ("area_min", "area_max")
_RESIZE = {"method": "bilinear", "antialias": False}


def to_percent(name: str, value: float) -> float:
  """A law's parameter -> the argument in a pp string: areas in percent."""
  return value * 100 if name in _AREAS else value


def from_percent(name: str, value: float) -> float:
  """An argument in a pp string -> the law's parameter: areas as fractions."""
  return value / 100 if name in _AREAS else value


def defaults(law_class: type[Law]) -> dict[str, float]:
  """Arguments of a law with their defaults: its own first, then all laws'."""
  shared = [f.name for f in dataclasses.fields(Law)]
  fields = {f.name: f.default for f in dataclasses.fields(law_class)}
  names = [n for n in fields if n not in shared] + shared
  return {n: to_percent(n, fields[n]) for n in names}


def _is_number(value):
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def make_law(law_class: type[Law], **given: float) -> Law:
  """The law with the given arguments, and defaults for all others.

  Raises:
    ValueError: in one line, if a value is out of range.
  """
  usual = defaults(law_class)
  for name, value in given.items():
    if _is_number(usual[name]) and not _is_number(value):
      hint = f"; write method={value!r}" if isinstance(value, str) else ""
      raise UserError(f"{name}={value!r}: need a number{hint}")
  chosen = {**usual, **given}
  low, high = _AREAS
  check_range(
    low, chosen[low], high, chosen[high], 100, " (percent of the image)"
  )
  if chosen[high] <= 1:  # torchvision's scale=(0.08, 1), and never 1 percent
    areas = ", ".join(f"{k}={chosen[k]:g}" for k in _AREAS)
    percent = ", ".join(f"{k}={100 * chosen[k]:g}" for k in _AREAS)
    raise UserError(
      f"{areas}: areas are in percent of the image; write {percent}"
    )
  return law_class(**{k: from_percent(k, v) for k, v in chosen.items()})


def signature(law_class: type[Law]) -> inspect.Signature:
  """A law's crop op: size, the law's arguments, then those of the resize."""
  kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
  chosen = {"size": None, **defaults(law_class), **_RESIZE}
  return inspect.Signature(
    inspect.Parameter(k, kind, default=v) for k, v in chosen.items()
  )


def bind(
  law_class: type[Law], args: list, kwargs: dict[str, Any]
) -> tuple[Law, Any, dict[str, Any]]:
  """Splits the arguments of a crop op into law, size and resize arguments.

  Args:
    law_class: the op's law.
    args: the op's positional arguments.
    kwargs: its named ones.

  Returns:
    The law, `size`, and {"method": ..., "antialias": ...}.

  Raises:
    TypeError: if the arguments do not fit `signature`.
    ValueError: in one line, if a value is out of range.
  """
  bound = signature(law_class).bind(*args, **kwargs)
  bound.apply_defaults()
  rest = dict(bound.arguments)
  size = rest.pop("size")
  resize = {k: rest.pop(k) for k in _RESIZE}
  return make_law(law_class, **rest), size, resize
