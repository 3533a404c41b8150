r"""Decodes and resizes a dataset once, for training without TensorFlow.

    python -m big_crop.pack --data photos --res 64 --out photos_64

`--data` is a folder of class folders, `critters` (the embedded dataset), or a
TFDS dataset: its name or its prepared folder. Only the last needs TensorFlow.

Every image is decoded with Pillow, its EXIF orientation ignored, as TensorFlow
ignores it. Its short side becomes `--res` pixels; images are never enlarged. An
image more elongated than `--max_ratio` is made so small that its long side is
at most max_ratio * res; nothing is cut off. `big_crop.data.packed` describes
the result, which any `--config.input.data.name` can name.

When the command is stopped or killed, the same command goes on where it was.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import hashlib
import io
import itertools
import math
import os
import pathlib
import shutil
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from big_crop.runtime import stop

if __name__ == "__main__":
  stop.listen(goes_on=True)

import numpy as np
import PIL
from etils import epath
from PIL import Image
from tqdm import tqdm

from big_crop import errors
from big_crop.data import base, pack_writer, packed, sources
from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean


def fit(width: int, height: int, res: int, max_ratio: float) -> tuple[int, int]:
  """Size (width, height) of an image in the dataset.

  Args:
    width: of the image.
    height: of the image.
    res: short side, unless that is smaller.
    max_ratio: long side / res at most.

  Returns:
    The size. An image that is small enough keeps its own.
  """
  short, long = sorted((width, height))
  longest = int(max_ratio * res)
  if long > max_ratio * short and long > longest:
    scaled = max(1, round(short * longest / long)), longest
  elif short > res:
    scaled = res, min(round(long * res / short), longest)
  else:
    return width, height
  return scaled if width <= height else scaled[::-1]


def _open(content):
  return (
    io.BytesIO(content)
    if isinstance(content, bytes)
    else epath.Path(content).open("rb")
  )


def _read(content, function):
  """(function(image), None), or (None, why the image is unreadable)."""
  try:
    with _open(content) as file, Image.open(file) as image:
      return function(image), None
  except PIL.UnidentifiedImageError:
    return None, "it is no image that Pillow can read"
  except OSError as e:
    # Pillow's own have no number. A disk that fails is no unreadable image.
    if e.errno is not None:
      raise UserError(f"cannot read {e.filename or content}: {e}") from None
    return None, str(e)
  except MemoryError:
    raise
  except Exception as e:  # Pillow's decoders raise all sorts.
    return None, str(e) or type(e).__name__


def _pixels(image, res, max_ratio):
  """The image uint8 [h, w, 3] as it is in the dataset, not yet swapped."""
  image = image.convert("RGB")
  size = fit(*image.size, res, max_ratio)
  if size != image.size:
    image = image.resize(size, Image.Resampling.BICUBIC)
  return np.asarray(image)


# What is packed: `examples` yields (content, label), where the content is an
# encoded image or its path; `name` says what an example is called.


class _Indexed:
  """A folder, or the embedded dataset."""

  def __init__(self, source):
    self._source = source
    self.splits, self.class_names = source.splits, source.class_names
    starts = itertools.accumulate(source.splits.values(), initial=0)
    self._first = dict(zip(source.splits, starts, strict=False))

  def examples(self, split, start=0):
    first = self._first[split]
    for i in range(first + start, first + self.splits[split]):
      yield self._source.contents[i], int(self._source.labels[i])

  def name(self, split, i):
    return self._source.describe(self._first[split] + i)

  def digest(self, splits, pool):
    """Of all names and labels, and of what shows that a file has changed."""

    def state(content):
      if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
      stat = os.stat(content) if os.path.exists(content) else None
      return stat and f"{stat.st_size} {stat.st_mtime_ns}"

    digest = hashlib.sha256(repr(self.class_names).encode())
    for split in splits:
      states = pool.map(state, (content for content, _ in self.examples(split)))
      for i, (_, label) in enumerate(self.examples(split)):
        line = f"{self.name(split, i)} {label} {next(states)}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


class _Tfds:
  """A TFDS dataset: records as they are stored."""

  def __init__(self, source):
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow runs already.
      tf.config.set_visible_devices([], "GPU")
    self._tf, self._source = tf, source
    self.splits, self.class_names = source.splits, source.class_names

  def examples(self, split, start=0):
    tf = self._tf
    try:
      records = self._source.records(split, start).prefetch(packed.BLOCK)
      spec = records.element_spec
      for key, dtypes in [
        ("image", (tf.string,)),
        ("label", (tf.int64, tf.int32, tf.uint8)),
      ]:
        found = spec.get(key)
        if found is None or found.dtype not in dtypes or found.shape.rank:
          raise UserError(
            f"dataset {self._source.full_name}: packing needs records of an "
            f"encoded image and a whole number as label, {key!r} is {found}"
          )
      # Only what is kept is copied out of TensorFlow.
      kept = records.map(lambda x: (x["image"], x["label"]))
      for image, label in kept.as_numpy_iterator():
        yield image, int(label)
    except tf.errors.OpError as e:
      reason = (e.message or str(e)).splitlines()[0]
      raise UserError(
        f"dataset {self._source.full_name}, split {split!r}: {reason}"
      ) from None

  def name(self, split, i):
    return self._source.name(split, i)

  def digest(self, splits, pool):
    del pool
    files = [file for s in splits for file in self._source.files(s)]
    lines = [f"{file} {epath.Path(file).stat().length}" for file in files]
    lines.append(repr(self.class_names))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _open_data(data, data_dir):
  source = sources.get_source(data, "all", data_dir)
  if isinstance(source, packed.PackedSource):
    raise UserError(f"--data {data} is a packed dataset already")
  if isinstance(source, base.IndexedSource):
    if source.notes:
      print(f"{data}: {source.notes}", file=sys.stderr)
    return _Indexed(source)
  return _Tfds(source)


def _in_order(pool, function, items, ahead=2 * packed.BLOCK):
  """`function` of each item, computed in the pool up to `ahead` items early."""
  waiting = collections.deque()
  for item in items:
    waiting.append(pool.submit(function, item))
    if len(waiting) > ahead:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


def _canvas(found, splits, pool, res, max_ratio, skip_corrupt):
  """(short, long) of the smallest canvas that holds every image."""
  short = long = 0
  size_of = lambda example: _read(example[0], lambda image: image.size)
  total = sum(splits.values())
  with tqdm(total=total, desc="reading sizes", unit="image") as bar:
    for split in splits:
      sizes = _in_order(pool, size_of, found.examples(split))
      for i, (size, reason) in enumerate(sizes):
        bar.update()
        if size is None:
          _check_skipped(skip_corrupt, found.name(split, i), reason)
          continue
        a, b = sorted(fit(*size, res, max_ratio))
        short, long = max(short, a), max(long, b)
  return short, long


def _check_skipped(skip_corrupt, name, reason):
  if not skip_corrupt:
    raise UserError(
      f"unreadable image: {name}: {reason}; --skip_corrupt leaves such images "
      "out"
    )


def _blocks(
  examples: Iterator, start: int, canvas: tuple[int, int]
) -> Iterator[tuple]:
  """Collects decoded examples to blocks for `pack_writer.Writer.add`.

  Args:
    examples: ((image, why it is None), label) from place `start` on.
    start: place of the first of them in the source.
    canvas: (short, long).

  Yields:
    (end, images, shapes, labels, {place: why it is left out}).
  """
  new = lambda: (np.zeros((packed.BLOCK, *canvas, 3), np.uint8), [], [], {})
  images, shapes, labels, left_out = new()
  end = start
  for (image, reason), label in examples:
    end += 1
    if image is None:
      left_out[end - 1] = reason
      continue
    h, w = image.shape[:2]
    if h > w:
      image = image.swapaxes(0, 1)
    if image.shape[0] > canvas[0] or image.shape[1] > canvas[1]:
      raise UserError(f"example {end - 1} has changed while it was packed")
    images[len(labels), : image.shape[0], : image.shape[1]] = image
    shapes.append((h, w))
    labels.append(label)
    if len(labels) == packed.BLOCK:
      yield end, images, shapes, labels, left_out
      images, shapes, labels, left_out = new()
  if labels or left_out:
    yield end, images[: len(labels)], shapes, labels, left_out


def pack(
  data: str,
  out: str,
  res: int,
  *,
  data_dir: str | None = None,
  splits: list[str] | None = None,
  max_ratio: float = 2.0,
  skip_corrupt: bool = False,
  jobs: int | None = None,
) -> dict[str, Any]:
  """Packs a dataset, or what is missing of one whose packing was stopped.

  Args:
    data: see the command.
    out: the folder to write.
    res: short side of the images, at most.
    data_dir: where TFDS datasets are prepared.
    splits: which; all that the data has by default.
    max_ratio: long side / res at most.
    skip_corrupt: leave out images that do not decode, rather than raise.
    jobs: threads; one for each core by default.

  Returns:
    The content of index.json.

  Raises:
    pack_writer.Finished: if it is there already.
    ValueError: in one line, if something is wrong with the arguments, the data
      or the disk.
  """
  if res < 1:
    raise UserError(f"--res {res}: need at least 1")
  if not 1 <= max_ratio < math.inf:
    raise UserError(f"--max_ratio {max_ratio:g}: need a number from 1 on")
  jobs = len(os.sched_getaffinity(0)) if jobs is None else jobs
  if jobs < 1:
    raise UserError(f"--jobs {jobs}: need at least 1")
  folder = {sources.FOLDER: data_dir, sources.EMBEDDED: None}.get(data, data)
  if not os.path.isdir(folder or ""):
    folder = None
  arguments = {
    "data": os.path.abspath(data) if folder == data else data,
    "data_dir": data_dir and os.fspath(epath.Path(data_dir).resolve()),
    "res": res,
    "max_ratio": float(max_ratio),
    "skip_corrupt": skip_corrupt,
  }
  if folder and pathlib.Path(out).resolve().is_relative_to(
    pathlib.Path(folder).resolve()
  ):
    raise UserError(f"--out {out} lies in --data {folder}: name another folder")
  try:
    writer = pack_writer.Writer(out)
  except pack_writer.Finished as e:
    for key, value in arguments.items():
      if (had := e.index["made_from"][key]) != value:
        raise UserError(
          f"--out {out} is finished and was made with {key} {had!r}, not "
          f"{value!r}: name another folder"
        ) from None
    if splits is not None and splits != (had := list(e.index["splits"])):
      raise UserError(
        f"--out {out} is finished and has splits {','.join(had)}, not "
        f"{','.join(splits)}: name another folder"
      ) from None
    packed.open_packed(out, "all")
    raise
  pool = concurrent.futures.ThreadPoolExecutor(jobs)
  with contextlib.closing(writer):
    try:
      return _pack(writer, pool, arguments, splits)
    finally:
      pool.shutdown(cancel_futures=True)


def _pack(writer, pool, arguments, splits):
  data, res, max_ratio = (arguments[k] for k in ("data", "res", "max_ratio"))
  skip_corrupt = arguments["skip_corrupt"]
  found = _open_data(data, arguments["data_dir"])
  for name in splits or ():
    if name not in found.splits or splits.count(name) > 1:
      near = did_you_mean(name, found.splits)
      twice = "named twice" if name in found.splits else f"not there; {near}"
      raise UserError(f"--splits: {name!r} of --data {data} is {twice}")
  sizes = {s: found.splits[s] for s in splits or found.splits}
  total = sum(sizes.values())
  if not total:
    raise UserError(f"--data {data} has no examples in {', '.join(sizes)}")
  writer.resume(
    {
      **arguments,
      "splits": sizes,
      "Pillow": PIL.__version__,
      "content": found.digest(sizes, pool),
    }
  )
  if writer.canvas is None:
    canvas = _canvas(found, sizes, pool, res, max_ratio, skip_corrupt)
    if not canvas[0]:
      raise UserError(f"--data {data}: none of {total} images is readable")
    writer.begin(canvas)
  done = sum(writer.done.values())
  need = (total - done) * packed.example_bytes(writer.canvas)
  if need > (free := shutil.disk_usage(writer.out).free):
    raise UserError(
      f"--out {writer.out} needs {need / 1e9:.2f} GB more, and the disk has "
      f"{free / 1e9:.2f} GB left"
    )

  def decode(example):
    content, label = example
    return _read(content, lambda x: _pixels(x, res, max_ratio)), label

  with tqdm(total=total, initial=done, desc="packing", unit="image") as bar:
    for split, start in writer.done.items():
      decoded = _in_order(pool, decode, found.examples(split, start))
      for end, *block, left_out in _blocks(decoded, start, writer.canvas):
        for i, reason in left_out.items():
          _check_skipped(skip_corrupt, found.name(split, i), reason)
        writer.add(split, end, *block, left_out)
        bar.update(end - start)
        start = end
  names = {s: lambda i, s=s: found.name(s, i) for s in sizes}
  return writer.finish(names, found.class_names)


def _report(index, out):
  splits = {k: s["num_examples"] for k, s in index["splits"].items()}
  num = sum(splits.values())
  short, long = index["canvas"]
  # With each image, devices hold its shape (two int32) and its label (int32).
  size = lambda n: n * (packed.example_bytes(index["canvas"]) + 12)
  on_disk = sum(
    p.stat().st_size for p in pathlib.Path(out).rglob("*") if p.is_file()
  )
  listed = ", ".join(f"{k} {n:,}" for k, n in splits.items())
  print(f"{out}: {num:,} examples ({listed}) of {short}x{long}x3 uint8")
  each = ", ".join(f"{k} {size(n) / 1e9:.3f} GB" for k, n in splits.items())
  print(
    f"{on_disk:,} bytes on disk; on devices {size(num) / 1e9:.3f} GB: {each}"
  )
  if left_out := sum(s["left_out"] for s in index["splits"].values()):
    print(f"left out: {left_out:,} unreadable images")


def main(argv=None):
  """Runs the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--data", required=True, metavar="NAME|DIR")
  parser.add_argument("--res", required=True, type=int, help="short side")
  parser.add_argument("--out", required=True, metavar="DIR")
  parser.add_argument("--data_dir", help="where TFDS datasets are prepared")
  parser.add_argument(
    "--splits", metavar="NAME,...", help="by default all that there are"
  )
  parser.add_argument("--max_ratio", type=float, default=2.0)
  parser.add_argument(
    "--skip_corrupt", action="store_true", help="leave out unreadable images"
  )
  parser.add_argument("--jobs", type=int, help="threads, by default the cores")
  args = parser.parse_args(argv)
  splits = None if args.splits is None else args.splits.split(",")
  # Of odd but readable images.
  warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
  warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
  try:
    index = pack(**{**vars(args), "splits": splits})
  except pack_writer.Finished as e:
    print("finished already")
    index = e.index
  _report(index, args.out)


if __name__ == "__main__":
  with errors.one_line():
    main()
