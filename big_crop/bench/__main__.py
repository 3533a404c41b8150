"""Runs one benchmark: `python -m big_crop.bench NAME ...`, see COMMANDS."""

import importlib
import sys

from big_crop.runtime import commands, pages, stop

if __name__ == "__main__":
  pages.use_huge_pages()
  stop.listen(at_once=True)  # a run that is only timed need not be saved


COMMANDS = (
  *("all", "device", "infer", "pipeline", "sampler"),
  *("scaling", "step", "train", "train-cost"),
)


def main(argv: list[str]) -> None:
  if not argv or argv[0] not in COMMANDS:
    sys.exit(f"usage: python -m big_crop.bench {'|'.join(COMMANDS)} ...")
  # Only this benchmark is imported, because most of them need no TensorFlow.
  module = importlib.import_module(
    f"big_crop.bench.{argv[0].replace('-', '_')}"
  )
  module.main(argv[1:])


if __name__ == "__main__":
  with commands.one_line():
    main(sys.argv[1:])
