"""Digests of what a run's result depends on: its config, code and data.

The digest of the code covers the modules that `reach` finds and the versions of
the libraries that compute. The digest of the data covers, for each dataset that
the config names: if embedded, its split sizes and the first and the last image
of each split; if from TFDS, its dataset_info.json and the names and sizes of
its files; if a folder, the names and sizes of its files; if packed, its
index.json, which holds the checksums of all pixels and labels.
"""

import functools
import hashlib
import importlib.metadata
import json
import pathlib
import platform
from typing import Any

from etils import epath

from big_crop import config as configs
from big_crop.runtime.records import flat
from big_crop.study import reach

_LIBRARIES = (
  "flax",
  "jax",
  "jaxlib",
  "numpy",
  "optax",
  "Pillow",
  "tensorflow",
)


def _digest(*parts: bytes | str) -> str:
  sha = hashlib.sha256()
  for part in parts:
    if isinstance(part, str):  # a file's name need not be UTF-8
      part = part.encode(errors="surrogateescape")
    # The lengths are hashed too, so that ["ab", "c"] and ["a", "bc"] differ.
    sha.update(f"{len(part)}:".encode() + part)
  return sha.hexdigest()


def of_config(config: dict[str, Any]) -> str:
  """Digest of a resolved config without the keys that a restart may change."""
  counted = {
    k: v for k, v in flat(config).items() if not k.startswith(configs.FREE_KEYS)
  }
  return _digest(json.dumps(counted, sort_keys=True))


@functools.cache
def versions() -> dict[str, str]:
  """Versions of Python and of `_LIBRARIES`; "none" if not installed."""
  found = {"python": platform.python_version()}
  for name in _LIBRARIES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "none"
  return found


def of_code(config: dict[str, Any]) -> str:
  """Digest of the code that a run with this resolved config executes."""
  return _digest(json.dumps([reach.digests(config), versions()]))


def datasets(config: dict[str, Any]) -> list[tuple[str, str | None]]:
  """(name, data_dir) of the datasets that a resolved config names, sorted."""
  named = [config["input"]["data"]]
  named += [v["data"] for v in config.get("evals", {}).values() if "data" in v]
  return sorted({(d["name"], d.get("data_dir")) for d in named}, key=str)


def of_data(config: dict[str, Any]) -> str:
  """Digest of the datasets that a resolved config names.

  Raises:
    ValueError: if a dataset does not exist.
  """
  return _digest(*(_dataset(*place) for place in datasets(config)))


def _files(folder):
  for path in folder.iterdir():
    if path.is_dir():
      yield from _files(path)
    elif path.exists():  # a link may lead nowhere
      yield path


@functools.cache
def _dataset(name, data_dir):
  from big_crop.data import packed, sources

  if name == sources.EMBEDDED:
    from big_crop.data import critters

    parts = [json.dumps(critters.SPLIT_SIZES)]
    for split, size in critters.SPLIT_SIZES.items():
      parts += [critters.example(split, i)[0] for i in (0, size - 1)]
    return _digest(name, *parts)
  # The name is looked up as the trainer does it, to find the same dataset.
  path = epath.Path(data_dir if name == sources.FOLDER else name)
  if not path.is_dir():
    import tensorflow_datasets as tfds

    sources.get_source(name, "all", data_dir)  # raises a one-line error
    path = tfds.builder(name, data_dir=data_dir, try_gcs=False).data_path
  if packed.is_packed(path):
    # read_index raises a one-line error for an unfinished or damaged dataset.
    index = packed.read_index(pathlib.Path(path))
    return _digest(name, packed.dump_index(index))
  info = path / "dataset_info.json"
  files = {str(p.relative_to(path)): p.stat().length for p in _files(path)}
  sizes = [f"{name} {size}" for name, size in sorted(files.items())]
  text = info.read_text() if info.exists() else ""
  return _digest(name, text, *sizes)
