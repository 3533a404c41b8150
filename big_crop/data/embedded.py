"""The embedded default: generated in memory, the same on every machine."""

import functools

from big_crop.data import base, critters

# Training and evaluation often share a range.
_generate = functools.cache(critters.generate)


def open_embedded(split: str, shard: tuple[int, int]) -> base.IndexedSource:
  """The dataset of `big_crop.data.critters`; see `sources.get_source`."""
  sizes = critters.SPLIT_SIZES
  names = [f"critters {s}[{i}]" for s in sizes for i in range(sizes[s])]
  first = {s: names.index(f"critters {s}[0]") for s in sizes}
  # Only what is asked for is drawn, but an index always means the same image.
  images, labels, indices = [b""] * len(names), [-1] * len(names), []
  for name, start, stop in base.check_split(split, sizes, "dataset 'critters'"):
    place = slice(first[name] + start, first[name] + stop)
    images[place], labels[place] = _generate(name, start, stop)
    indices += range(place.start, place.stop)
  return base.IndexedSource(
    images,
    labels,
    indices,
    critters.CLASS_NAMES,
    shard,
    are_paths=False,
    describe=lambda i: names[i],
    splits=sizes,
  )
