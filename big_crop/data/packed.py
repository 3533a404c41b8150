"""Packed datasets: images decoded and resized once, stored as raw uint8.

`python -m big_crop.pack` writes them. They are for training on an accelerator
without TensorFlow, because the file is the array that goes to the devices.

    index.json         see `INDEX_KEYS`; written last, so that a folder without
                       it is no dataset
    SPLIT/images.npy   uint8 [N, short, long, 3]: each image at the top left of
                       a canvas of zeros; a portrait image (h > w) with its two
                       spatial axes swapped, so that one canvas holds both kinds
    SPLIT/shapes.npy   int32 [N, 2]: the image's height and width, not swapped
    SPLIT/labels.npy   int32 [N]
    SPLIT/names.txt    one line an example: the file or record it came from

Examples are numbered through all splits in the order of index.json, so that an
example's index does not depend on the split that is opened.
"""

import concurrent.futures
import contextlib
import functools
import io
import json
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from big_crop.data import base
from pp_ops.errors import UserError

FORMAT, VERSION = "big_crop packed dataset", 1
BLOCK = 256  # examples that share a checksum; a kill loses at most one block
INDEX_KEYS = (
  "format",
  "version",
  "res",
  "canvas",  # [short, long]
  "class_names",  # or null
  "block",  # examples for each checksum in images_crc32
  "splits",  # {name: {num_examples, left_out, FILE_crc32, ...}}
  "made_from",  # see `pack_writer.Writer.resume`
  "crc32",  # of the rest of index.json
)
INDEX, PROGRESS = "index.json", "pack_progress.jsonl"
_AGAIN = "copy it again, or delete the folder and pack the data again"
_BAR_FROM = 2_000_000_000  # bytes of a file whose check shows a progress bar


def is_packed(path) -> bool:
  """Whether a folder is a packed dataset, perhaps unfinished or damaged."""
  path = pathlib.Path(os.fspath(path))
  if (path / PROGRESS).exists():
    return True
  try:
    text = (path / INDEX).read_bytes()
  except OSError:
    return any(path.glob("*/images.npy"))
  return FORMAT.encode() in text or any(path.glob("*/images.npy"))


def open_packed(
  path, split: str, shard: tuple[int, int] = (0, 1)
) -> "PackedSource":
  """Opens a packed dataset and verifies every byte of the splits asked for.

  A file that this process has verified is not read again unless its size or
  its time of modification has changed.

  Args:
    path: the dataset's folder, on a local or mounted disk.
    split: see `sources.get_source`.
    shard: see `sources.get_source`.

  Returns:
    The source.

  Raises:
    ValueError: in one line that names the file, if something is missing, cut
      short, changed or unfinished, or if there is no such split.
  """
  path = pathlib.Path(os.fspath(path))
  index = read_index(path)
  splits = index["splits"]
  sizes = {name: s["num_examples"] for name, s in splits.items()}
  ranges = base.check_split(split, sizes, f"packed dataset {path}")
  labels, shapes, images = [], [], {}
  with _missing(path):
    for name, about in splits.items():
      folder = path / name
      n = about["num_examples"]
      labels.append(_small(folder / "labels.npy", about, (n,)))
      shapes.append(_small(folder / "shapes.npy", about, (n, 2)))
      _check_crc(folder / "names.txt", about)
      file, canvas = folder / "images.npy", index["canvas"]
      right = len(header(n, canvas)) + n * example_bytes(canvas)
      if (size := os.stat(file).st_size) != right:
        raise UserError(f"{file} has {size} bytes, not {right}: {_AGAIN}")
    asked = [name for name in splits if any(name == r[0] for r in ranges)]
    for name in asked:
      _check_images(path / name / "images.npy", splits[name], index)
      # An empty file cannot be mapped.
      mode = "r" if sizes[name] else None
      images[name] = np.load(path / name / "images.npy", mmap_mode=mode)
  return PackedSource(
    path,
    index,
    images,
    np.concatenate(labels),
    np.concatenate(shapes),
    ranges,
    shard,
  )


