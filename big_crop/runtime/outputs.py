"""Whether a place can be written to, before the work that ends in it."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from pp_ops.errors import UserError


def check_folder(path: str | os.PathLike, what: str) -> None:
  """Checks that a folder is there, or can be made, and can be written to.

  Nothing is made, and remote places are not looked at. In the error `what`
  names the folder, such as "--out".
  """
  text = os.fspath(path)
  if "://" in text:
    return
  if not text:
    raise UserError(f"{what} is empty: name a folder")
  wanted = pathlib.Path(text).absolute()
  try:
    place = next(p for p in (wanted, *wanted.parents) if _is_there(p))
    if not place.is_dir():
      raise UserError(f"{what} {text}: {place} is a file: name a folder")
    # Permissions say little: root has all, and a mount may be read-only.
    with tempfile.TemporaryFile(dir=place):
      pass
  except OSError as e:
    raise UserError(
      f"{what} {text} can't be written: {e.strerror or e}"
    ) from None


def _is_there(path):
  try:
    path.lstat()
  except (FileNotFoundError, NotADirectoryError):
    return False
  return True


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
  """One line that names the file, for one that the disk does not take."""
  try:
    yield
  except OSError as e:
    raise UserError(f"{path} can't be written: {e.strerror or e}") from e


def check_file(path: str | os.PathLike, what: str) -> None:
  """Checks that a file can be written, in a folder that is there."""
  path = pathlib.Path(path)
  if path.is_dir():
    raise UserError(f"{what} {path} is a folder: name a file")
  if not path.parent.is_dir():
    raise UserError(f"{what} {path}: {path.parent} is not there")
  check_folder(path.parent, what)
