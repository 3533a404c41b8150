r"""Decodes and resizes a dataset once, for training without TensorFlow.

    python -m big_crop.pack --data photos --res 64 --out photos_64

`--data` is a folder of class folders, `critters` (the embedded dataset), or a
TFDS dataset: its name or its prepared folder. Only the last needs TensorFlow.

Every image is decoded with Pillow, without applying its EXIF orientation, as in
TensorFlow. Its short side is resized to `--res` pixels; images are never
enlarged. An image more elongated than `--max_ratio` is resized so that its long
side is at most max_ratio * res; nothing is cut off. `big_crop.data.packed`
describes the result. To train on it, set `--config.input.data.name` to its
folder.

When the command is stopped or killed, the same command continues its work.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import io
import math
import os
import pathlib
import shutil
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from big_crop.runtime import commands, stop

if __name__ == "__main__":
  stop.listen(goes_on=True)

import numpy as np
import PIL
from etils import epath
from PIL import Image
from tqdm import tqdm

from big_crop.data import base, pack_writer, packed, sources
from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean


def fit(width: int, height: int, res: int, max_ratio: float) -> tuple[int, int]:
  """The size (width, height) to which an image is resized.

  Args:
    width: width of the image in pixels.
    height: height of the image in pixels.
    res: length of the short side to aim at, in pixels.
    max_ratio: the largest long side / res.

  Returns:
    The size. An image that is small enough keeps its own size.
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


def _read(content, function):
  """(function(image), None), or (None, why the image is unreadable)."""
  try:
    is_bytes = isinstance(content, bytes)
    file = io.BytesIO(content) if is_bytes else epath.Path(content).open("rb")
    with file, Image.open(file) as image:
      return function(image), None
  except PIL.UnidentifiedImageError:
    return None, "it is no image that Pillow can read"
  except OSError as e:
    # An OSError with a number comes from the filesystem, not from Pillow. A
    # failing disk must not count as an unreadable image.
    if e.errno is not None:
      raise UserError(f"cannot read {e.filename or content}: {e}") from None
    return None, str(e)
  except MemoryError:
    raise
  except Exception as e:  # Pillow's decoders raise many types of errors.
    return None, str(e) or type(e).__name__


def _pixels(image, res, max_ratio):
  """The resized image, uint8 [h, w, 3], before its long side is put last."""
  image = base.to_rgb(image)
  size = fit(*image.size, res, max_ratio)
  if size != image.size:
    image = image.resize(size, Image.Resampling.BICUBIC)
  return np.asarray(image)


def _digest(source, splits, pool):
  """Digest of the class names and of all images, to notice changes.

  An image that is a file enters with its name, size and modification time,
  another one with its bytes.
  """

  def state(content):
    if isinstance(content, bytes):
      return hashlib.sha256(content).hexdigest()
    stat = epath.Path(content).stat()
    return f"{content} {stat.length} {stat.mtime}"

  digest = hashlib.sha256(repr(source.class_names).encode())
  for split in splits:
    for line in pool.map(state, source.files(split)):
      digest.update(f"{line}\n".encode(errors="surrogateescape"))
  return digest.hexdigest()


def _in_order(pool, function, items, ahead=2 * packed.BLOCK):
  """Yields `function(item)` in order, computed up to `ahead` items early."""
  waiting = collections.deque()
  for item in items:
    waiting.append(pool.submit(function, item))
    if len(waiting) > ahead:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


