"""Checksums of a folder's files, by which damage is noticed later.

Orbax and TensorStore check their own index files alone: a flipped bit in the
arrays' data, or in a number of a JSON file, is read as if it had been saved.
"""

import json
import pathlib
import zlib

from etils import epath

from big_crop.runtime import storage
from pp_ops.errors import UserError

NAME = "checksums.json"
_CRC32C = "crc32c "


def write(folder: epath.Path, leave_out: str) -> None:
  """Writes size and CRC of each file to `folder`/checksums.json.

  Args:
    folder: a folder whose files are complete; folders in it count, too.
    leave_out: the name of a file in `folder` that will change.
  """
  if storage.is_remote(folder):
    kept = _of_store(folder)
  else:
    kept = {
      str(path.relative_to(folder)): _size_and_crc(path, zlib.crc32)
      for path in pathlib.Path(folder).rglob("*")
      if path.is_file()
    }
  for name in (NAME, leave_out):
    kept.pop(name, None)
  text = json.dumps(kept, indent=2, sort_keys=True)
  (folder / NAME).write_text(text + "\n")


def damage(folder: epath.Path) -> str | None:
  """What is not as it was when `write` was called, in words; None if all is."""
  try:
    kept = json.loads((folder / NAME).read_text())
    kept = [(name, size, str(crc)) for name, (size, crc) in kept.items()]
  except UserError:
    raise  # the store cannot be reached: this says nothing of the file
  except (OSError, ValueError, TypeError, AttributeError) as e:
    return f"{NAME} cannot be read: {e}"
  there = _of_store(folder) if storage.is_remote(folder) else None
  for name, size, crc in kept:
    try:
      if not crc.startswith(_CRC32C):
        now = _size_and_crc(folder / name, zlib.crc32)
      elif there is None:
        now = _size_and_crc(folder / name, _crc32c(), _CRC32C)
      else:
        now = there[name]
    except (FileNotFoundError, KeyError):
      return f"{name} is missing"
    except OSError as e:
      return f"{name} cannot be read: {e}"
    if now[0] != size:
      return f"{name} has {now[0]} bytes and was saved with {size}"
    if now[1] != crc:
      return f"{name} has other bytes than were saved"
  return None


def _size_and_crc(path, extend, kind=""):
  size = crc = 0
  with path.open("rb") as f:
    while block := f.read(1 << 22):
      size, crc = size + len(block), extend(block, crc)
  return [size, f"{kind}{crc:08x}"]


def _of_store(folder):
  """By the CRC-32C that the store keeps: nothing is read."""
  return {
    name: [size, f"{_CRC32C}{crc:08x}"]
    for name, (size, crc) in storage.contents(folder).items()
  }


def _crc32c():
  """For a copy of what `_of_store` has seen."""
  try:
    import google_crc32c
  except ImportError as e:
    raise UserError(
      "a checkpoint that was saved to gs:// is checked with google-crc32c, "
      "which is not installed: pip install -r requirements-gs.txt"
    ) from e
  return lambda block, crc: google_crc32c.extend(crc, block)
