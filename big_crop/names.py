"""What to say when a name that a person typed is not known."""

from collections.abc import Iterable

from pp_ops.op_table import did_you_mean


def unknown(what: str, name: str, choices: Iterable[str]) -> ValueError:
  """Returns the error for an unknown name, with the nearest right one.

  Args:
    what: what was named, and where, e.g. `config.loss`.
    name: what was typed.
    choices: the names that would have been right.

  Returns:
    A one-line `ValueError`, to be raised by the caller.
  """
  near = did_you_mean(str(name), [str(c) for c in choices])
  return ValueError(f"unknown {what} {name!r}: {near}")


def check(what: str, name: str, choices: Iterable[str]) -> None:
  """Raises `unknown` unless `name` is one of `choices`."""
  choices = list(choices)
  if name not in choices:
    raise unknown(what, name, choices)
