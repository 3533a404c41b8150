"""Image shapes to measure crops on: given, or found in real data."""

import collections
import io
import re
import sys

import PIL
from etils import epath
from PIL import Image
from tqdm import tqdm

from big_crop.data import folder
from pp_ops import registry
from pp_ops.checks import check_number
from pp_ops.errors import UserError

_MOST_PIXELS = 10**8  # a table of an image's window sizes then takes 0.8 GB

Shapes = dict[tuple[int, int], int]  # (height, width) -> how many images


def parse(text: str) -> tuple[int, int]:
  """(height, width) from `HxW`.

  Raises:
    ValueError: in one line, if the text has another form.
  """
  match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
  if not match:
    raise UserError(f"image shape {text!r}: need HxW in pixels, as in 375x500")
  return int(match[1]), int(match[2])


def of_folder(path: str) -> Shapes:
  """The shapes of all images below a folder; reads their headers only.

  Raises:
    ValueError: in one line, if there are no images.
  """
  if not epath.Path(path).is_dir():
    raise UserError(f"--images {path}: there is no such folder")
  counts, skipped = collections.Counter(), collections.Counter()
  folders = [epath.Path(path)]
  with tqdm(desc="reading sizes", unit="image", delay=1) as bar:
    while folders:
      images, below = folder.scan(here := folders.pop(), skipped)
      folders += [here / name for name in below]
      for name in images:
        with (here / name).open("rb") as f:
          counts[_shape(f, here / name)] += 1
        bar.update()
  if skipped:
    text = f"{path}: {folder.describe_skipped(skipped)}"
    print(text, file=sys.stderr, flush=True)
  if not counts:
    raise UserError(f"no images in {path!r} ({' '.join(folder.SUFFIXES)})")
  return dict(counts)


def _shape(file, name):
  """(height, width) of an encoded image."""
  try:
    with Image.open(file) as image:
      return image.height, image.width
  except Exception as e:  # Pillow's decoders raise all sorts.
    reason = "no image that Pillow can read"
    if not isinstance(e, PIL.UnidentifiedImageError):
      reason = str(e) or type(e).__name__
    raise UserError(f"unreadable image: {name}: {reason}") from None


def of_dataset(name: str, split: str, data_dir: str | None, num: int) -> Shapes:
  """The shapes of the first `num` images of a dataset's split.

  For a packed dataset these are the shapes after its resizing.

  Args:
    name: see `sources.get_source`.
    split: see `sources.get_source`.
    data_dir: see `sources.get_source`.
    num: how many images at most.

  Returns:
    The shapes.

  Raises:
    ValueError: in one line, if the dataset is not there.
  """
  from big_crop.data import packed, sources

  source = sources.get_source(name, split, data_dir)
  if isinstance(source, packed.PackedSource):
    found = source.shapes[source.indices][:num].tolist()
    return dict(collections.Counter(map(tuple, found)))
  counts = collections.Counter()
  examples = source.epoch(None).take(num).as_numpy_iterator()
  total = min(num, source.num_examples)
  for example in tqdm(examples, "reading sizes", total, unit="image", delay=1):
    name = source.describe(int(example["_index"]))
    counts[_shape(io.BytesIO(example["image"]), name)] += 1
  return dict(counts)


def add_arguments(parser) -> None:
  """Adds the flags that name image shapes, and `--pp_modules`, to a parser."""
  parser.add_argument(
    "--pp_modules",
    nargs="*",
    default=[],
    metavar="MODULE",
    help="modules of your own that register crops",
  )
  group = parser.add_argument_group("which images")
  group.add_argument(
    "--image_shape", nargs="+", action="extend", default=[], metavar="HxW"
  )
  group.add_argument("--images", metavar="DIR", help="shapes found in a folder")
  group.add_argument("--dataset", help="shapes found in a dataset")
  group.add_argument("--split", default="train", help="of --dataset")
  group.add_argument("--data_dir", help="of --dataset")
  group.add_argument(
    "--max_images", type=int, default=10_000, help="of --dataset"
  )


def from_arguments(args) -> dict[str, Shapes]:
  """{label: shapes} of the parsed arguments of `add_arguments`.

  Each image shape, the folder and the dataset are one entry each. This function
  also imports `--pp_modules`.
  """
  registry.import_modules(args.pp_modules)
  check_number("--max_images", args.max_images, 1)
  found: dict[str, Shapes] = {
    text: {parse(text): 1} for text in args.image_shape
  }
  if args.images:
    found[args.images] = of_folder(args.images)
  if args.dataset:
    found[args.dataset] = of_dataset(
      args.dataset, args.split, args.data_dir, args.max_images
    )
  for label, counts in found.items():
    for height, width in counts:
      if height * width > _MOST_PIXELS:
        raise UserError(
          f"{label}: an image of {height}x{width} is too large; at most "
          f"{_MOST_PIXELS // 10**6} megapixels can be measured"
        )
  return found