def _canvas(source, splits, pool, res, max_ratio, skip_corrupt):
  """(short, long) of the smallest canvas that holds every image."""
  short = long = 0

  def size_of(example):
    name, content, _ = example
    return name, *_read(content, lambda image: image.size)

  total = sum(splits.values())
  with tqdm(total=total, desc="reading sizes", unit="image") as bar:
    for split in splits:
      for name, size, reason in _in_order(pool, size_of, source.stored(split)):
        bar.update()
        if size is None:
          _check_skipped(skip_corrupt, name, reason)
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
  examples: Iterator, start: int, canvas: tuple[int, int], skip_corrupt: bool
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
  """Collects decoded examples into blocks for `pack_writer.Writer.add`.

  Args:
    examples: (name, image, reason, label). An unreadable image is None, and
      `reason` says why.
    start: index of the first example in the source.
    canvas: (short, long) side in pixels.
    skip_corrupt: leave out unreadable images, rather than raise.

  Yields:
    The images, uint8 [n, short, long, 3], and the dict about them that
    `Writer.add` takes.
  """

  def new():
    images = np.zeros((packed.BLOCK, *canvas, 3), np.uint8)
    return images, {"left_out": 0, "names": [], "labels": [], "shapes": []}

  images, about = new()
  for end, (name, image, reason, label) in enumerate(examples, start + 1):
    about["end"] = end
    if image is None:
      _check_skipped(skip_corrupt, name, reason)
      about["left_out"] += 1
      continue
    h, w = image.shape[:2]
    if h > w:
      image = image.swapaxes(0, 1)
    if image.shape[0] > canvas[0] or image.shape[1] > canvas[1]:
      raise UserError(f"{name} has changed while it was packed")
    num = len(about["names"])
    images[num, : image.shape[0], : image.shape[1]] = image
    about["names"].append(name.replace("\n", " "))
    about["labels"].append(label)
    about["shapes"].append((h, w))
    if num + 1 == packed.BLOCK:
      yield images, about
      images, about = new()
  if about["names"] or about["left_out"]:
    yield images[: len(about["names"])], about


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
  """Packs a dataset, or finishes one whose packing was stopped.

  The arguments are those of the command.

  Returns:
    The content of index.json.

  Raises:
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
  folder = data_dir if data == sources.FOLDER else data
  if folder and data != sources.EMBEDDED and os.path.isdir(folder):
    if (
      pathlib.Path(out).resolve().is_relative_to(pathlib.Path(folder).resolve())
    ):
      raise UserError(
        f"--out {out} lies in --data {folder}: name another folder"
      )
    data = os.path.abspath(data) if folder == data else data
  arguments = {
    "data": data,
    "data_dir": data_dir and os.fspath(epath.Path(data_dir).resolve()),
    "res": res,
    "max_ratio": float(max_ratio),
    "skip_corrupt": skip_corrupt,
  }
  with contextlib.ExitStack() as stack:
    writer = stack.enter_context(contextlib.closing(pack_writer.Writer(out)))
    if writer.finished:
      _check_finished(writer.finished, out, arguments, splits)
      return writer.finished
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    stack.callback(pool.shutdown, cancel_futures=True)
    return _pack(writer, pool, arguments, splits)


def _check_finished(index, out, arguments, splits):
  """Raises if a finished dataset is damaged or its arguments were others."""
  made = {key: index["made_from"][key] for key in arguments}
  made["splits"] = list(index["splits"])
  asked = arguments | {"splits": made["splits"] if splits is None else splits}
  for key, value in asked.items():
    if made[key] != value:
      raise UserError(
        f"--out {out} is finished and was made with {key} {made[key]!r}, not "
        f"{value!r}: name another folder"
      )
  packed.open_packed(out, "all")
  print("finished already")


def _pack(writer, pool, arguments, splits):
  data, res, max_ratio = (arguments[k] for k in ("data", "res", "max_ratio"))
  skip_corrupt = arguments["skip_corrupt"]
  source = sources.get_source(data, "all", arguments["data_dir"])
  if isinstance(source, packed.PackedSource):
    raise UserError(f"--data {data} is a packed dataset already")
  if notes := getattr(source, "notes", ""):
    print(f"{data}: {notes}", file=sys.stderr)
  for name in splits or ():
    if name not in source.splits or splits.count(name) > 1:
      near = did_you_mean(name, source.splits)
      twice = "named twice" if name in source.splits else f"not there; {near}"
      raise UserError(f"--splits: {name!r} of --data {data} is {twice}")
  sizes = {s: source.splits[s] for s in splits or source.splits}
  total = sum(sizes.values())
  if not total:
    raise UserError(f"--data {data} has no examples in {', '.join(sizes)}")
  writer.resume(
    {
      **arguments,
      "splits": sizes,
      "Pillow": PIL.__version__,
      "content": _digest(source, sizes, pool),
    }
  )
  if writer.canvas is None:
    canvas = _canvas(source, sizes, pool, res, max_ratio, skip_corrupt)
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
    name, content, label = example
    return name, *_read(content, lambda x: _pixels(x, res, max_ratio)), label

  with tqdm(total=total, initial=done, desc="packing", unit="image") as bar:
    for split, start in writer.done.items():
      decoded = _in_order(pool, decode, source.stored(split, start))
      for block in _blocks(decoded, start, writer.canvas, skip_corrupt):
        writer.add(split, *block)
        bar.update(sum(writer.done.values()) - bar.n)
  return writer.finish(source.class_names)


def _report(index, out):
  splits = {k: s["num_examples"] for k, s in index["splits"].items()}
  num = sum(splits.values())
  short, long = index["canvas"]
  # Devices hold each image with its shape (two int32) and its label (int32).
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
  parser = commands.parser(__doc__)
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
  # Pillow warns about odd images that it can read.
  warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
  warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
  _report(pack(**{**vars(args), "splits": splits}), args.out)


if __name__ == "__main__":
  with commands.one_line():
    main()
