"""Checksums of a folder's files, by which damage is noticed later.

Orbax and TensorStore check their own index files alone: a flipped bit in the
arrays' data, or in a number of a JSON file, is read as if it had been saved.
"""

import json
import zlib
from collections.abc import Iterator

from etils import epath

NAME = "checksums.json"


def write(folder: epath.Path, leave_out: str) -> None:
  """Writes the size and the CRC-32 of each file to `folder`/checksums.json.

  Args:
    folder: a folder whose files are complete; folders in it count, too.
    leave_out: the name of a file in `folder` that will change.
  """
  kept = {}
  for path in _files(folder):
    name = str(path.relative_to(folder))
    if name not in (NAME, leave_out):
      kept[name] = _size_and_crc(path)
  (folder / NAME).write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def damage(folder: epath.Path) -> str | None:
  """What is not as it was when `write` was called, in words; None if all is."""
  try:
    kept = json.loads((folder / NAME).read_text())
    kept = [(name, size, crc) for name, (size, crc) in kept.items()]
  except (OSError, ValueError, TypeError, AttributeError) as e:
    return f"{NAME} cannot be read: {e}"
  for name, size, crc in kept:
    try:
      now = _size_and_crc(folder / name)
    except FileNotFoundError:
      return f"{name} is missing"
    except OSError as e:
      return f"{name} cannot be read: {e}"
    if now[0] != size:
      return f"{name} has {now[0]} bytes and was saved with {size}"
    if now[1] != crc:
      return f"{name} has other bytes than were saved"
  return None


def _files(folder: epath.Path) -> Iterator[epath.Path]:
  for path in folder.iterdir():
    if path.is_dir():
      yield from _files(path)
    else:
      yield path


def _size_and_crc(path):
  size = crc = 0
  with path.open("rb") as f:
    while block := f.read(1 << 22):
      size, crc = size + len(block), zlib.crc32(block, crc)
  return [size, f"{crc:08x}"]
