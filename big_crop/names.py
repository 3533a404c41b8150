"""Checks names and values that a user typed, with helpful errors."""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
  """Returns an error for an unknown name, which suggests the nearest choice.

  `what` says what the name is for and where it stands, e.g. `config.loss`.
  """
  near = did_you_mean(str(name), [str(c) for c in choices])
  return UserError(f"unknown {what} {name!r}: {near}")


def check(what: str, name: str, choices: Iterable[str]) -> None:
  """Raises `unknown` unless `name` is one of `choices`."""
  choices = list(choices)
  if name not in choices:
    raise unknown(what, name, choices)


def of_run(factors: Mapping[str, Any]) -> str:
  """The folder name of a study's run with these factors, the seed last."""
  return ",".join(f"{k}={v}" for k, v in factors.items()).replace("/", "_")


_SIMPLE = (bool, int, float, str, list, dict, tuple, types.NoneType)


def _kinds(kind):
  """The types of a type or union: (int, None) of int | None."""
  if isinstance(kind, types.UnionType):
    return tuple(k for part in typing.get_args(kind) for k in _kinds(part))
  return (typing.get_origin(kind) or kind,)


def is_of_kind(value: Any, kind: Any) -> bool:
  """Whether a value is of a type or union.

  An int is accepted as a float. Booleans are not accepted as numbers. Lists and
  tuples are accepted for each other, because JSON has only lists.
  """
  wider = {float: (int, float), list: (list, tuple), tuple: (list, tuple)}
  return any(
    isinstance(value, wider.get(k, k))
    and (isinstance(value, bool) <= (k is bool))
    for k in _kinds(kind)
  )


def check_kind(what: str, value: Any, kind: Any) -> None:
  """Raises a one-line ValueError unless `is_of_kind`."""
  kinds = _kinds(kind)
  if set(kinds) <= set(_SIMPLE) and not is_of_kind(value, kind):
    named = " or ".join(
      "None" if k is types.NoneType else k.__name__ for k in kinds
    )
    raise UserError(f"{what}={value!r}: need a value of type {named}")


def check_arguments(where: str, function: Callable, given: Mapping) -> None:
  """Raises a one-line ValueError for an argument of a wrong kind.

  The expected kind is the annotation; or, if the annotation is no type that a
  config can hold, the type of the default. Arguments that the function does not
  have are ignored.
  """
  for key, p in inspect.signature(function).parameters.items():
    kind = p.annotation
    if not set(_kinds(kind)) <= set(_SIMPLE):
      kind = type(p.default)
      kind = kind if kind in (bool, int, float, str) else object
    if key in given:
      check_kind(f"{where}.{key}", given[key], kind)


def import_named(
  what: str, name: str, modules: Mapping[str, str], needs: str
) -> types.ModuleType:
  """Imports the module that a config names: one of ours, or the user's own.

  Args:
    what: the key of the config, for errors.
    name: a key of `modules`, or the dotted path of any other module.
    modules: {short name: dotted path} of our own modules.
    needs: a name that the module must define.
  """
  path = modules.get(name, name)
  if not all(part.isidentifier() for part in path.split(".")):
    raise unknown(what, name, modules)
  try:
    module = importlib.import_module(path)
  except ModuleNotFoundError as e:
    # If the user's module was found, but fails to import another module, that
    # is another mistake, and the original error says it best.
    if e.name is None or not f"{path}.".startswith(f"{e.name}."):
      raise
    if "." not in name:
      raise UserError(
        f"{unknown(what, name, modules)}; there is no module {name!r} on "
        "PYTHONPATH either"
      ) from None
    hint = "is it on PYTHONPATH?"
    if name.endswith(".py"):
      hint = f"write {name[:-3]!r}"
    raise UserError(f"{what} {name!r}: no module {e.name!r}; {hint}") from None
  if not hasattr(module, needs):
    raise UserError(f"{what} {name!r}: the module {path!r} has no {needs}")
  return module
