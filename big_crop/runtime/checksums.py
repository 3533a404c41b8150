"""Checksums of a folder's files, by which damage is noticed later.

Orbax and TensorStore check only their own index files. Without checksums, a
flipped bit in an array's data or in a number of a JSON file would go unnoticed.
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
    folder: a folder whose files are complete, those in subfolders included.
    leave_out: the name of a file in `folder` that will still change.
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
  """Says in words what has changed since `write`; None if nothing has."""
  try:
    kept = json.loads((folder / NAME).read_text())
    kept = [(name, size, str(crc)) for name, (size, crc) in kept.items()]
  except UserError:
    raise  # The store cannot be reached: that is no damage of the file.
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
  """Sizes and checksums by the CRC-32C that the store keeps; reads no file."""
  return {
    name: [size, f"{_CRC32C}{crc:08x}"]
    for name, (size, crc) in storage.contents(folder).items()
  }


def _crc32c():
  """The CRC-32C, for a local copy of a folder that `_of_store` described."""
  try:
    import google_crc32c
  except ImportError as e:
    raise UserError(
      "a checkpoint that was saved to gs:// is checked with google-crc32c, "
      "which is not installed: pip install -r requirements-gs.txt"
    ) from e
  return lambda block, crc: google_crc32c.extend(crc, block)
