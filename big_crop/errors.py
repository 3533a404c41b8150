"""Mistakes of the user's are one line; faults of the program have a traceback.

The project raises ValueError where input is wrong. A ValueError that was raised
anywhere else, in a library or in a user's own module, is not taken for one.
"""

import contextlib
import pathlib
import sys
import traceback

import big_crop
import pp_ops

_OURS = tuple(
  str(pathlib.Path(p.__file__).resolve().parent) for p in (big_crop, pp_ops)
)


@contextlib.contextmanager
def one_line():
  """Ends the process with `error: ...` and status 2 for a user's mistake."""
  try:
    yield
  except ValueError as e:
    if not _is_ours(e):
      raise
    sys.exit(_report(e))


def _is_ours(error):
  frames = traceback.extract_tb(error.__traceback__)
  if not frames:
    return False
  place = pathlib.Path(frames[-1].filename)
  # Config files raise through big_crop.config; they are not in a package.
  return str(place.resolve()).startswith(_OURS) or (
    place.suffix == ".py" and frames[-1].name == "get_config"
  )


def _report(error):
  message = " ".join(str(error).split())
  print(f"error: {message}", file=sys.stderr, flush=True)
  return 2
