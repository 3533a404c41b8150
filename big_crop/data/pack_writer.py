"""Writes the packed datasets that `big_crop.data.packed` reads."""

import contextlib
import errno
import fcntl
import io
import itertools
import json
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_crop.data import packed
from pp_ops.errors import UserError


class Writer:
  """Writes a packed dataset in blocks, and can go on after a kill.

  A block's pixels are appended to images.npy and synced; then a line about the
  block is appended to pack_progress.jsonl and synced. The next writer cuts off
  whatever follows the last whole line and its pixels, so that it writes the
  same bytes as a writer that was never stopped. Files grow by plain writes and
  not by a memory map, because writing to a map on a full disk kills a process.

  Attributes:
    out: the folder.
    canvas: (short, long) in pixels, or None before `begin`.
    finished: the content of index.json if the dataset is complete, else None.
  """

  def __init__(self, out):
    """Opens a folder for writing, and locks it.

    Args:
      out: the folder; made if it is not there.

    Raises:
      ValueError: in one line, if the folder holds something else, if another
        writer is at work in it, or if it cannot be written.
    """
    self.out = pathlib.Path(os.fspath(out))
    self.canvas = None
    self._blocks = []
    self._images = None  # (split, file descriptor) of the open images.npy
    self._progress = None
    with self._writing():
      if self.out.exists() and not self.out.is_dir():
        raise UserError(f"--out {self.out} is a file: name a folder")
      if self._look_finished():
        return
      self._is_new = not self.out.exists()
      self.out.mkdir(parents=True, exist_ok=True)
      found = {p.name for p in self.out.iterdir()}
      if found and packed.PROGRESS not in found:
        raise UserError(
          f"--out {self.out} is not empty, and holds no dataset begun by this "
          "command: name a new folder"
        )
      self._progress = open(self.out / packed.PROGRESS, "a+b")
      try:
        fcntl.flock(self._progress, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as e:
        if e.errno in (errno.EAGAIN, errno.EACCES):
          raise UserError(
            f"--out {self.out}: another process is packing into it"
          ) from None
        # Some network filesystems have no locks.
      # The process that held the lock may have finished the dataset by now.
      self._look_finished()

  def _look_finished(self):
    there = (self.out / packed.INDEX).exists()
    self.finished = packed.read_index(self.out) if there else None
    if there:  # A kill after writing the index may have left the progress file.
      (self.out / packed.PROGRESS).unlink(missing_ok=True)
    return there

  def resume(self, made_from: Mapping[str, Any]) -> None:
    """Goes on with what the folder holds, if anything.

    Args:
      made_from: everything that decides the result, as JSON, with `"res"` and
        `"splits"` ({name: examples in the source}) among it.

    Raises:
      ValueError: in one line, if the dataset was begun with another
        `made_from`, or if the folder cannot be written.
    """
    self._made_from = json.loads(json.dumps(made_from))
    with self._writing():
      self._cut_off()

  def _cut_off(self):
    """Reads the progress file, and cuts off what a kill has left unfinished."""
    self._progress.seek(0)
    lines, ends = [], [0]
    for line in self._progress:
      if (entry := _parse(line)) is None:
        break
      lines.append(entry)
      ends.append(ends[-1] + len(line))
    head, self._blocks = (lines[0], lines[1:]) if lines else (None, [])
    if head and head["made_from"] != self._made_from:
      if self._blocks:
        raise UserError(
          f"--out {self.out} was begun with "
          + _difference(head["made_from"], self._made_from)
          + ": give what it was begun with, or another --out"
        )
      head = None
    if head:
      self.canvas = tuple(head["canvas"])
      # Pixels are synced before their line is written, so a check is needed
      # only in case the disk does not honour syncs.
      self._blocks = [*itertools.takewhile(self._is_written, self._blocks)]
    self._progress.truncate(ends[1 + len(self._blocks)] if head else 0)

  @property
  def done(self) -> dict[str, int]:
    """{split: how many of the source's examples were written or left out}."""
    done = dict.fromkeys(self._made_from["splits"], 0)
    for block in self._blocks:
      done[block["split"]] = block["end"]
    return done

  def _kept(self, split):
    """How many examples of a split have been written."""
    return sum(len(b["labels"]) for b in self._blocks if b["split"] == split)

  def _place(self, num):
    """Byte offset of example `num` in the images.npy of its split."""
    size = packed.example_bytes(self.canvas)
    return len(packed.header(0, self.canvas)) + num * size

  def _is_written(self, block):
    place = self._place(block["first"])
    size = len(block["labels"]) * packed.example_bytes(self.canvas)
    try:
      with open(self.out / block["split"] / "images.npy", "rb") as f:
        return packed.crc_at(f.fileno(), place, size) == block["crc32"]
    except FileNotFoundError:
      return False

  def begin(self, canvas: tuple[int, int]) -> None:
    """Fixes the canvas of a dataset that has none yet."""
    with self._writing():
      # A writer of other splits may have been killed in its first block, and
      # have left their files.
      for file in self.out.glob("*/images.npy"):
        file.unlink()
        with contextlib.suppress(OSError):
          file.parent.rmdir()
      for split in self._made_from["splits"]:
        (self.out / split).mkdir(exist_ok=True)
      _sync_folder(self.out)
      self.canvas = tuple(canvas)
      self._note({"made_from": self._made_from, "canvas": canvas})

  def add(self, split: str, images: np.ndarray, about: dict[str, Any]) -> None:
    """Appends a block, which is on the disk when this returns.

    Args:
      split: the block's split; one split is finished before the next is begun.
      images: uint8 [n, short, long, 3], as stored; n is `packed.BLOCK` in all
        but the last block of a split.
      about: as JSON, "end" (how many of the source's examples are written or
        left out after this block), "left_out" (how many examples since the
        block before did not decode), and lists with an item for each image:
        "names", "labels" and "shapes", the true (height, width).

    Raises:
      ValueError: in one line, if it cannot be written, as on a full disk.
    """
    data = np.ascontiguousarray(images).reshape(-1).data
    with self._writing():
      if self._images is None or self._images[0] != split:
        self._close_images()
        self._images = split, self._open_images(split)
      _write(self._images[1], data)
      os.fdatasync(self._images[1])
      place = {"split": split, "first": self._kept(split)}
      self._note(block := place | about | {"crc32": zlib.crc32(data)})
    self._blocks.append(block)

  def _open_images(self, split):
    file = self.out / split / "images.npy"
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    if kept := self._kept(split):
      os.ftruncate(fd, self._place(kept))
    else:
      os.ftruncate(fd, 0)
      # A header of the right length; `finish` writes the true one over it.
      _write(fd, packed.header(0, self.canvas))
    _sync_folder(file.parent)
    return fd

  def _close_images(self):
    if self._images is not None:
      os.close(self._images[1])
      self._images = None

  def _note(self, entry):
    _write(self._progress.fileno(), _line(json.dumps(entry).encode()))
    os.fdatasync(self._progress.fileno())

  def finish(self, class_names: Sequence[str] | None) -> dict[str, Any]:
    """Completes the dataset.

    Args:
      class_names: names of all classes, in the order of their labels, if known.

    Returns:
      The content of index.json.

    Raises:
      ValueError: if something cannot be written.
    """
    with self._writing():
      self._close_images()
      index = {
        "format": packed.FORMAT,
        "version": packed.VERSION,
        "res": self._made_from["res"],
        "canvas": list(self.canvas),
        "class_names": class_names,
        "block": packed.BLOCK,
        "splits": {s: self._finish(s) for s in self.done},
        "made_from": self._made_from,
      }
      text = packed.dump_index(index)
      _replace(self.out / packed.INDEX, text)
      (self.out / packed.PROGRESS).unlink()
      _sync_folder(self.out)
    return json.loads(text)

  def _finish(self, split):
    """Writes all of a split but its pixels; returns its entry of the index."""
    folder = self.out / split
    blocks = [b for b in self._blocks if b["split"] == split]
    fd = self._open_images(split)  # makes images.npy even if the split is empty
    os.close(fd)
    with open(folder / "images.npy", "r+b") as f:
      f.write(packed.header(self._kept(split), self.canvas))
      f.flush()
      os.fsync(f.fileno())
    labels, shapes, names = (
      [x for b in blocks for x in b[key]]
      for key in ("labels", "shapes", "names")
    )
    files = {
      "labels.npy": _npy(np.array(labels, np.int32)),
      "shapes.npy": _npy(np.array(shapes, np.int32).reshape(-1, 2)),
      "names.txt": "".join(f"{x}\n" for x in names).encode(
        errors="surrogateescape"
      ),
    }
    for file, data in files.items():
      _replace(folder / file, data)
    return {
      "num_examples": len(labels),
      "left_out": sum(b["left_out"] for b in blocks),
      "images_crc32": [b["crc32"] for b in blocks if b["labels"]],
      **{packed.crc_key(folder / k): zlib.crc32(v) for k, v in files.items()},
    }

  def close(self) -> None:
    """Unlocks the folder, and removes it if nothing was written to it."""
    self._close_images()
    if self._progress is None:
      return
    with contextlib.suppress(OSError):
      if os.fstat(self._progress.fileno()).st_size == 0:
        (self.out / packed.PROGRESS).unlink()
        if self._is_new:
          self.out.rmdir()
    self._progress.close()

  @contextlib.contextmanager
  def _writing(self):
    """Turns an OSError into a one-line error."""
    try:
      yield
    except OSError as e:
      raise UserError(
        f"cannot write to --out {self.out}: {e.strerror or e}; once it can be "
        "written, the same command goes on where it stopped"
      ) from None


def _parse(line):
  """An entry of pack_progress.jsonl, or None if the line is torn or damaged."""
  text = line[9:-1]  # between the checksum that `_line` writes and the newline
  return json.loads(text) if line == _line(text) else None


def _line(text):
  return b"%08x %b\n" % (zlib.crc32(text), text)


def _difference(old, new):
  key = next(k for k in old | new if old.get(k) != new.get(k))
  if key == "content":
    return "files or labels that have changed since"
  old, new = (json.dumps(x.get(key)) for x in (old, new))
  if max(len(old), len(new)) > 80:
    return f"another {key}"
  return f"{key} {old}, not {new}"


def _npy(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def _write(fd, data):
  """Writes all of `data`, because os.write may write only a part of it."""
  data = memoryview(data)
  while data:
    data = data[os.write(fd, data) :]


def _replace(file, data):
  """Writes a file atomically: it is there as a whole or not at all."""
  new = file.with_name(f"{file.name}.new")
  with open(new, "wb") as f:
    f.write(data)
    f.flush()
    os.fsync(f.fileno())
  os.replace(new, file)
  _sync_folder(file.parent)


def _sync_folder(path):
  fd = os.open(path, os.O_RDONLY)
  try:
    os.fsync(fd)
  finally:
    os.close(fd)
