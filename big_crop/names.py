"""What to say when a name that a person typed is not known."""

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, choices: Iterable[str]) -> ValueError:
  """Returns the error for an unknown name, with the nearest right one.

  Args:
    what: what was named, and where, e.g. `config.loss`.
    name: what was typed.
    choices: the names that would have been right, at least one.

  Returns:
    A one-line `ValueError`, to be raised by the caller.
  """
  choices = sorted(choices)
  nearest = difflib.get_close_matches(str(name), choices, 1, cutoff=0.0)[0]
  return ValueError(
    f"{what}: unknown name {name!r}; did you mean {nearest!r}?"
    f" Known: {', '.join(choices)}."
  )
