"""A plain folder of class folders of images."""

import hashlib
import re

from etils import epath

from big_crop.data import base
from pp_ops.errors import UserError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_SPLIT_NAMES = ("train", "validation", "val", "test")


def _class_folders(path):
  return sorted(
    (p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")),
    key=lambda p: p.name,
  )


def _images(folder):
  return [p for p in folder.iterdir() if p.name.lower().endswith(_SUFFIXES)]


def _listing(path):
  """Class names, and (path, class) pairs in an order mixed but always the same.

  Mixed, so that a sub-split such as train[:90%] holds every class.
  """
  classes = [p.name for p in _class_folders(path)]
  files = [(f, c) for c in classes for f in _images(path / c)]
  key = lambda f: hashlib.md5(f"{f[1]}/{f[0].name}".encode()).digest()
  return classes, sorted(files, key=key)


def open_folder(
  path: epath.Path, split: str, shard: tuple[int, int]
) -> base.IndexedSource:
  """Opens `path/class/image` or `path/train/class/image`, `path/val/...`.

  Without folders for the splits, `train` is nine tenths of the images in a
  fixed mixed order and `validation` the rest. `all` is every split.

  Args:
    path: the folder.
    split: see `sources.get_source`.
    shard: likewise.

  Returns:
    The source; classes are numbered in the order of their folders' names.

  Raises:
    ValueError: if there are no such images, or no such split.
  """
  has_splits = (path / "train").is_dir() and bool(
    _class_folders(path / "train")
  )
  if has_splits:
    listings = {
      s: _listing(path / s) for s in _SPLIT_NAMES if (path / s).is_dir()
    }
    if "val" in listings and "validation" not in listings:
      listings["validation"] = listings.pop("val")
      split = re.sub(r"\bval\b", "validation", split)
    classes = listings["train"][0]
    for s, (found, _) in listings.items():
      extra = sorted(set(found) - set(classes))
      if extra:
        raise UserError(
          f"{path / s}: class folder {extra[0]!r} is not in {path / 'train'}"
        )
    files = {s: f for s, (_, f) in listings.items()}
  else:
    classes, everything = _listing(path)
    cut = len(everything) - max(1, len(everything) // 10)
    files = {"train": everything[:cut], "validation": everything[cut:]}
  flat = [f for s in files for f in files[s]]
  if not flat:
    raise UserError(
      f"{path}: no images; need {path}/CLASS/IMAGE with one of "
      + " ".join(_SUFFIXES)
    )
  sizes = {s: len(f) for s, f in files.items()}
  first = {}
  for s in files:
    first[s] = sum(sizes[t] for t in first)
  number = {c: i for i, c in enumerate(classes)}
  return base.IndexedSource(
    [str(f) for f, _ in flat],
    [number[c] for _, c in flat],
    [
      first[s] + i
      for s, start, end in base.check_split(split, sizes, str(path))
      for i in range(start, end)
    ],
    classes,
    shard,
    are_paths=True,
    describe=lambda i: str(flat[i][0]),
    splits=sizes,
  )
