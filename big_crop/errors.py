"""Mistakes of the user's are one line; faults of the program have a traceback.

Our code raises `UserError` where something that a person gave is wrong. So may
a user's own op, objective or config.
"""

import contextlib
import sys

from pp_ops.errors import UserError

__all__ = ["UserError", "one_line"]


@contextlib.contextmanager
def one_line():
  """Ends the process with `error: ...` and status 2 for a user's mistake."""
  try:
    yield
  except UserError as e:
    print(f"error: {' '.join(str(e).split())}", file=sys.stderr, flush=True)
    sys.exit(2)
