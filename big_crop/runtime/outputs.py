"""Checks that an output can be written, before the work that produces it."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from pp_ops.errors import UserError


def check_folder(path: str | os.PathLike, what: str) -> None:
  """Checks that a folder is there, or can be made, and can be written to.

  It does not make the folder, and does not check remote ones. `what`, such as
  "--out", names the folder in the error.
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
    # A trial, because permissions say little: root has all of them, and a mount
    # may be read-only.
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
  """Turns the error of a file that cannot be written into one line."""
  try:
    yield
  except OSError as e:
    raise UserError(f"{path} can't be written: {e.strerror or e}") from e


def check_file(path: str | os.PathLike, what: str) -> None:
  """Checks that a file can be written, and that its folder exists."""
  path = pathlib.Path(path)
  if path.is_dir():
    raise UserError(f"{what} {path} is a folder: name a file")
  if not path.parent.is_dir():
    raise UserError(f"{what} {path}: {path.parent} is not there")
  check_folder(path.parent, what)
