"""What all commands share: how they take arguments, and how they end.

A user's mistake and a Ctrl-C print one line. Our code raises `UserError` for a
user's mistake, and a user's own op, objective or config may do so, too. Bugs
keep their traceback.
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
from typing import Any

from big_crop.runtime import stop
from pp_ops.errors import UserError

# Packages that requirements-device.txt leaves out.
_OPTIONAL = ("matplotlib", "tensorflow", "tensorflow_datasets")

# Errors of a disk that is full or may not be written to.
_DISK = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EROFS,
  errno.EACCES,
  errno.EPERM,
)


def parser(doc: str, **kw: Any) -> argparse.ArgumentParser:
  """A command's parser, whose --help shows the module's docstring unwrapped."""
  shown = argparse.RawDescriptionHelpFormatter
  return argparse.ArgumentParser(description=doc, formatter_class=shown, **kw)


@contextlib.contextmanager
def one_line():
  """Ends a command: one line, status 2 for a mistake, 130 after a Ctrl-C."""
  try:
    try:
      yield
    finally:
      sys.stdout.flush()
  except SystemExit:
    stop.finish()
    raise
  except BrokenPipeError:  # the reader has ended, as in `... | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)
  except UserError as e:
    _end(str(e))
  except OSError as e:
    if e.errno not in _DISK:
      raise
    _end(f"{e.filename or 'writing failed'}: {e.strerror}")
  except ModuleNotFoundError as e:
    if e.name not in _OPTIONAL:
      raise
    _end(
      f"this needs {e.name}, which is not installed: pip install -r"
      " requirements.txt (training needs none with packed data and"
      ' config.input.engine = "device")'
    )
  else:
    stop.finish()


def _end(message):
  print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
  sys.exit(2)
