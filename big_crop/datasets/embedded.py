"""The embedded default: generated in memory, the same on every machine."""

import functools

from big_crop.datasets import base, critters


@functools.cache
def _generate(split):
  return critters.generate(split)


def open_embedded(split: str, shard: tuple[int, int]) -> base.IndexedSource:
  """The dataset of `big_crop.datasets.critters`; see `datasets.get_source`."""
  sizes = critters.SPLIT_SIZES
  parts = base.check_split(split, sizes, "dataset 'critters'")
  images, labels, names, first = [], [], [], {}
  # Only the splits that are asked for are drawn, but an index always names the
  # same image.
  for name, size in sizes.items():
    first[name] = len(names)
    wanted = any(part == name for part, _, _ in parts)
    drawn, classes = _generate(name) if wanted else ([b""] * size, [-1] * size)
    images += drawn
    labels += list(classes)
    names += [f"critters {name}[{i}]" for i in range(size)]
  return base.IndexedSource(
    images,
    labels,
    [first[s] + i for s, start, end in parts for i in range(start, end)],
    critters.NUM_CLASSES,
    shard,
    are_paths=False,
    describe=lambda i: names[i],
  )
