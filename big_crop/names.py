"""Names that a person typed: what each stands for, or a helpful error."""

import importlib
import types
from collections.abc import Iterable, Mapping

from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
  """Returns the error for an unknown name, with the nearest right one.

  Args:
    what: what was named, and where, e.g. `config.loss`.
    name: what was typed.
    choices: the names that would have been right.

  Returns:
    A one-line `ValueError`, to be raised by the caller.
  """
  near = did_you_mean(str(name), [str(c) for c in choices])
  return UserError(f"unknown {what} {name!r}: {near}")


def check(what: str, name: str, choices: Iterable[str]) -> None:
  """Raises `unknown` unless `name` is one of `choices`."""
  choices = list(choices)
  if name not in choices:
    raise unknown(what, name, choices)


def import_named(
  what: str, name: str, modules: Mapping[str, str], needs: str
) -> types.ModuleType:
  """Imports the module that a config names: one of ours, or the user's own.

  Args:
    what: the key of the config, for errors.
    name: a short name of `modules`, or the path of any other module, as in an
      import statement.
    modules: {short name: dotted path}.
    needs: what the module must define.

  Returns:
    The module.

  Raises:
    ValueError: one line, if there is no such module, or it lacks `needs`.
  """
  path = modules.get(name, name)
  try:
    module = importlib.import_module(path)
  except ModuleNotFoundError as e:
    # A module that the user's own module fails to import is another mistake.
    if e.name is None or not f"{path}.".startswith(f"{e.name}."):
      raise
    if "." not in name:
      raise unknown(what, name, modules) from None
    raise UserError(
      f"{what} {name!r}: no module {e.name!r}; is it on PYTHONPATH?"
    ) from None
  if not hasattr(module, needs):
    raise UserError(f"{what} {name!r}: the module {path!r} has no {needs}")
  return module
