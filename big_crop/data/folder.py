"""The dataset that is a plain folder of class folders of images."""

import collections
import hashlib
import os
import pathlib
import re
from collections.abc import Mapping

from etils import epath

from big_crop.data import base
from pp_ops.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", *base.BY_PILLOW)
_REFUSED = (".heic", ".heif")
_SPLIT_NAMES = ("train", "validation", "val", "test")


def scan(folder: epath.Path, skipped: collections.Counter) -> tuple:
  """The names of the images and of the folders in a folder.

  Args:
    folder: the folder.
    skipped: this counter gets the number of all other files, by suffix.

  Returns:
    Two sorted lists of names: images, folders.

  Raises:
    ValueError: in one line, for a file that looks like an image and cannot be
      read, and for a name that is not UTF-8.
  """
  images, folders = [], []
  local = "://" not in os.fspath(folder)
  for entry in os.scandir(folder) if local else folder.iterdir():
    name, path = entry.name, f"{folder}/{entry.name}"
    suffix = pathlib.PurePath(name).suffix.lower()
    if name.startswith("."):
      skipped["hidden"] += 1
      continue
    # On a remote disk, where each is_dir() is a request, images are taken for
    # files by their suffix.
    if (local or suffix not in SUFFIXES) and entry.is_dir():
      folders.append(name)
    elif suffix in _REFUSED:
      raise UserError(
        f"{path}: {suffix} files are not read; convert them, for example by "
        "heif-convert or magick mogrify -format jpg, or move them away"
      )
    elif suffix not in SUFFIXES:
      skipped[suffix if suffix.isascii() and suffix else "other"] += 1
      continue
    elif local and entry.is_symlink() and not os.path.exists(path):
      raise UserError(f"{path} is a link to {os.readlink(path)}, not there")
    else:
      images.append(name)
    if not name.isascii() and name.encode(errors="replace").decode() != name:
      raise UserError(f"{path!r}: the name is not UTF-8; rename it")
  return sorted(images), sorted(folders)


def describe_skipped(skipped: Mapping[str, int]) -> str:
  """A text such as `skipped 3 .txt, 1 hidden`, or "" if nothing was skipped."""
  listed = (f"{n:,} {kind}" for kind, n in sorted(skipped.items()))
  return f"skipped {', '.join(listed)}" if skipped else ""


def _listing(path, skipped):
  """Class names, and (path, class) pairs in a fixed pseudo-random order.

  The order is mixed so that a sub-split such as train[:90%] has all classes.
  """
  images, classes = scan(path, skipped)
  if images:
    skipped["images outside of class folders"] += len(images)
  files = []
  for name in classes:
    images, folders = scan(path / name, skipped)
    if folders:
      skipped["folders inside of class folders"] += len(folders)
    files += [(path / name / image, name) for image in images]
  key = lambda f: hashlib.md5(f"{f[1]}/{f[0].name}".encode()).digest()
  return classes, sorted(files, key=key)


def _check_classes(path, classes, files, skipped):
  """Raises unless a folder has class folders, each with images."""
  if not files:
    found = describe_skipped(skipped) or "it is empty"
    raise UserError(
      f"{path}: no images; need {path}/CLASS/IMAGE with one of "
      f"{' '.join(SUFFIXES)} ({found})"
    )
  if empty := sorted(set(classes) - {c for _, c in files}):
    more = f" nor have {len(empty) - 1} other classes" if empty[1:] else ""
    raise UserError(
      f"{path / empty[0]} has no images{more}: a class needs some; remove it"
    )


def open_folder(
  path: epath.Path, split: str, shard: tuple[int, int]
) -> base.IndexedSource:
  """Opens `path/class/image` or `path/train/class/image`, `path/val/...`.

  If there are no folders of splits, `train` is nine tenths of the images in a
  fixed pseudo-random order, and `validation` is the rest. `all` is every split.

  Args:
    path: the folder.
    split: see `sources.get_source`.
    shard: see `sources.get_source`.

  Returns:
    The source; classes are numbered in the order of their folders' names.

  Raises:
    ValueError: in one line, if there are no such images, if there is no such
      split, if a class has no images (with folders of splits: none in `train`),
      or if another split has a class that `train` has not.
  """
  skipped = collections.Counter()
  has_splits = (path / "train").is_dir() and bool(
    scan(path / "train", collections.Counter())[1]
  )
  if has_splits:
    folders = {s: path / s for s in _SPLIT_NAMES if (path / s).is_dir()}
    listings = {s: _listing(f, skipped) for s, f in folders.items()}
    classes = listings["train"][0]
    _check_classes(path / "train", *listings["train"], skipped)
    for s, (found, _) in listings.items():
      extra = sorted(set(found) - set(classes))
      if extra:
        raise UserError(
          f"{folders[s] / extra[0]}: there is no such class folder in "
          f"{path / 'train'}"
        )
    if "val" in listings and "validation" not in listings:
      listings["validation"] = listings.pop("val")
      split = re.sub(r"\bval\b", "validation", split)
    files = {s: f for s, (_, f) in listings.items()}
  else:
    classes, everything = _listing(path, skipped)
    if classes and set(classes) <= set(_SPLIT_NAMES):
      raise UserError(
        f"{path / classes[0]} has no class folders: need "
        f"{path}/train/CLASS/IMAGE"
      )
    _check_classes(path, classes, everything, skipped)
    cut = len(everything) - max(1, len(everything) // 10)
    files = {"train": everything[:cut], "validation": everything[cut:]}
  flat = [f for s in files for f in files[s]]
  sizes = {s: len(f) for s, f in files.items()}
  number = {c: i for i, c in enumerate(classes)}
  return base.IndexedSource(
    [str(f) for f, _ in flat],
    [number[c] for _, c in flat],
    sizes,
    base.check_split(split, sizes, str(path)),
    classes,
    shard,
    are_paths=True,
    describe=lambda i: str(flat[i][0]),
    notes=describe_skipped(skipped),
  )
