"""The table of ops by name. `pp_ops.registry` is its public side."""

import difflib
from collections.abc import Callable
from typing import NamedTuple


class _Op(NamedTuple):
  factory: Callable
  inkey: str | None  # None: the op works on the whole feature dict.
  outkey: str | None
  law: Callable | None


_OPS: dict[str, _Op] = {}


def register(
  name: str,
  *,
  inkey: str | None = "image",
  outkey: str | None = None,
  law: Callable | None = None,
) -> Callable[[Callable], Callable]:
  """Decorator: registers an op factory under a name.

  Args:
    name: what the pp string calls it.
    inkey: the feature that the op reads unless the string gives `key` or
      `inkey`; None for an op on the whole feature dict.
    outkey: the feature that it writes unless the string gives `key` or
      `outkey`; the one it reads by default.
    law: for crops: a function of the op's arguments that returns its
      `pp_ops.laws` law, so that it can be measured and matched.

  Returns:
    The factory, unchanged.

  Raises:
    ValueError: if another factory has the name.
  """

  def add(factory):
    old = _OPS.get(name)
    # A reloaded module may register again; someone else's name may not be
    # taken.
    if old and _origin(old.factory) != _origin(factory):
      raise ValueError(
        f"op {name!r} is already registered by {_origin(old.factory)}"
      )
    _OPS[name] = _Op(factory, inkey, outkey or inkey, law)
    return factory

  return add


def _origin(factory):
  return f"{factory.__module__}.{factory.__qualname__}"


def names() -> list[str]:
  """The registered op names, sorted."""
  return sorted(_OPS)


def did_you_mean(name: str, choices) -> str:
  """`did you mean 'x'? choices: ...`, with the choice nearest to `name`."""
  choices = sorted(choices)
  near = difflib.get_close_matches(name, choices, n=1, cutoff=0.0)
  near = f"did you mean {near[0]!r}? " if near else ""
  return f"{near}choices: {', '.join(choices) or 'none'}"


def lookup(name: str) -> _Op:
  """The registered op.

  Raises:
    ValueError: if there is none; names the nearest.
  """
  if name not in _OPS:
    raise ValueError(f"unknown op {name!r}: {did_you_mean(name, _OPS)}")
  return _OPS[name]
