"""Writes a benchmark's results, with the machine they were measured on."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import Any

from big_crop.runtime import outputs, storage

_PACKAGES = ("jax", "jaxlib", "flax", "tensorflow", "torch", "timm")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Hides what is printed to stdout and stderr."""
  with open(os.devnull, "w") as nowhere:
    with contextlib.redirect_stdout(nowhere):
      with contextlib.redirect_stderr(nowhere):
        yield


def parser(name: str, doc: str, **kwargs: Any) -> argparse.ArgumentParser:
  """A benchmark's parser, with `--json`."""
  parser = argparse.ArgumentParser(
    prog=f"python -m big_crop.bench {name}", description=doc, **kwargs
  )
  parser.add_argument("--json", action=_File, help="file for the results")
  return parser


class _File(argparse.Action):
  """Checks before measuring that the results can be written afterwards."""

  def __call__(self, parser, args, value, option_string=None):
    outputs.check_file(value, option_string)
    setattr(args, self.dest, value)


def versions() -> dict[str, str]:
  """{package: version} of those installed that matter for speed."""
  found = {}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


def write(args: argparse.Namespace, **results: Any) -> None:
  """Writes arguments, machine and results to the file of `--json`, if given."""
  if not args.json:
    return
  record = {
    "arguments": {k: v for k, v in vars(args).items() if k != "json"},
    "cpus": os.cpu_count(),
    "platform": platform.platform(),
    "versions": versions(),
    **results,
  }
  text = json.dumps(record, indent=2) + "\n"
  storage.write(pathlib.Path(args.json), text)