class PackedSource(base.IndexedSource):
  """A split of a packed dataset; its feature "image" is decoded already.

  Attributes, besides `IndexedSource`'s:
    res: the short side in pixels that images were resized to; smaller ones kept
      their size.
    canvas: (short, long) in pixels of the stored images.
    images: {split: uint8 [its examples, short, long, 3]}, memory maps of the
      stored images, for the splits asked for.
    shapes: int32 [examples of all splits, 2], the true (height, width).
    store: the `device_pipeline` store of this source, or None before its use.
  """

  store = None

  def __init__(self, path, index, images, labels, shapes, ranges, shard):
    """See `open_packed`."""
    self._path = path
    self.res = index["res"]
    self.canvas = tuple(index["canvas"])
    self.images = images
    self.shapes = shapes
    super().__init__(
      (),
      labels,
      {k: s["num_examples"] for k, s in index["splits"].items()},
      ranges,
      index["class_names"],
      shard,
      describe=lambda i: self._names[i],
    )

  def read(
    self, indices: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads examples as they are stored.

    Args:
      indices: int [n], indices of examples in the splits that were opened.

    Returns:
      images uint8 [n, short, long, 3], portraits with their axes swapped;
      shapes int32 [n, 2], true heights and widths; labels int32 [n].

    Raises:
      IndexError: if an index lies outside of those splits.
    """
    indices = np.asarray(indices, np.int64)
    images = np.empty((len(indices), *self.canvas, 3), np.uint8)
    found = 0
    for name, stored in self.images.items():
      places = indices - self.first[name]
      here = (places >= 0) & (places < len(stored))
      found += np.count_nonzero(here)
      if here.all():  # saves a copy
        np.take(stored, places, axis=0, out=images, mode="clip")
      else:
        images[here] = stored[places[here]]
    if found < len(indices):
      raise IndexError(f"{self._path}: an index lies outside of {self.first}")
    return images, self.shapes[indices], self.labels[indices].astype(np.int32)

  def example(self, index: int) -> np.ndarray:
    """The image uint8 [h, w, 3] of one example, upright and without padding."""
    [image], [(h, w)], _ = self.read([index])
    return image[:w, :h].swapaxes(0, 1) if h > w else image[:h, :w]

  def _image(self, index):
    import tensorflow as tf

    image = tf.numpy_function(
      lambda i: np.ascontiguousarray(self.example(i)), [index], tf.uint8
    )
    return {"image": tf.ensure_shape(image, [None, None, 3])}

  @functools.cached_property
  def _names(self):
    names = []
    for split in self.splits:
      text = (self._path / split / "names.txt").read_bytes()
      names += text.decode(errors="surrogateescape").split("\n")[:-1]
    return names


def read_index(path: pathlib.Path) -> dict[str, Any]:
  """The content of index.json, verified.

  Raises:
    ValueError: in one line, if it is missing, changed, or of another version.
  """
  file = path / INDEX
  try:
    text = file.read_bytes()
  except FileNotFoundError:
    if (path / PROGRESS).exists():
      raise UserError(
        f"{path}: packing is not finished: run the same big_crop.pack command "
        "again, which goes on where it stopped"
      ) from None
    raise UserError(f"{file} is missing: {_AGAIN}") from None
  except OSError as e:
    raise UserError(f"{file}: {e.strerror}") from None
  try:
    index = json.loads(text)
    version = index["version"]
    sound = text == dump_index(index)
  except (ValueError, KeyError, TypeError):
    version, sound = None, False
  if isinstance(version, int) and version > VERSION:
    raise UserError(
      f"{file} has format version {version}, this big_crop reads up to "
      f"{VERSION}: update it, or pack the data again"
    )
  if not sound:
    raise UserError(f"{file} is damaged: {_AGAIN}")
  return index


def dump_index(index):
  """The bytes of an index.json, with a newly computed checksum."""
  index = {k: index[k] for k in INDEX_KEYS if k != "crc32"}
  index["crc32"] = zlib.crc32(json.dumps(index).encode())
  return (json.dumps(index, indent=1) + "\n").encode()


@contextlib.contextmanager
def _missing(path):
  """Turns the error for a file that cannot be read into a one-line error."""
  try:
    yield
  except FileNotFoundError as e:
    raise UserError(f"{e.filename} is missing: {_AGAIN}") from None
  except OSError as e:
    raise UserError(f"{e.filename or path}: {e.strerror}") from None


def crc_key(file):
  return f"{file.stem}_crc32"


def _check_crc(file, about):
  data = file.read_bytes()
  if zlib.crc32(data) != about[crc_key(file)]:
    raise UserError(f"{file} is damaged (its CRC32 is wrong): {_AGAIN}")
  return data


def _small(file, about, shape):
  array = np.load(io.BytesIO(_check_crc(file, about)))
  if array.shape != shape or array.dtype != np.int32:
    raise UserError(f"{file} is not int32 {list(shape)}: {_AGAIN}")
  return array


def header(num: int, canvas: Sequence[int]) -> bytes:
  """The .npy header of `num` images; its length does not depend on `num`."""
  file = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    file,
    {"descr": "|u1", "fortran_order": False, "shape": (num, *canvas, 3)},
  )
  return file.getvalue()


def example_bytes(canvas: Sequence[int]) -> int:
  """Bytes of a stored image."""
  return canvas[0] * canvas[1] * 3


# (path, size, time of modification, checksums) of the files that this process
# has verified.
_verified = set()


def _check_images(file, about, index):
  """Compares every block of an images.npy with its checksum."""
  checksums = about[crc_key(file)]
  stat = os.stat(file)
  key = file.absolute(), stat.st_size, stat.st_mtime_ns, tuple(checksums)
  if key in _verified:
    return
  canvas, block = index["canvas"], index["block"]
  head = header(about["num_examples"], canvas)
  size = block * example_bytes(canvas)
  # For tqdm, None means: hide the bar unless there is a terminal.
  hide = stat.st_size < _BAR_FROM or None
  threads = min(os.cpu_count() or 1, 16)
  with (
    open(file, "rb") as f,
    concurrent.futures.ThreadPoolExecutor(threads) as pool,
    tqdm(
      desc=f"verifying {file}",
      total=stat.st_size,
      unit="B",
      unit_scale=True,
      disable=hide,
    ) as bar,
  ):

    def check(i):
      place = len(head) + i * size
      length = min(size, stat.st_size - place)
      return crc_at(f.fileno(), place, length) == checksums[i]

    if os.pread(f.fileno(), len(head), 0) != head:
      raise UserError(f"{file} has a damaged header: {_AGAIN}")
    for i, right in enumerate(pool.map(check, range(len(checksums)))):
      if not right:
        pool.shutdown(wait=False, cancel_futures=True)
        last = min((i + 1) * block, about["num_examples"]) - 1
        raise UserError(
          f"{file} is damaged (the CRC32 of examples {i * block} to {last} is "
          f"wrong): {_AGAIN}"
        )
      bar.update(size)
  _verified.add(key)


def crc_at(fd, place, size):
  """CRC32 of `size` bytes at offset `place`; None if the file ends before."""
  crc, end = 0, place + size
  while place < end:
    data = os.pread(fd, min(end - place, 1 << 24), place)
    if not data:  # the file has become shorter
      return None
    crc, place = zlib.crc32(data, crc), place + len(data)
  return crc
