"""Runs one benchmark: `python -m big_crop.bench NAME ...`, see COMMANDS."""

import importlib
import sys

from big_crop import errors

COMMANDS = ("device", "pipeline", "sampler", "scaling", "step", "train")


def main(argv: list[str]) -> None:
  if not argv or argv[0] not in COMMANDS:
    sys.exit(f"usage: python -m big_crop.bench {'|'.join(COMMANDS)} ...")
  # Imported by name, so that a step is timed without TensorFlow.
  module = importlib.import_module(f"big_crop.bench.{argv[0]}")
  with errors.one_line():
    module.main(argv[1:])


if __name__ == "__main__":
  main(sys.argv[1:])
