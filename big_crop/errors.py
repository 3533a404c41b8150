"""Mistakes of the user's are one line; faults of the program have a traceback.

Our code raises `UserError` where something that a person gave is wrong. So may
a user's own op, objective or config.
"""

import contextlib
import sys

from pp_ops.errors import UserError

# What requirements-device.txt leaves out.
_OPTIONAL = ("matplotlib", "tensorflow", "tensorflow_datasets")

__all__ = ["UserError", "one_line"]


@contextlib.contextmanager
def one_line():
  """Ends the process with `error: ...` and status 2 for a user's mistake."""
  try:
    yield
  except UserError as e:
    _end(str(e))
  except ModuleNotFoundError as e:
    if e.name not in _OPTIONAL:
      raise
    _end(
      f"this needs {e.name}, which is not installed: pip install -r"
      " requirements.txt (training needs none with packed data and"
      ' config.input.engine = "device")'
    )


def _end(message):
  print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
  sys.exit(2)
