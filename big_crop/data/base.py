"""The protocol of dataset sources, and a source with access by index.

TensorFlow is imported only when the first epoch is made, so that sources can be
opened and their contents read where it is not installed.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from etils import epath
from PIL import Image

from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean

if TYPE_CHECKING:
  import tensorflow as tf


# Suffixes of images that TensorFlow cannot decode; `_as_png` makes them PNG.
BY_PILLOW = (".tif", ".tiff", ".webp")


class Source(Protocol):
  """A split of a dataset, or one host's share of it."""

  num_examples: int  # in this share
  total_examples: int  # in the split, over all hosts
  num_classes: int | None
  class_names: list[str] | None  # in the order of their labels

  def epoch(
    self,
    seed: tf.Tensor | None,
    skip: tf.Tensor | int = 0,
    repeats: int = 1,
  ) -> tf.data.Dataset:
    """One epoch of this share: `num_examples` examples.

    Args:
      seed: int64 [2] that decides the order, or None for the stored one.
      skip: int64 scalar: examples to leave out at the start; a Python int if
        `seed` is None.
      repeats: how many times in a row an example comes. The length of an epoch
        does not change, so only the first 1 / `repeats` of the order's
        examples are in it.

    Returns:
      A dataset of feature dicts, among them `"_index"` (int64) and `"_repeat"`
      (int64, 0 to `repeats` - 1). It may be built inside a `tf.data` function:
      `seed` and `skip` may be graph tensors.
    """
    ...

  def describe(self, index: int) -> str:
    """Names the file, or the record of a file, that holds example `index`."""
    ...


# One split of a spec, and one end of its slice. The patterns are those of
# tfds.core.ReadInstruction, so that big_crop accepts what TFDS accepts.
_PART = re.compile(r"(?P<name>[\w-]+)(\[(?P<slice>[\w%:.-]+)\])?")
_END = re.compile(r"((?P<value>-?[\d_.]+)(?P<unit>%|shard)?)?")


def check_split(
  split: str, sizes: Mapping[str, int], dataset: str
) -> list[tuple[str, int, int]]:
  """Turns a split spec into absolute ranges, as TFDS does.

  Args:
    split: splits joined by `+`, each with an optional slice in examples or in
      percent, e.g. `"train[:90%]+validation[-100:]"`; or `"all"`, which is
      every split in the order of `sizes`. Percentages are rounded to the
      closest example, halves to an even one.
    sizes: {split: number of examples}.
    dataset: the dataset's name, for the error message.

  Returns:
    [(split name, first, end)]; `end` <= `first` for an empty slice.

  Raises:
    ValueError: unknown split or bad slice.
  """
  ranges = []
  for part in re.split(r"\s*\+\s*", split):
    try:
      ranges += _ranges(part, sizes)
    except ValueError as e:
      raise UserError(f"split {split!r} of {dataset}: {e}") from None
  return ranges


def _ranges(part, sizes):
  """[(name, first, end)] of one term of a split spec."""
  match = _PART.fullmatch(part)
  if not match:
    raise ValueError(f"{part!r} is neither SPLIT nor SPLIT[FIRST:END]")
  name, text = match["name"], match["slice"]
  if name == "all":
    if text:
      raise ValueError("'all' takes no slice")
    if not sizes:
      raise ValueError("the dataset has no splits")
    return [(name, 0, size) for name, size in sizes.items()]
  if name not in sizes:
    raise ValueError(f"no such split; {did_you_mean(name, sizes)}")
  size = sizes[name]
  if text is None:
    return [(name, 0, size)]
  ends = [_END.fullmatch(end) for end in text.split(":")]
  if len(ends) != 2 or not all(ends) or text == ":":
    raise ValueError(f"[{text}] is not [FIRST:END] in examples or in percent")
  # One percent sign makes both ends percentages: [10:20%] is [10%:20%].
  unit = ends[0]["unit"] or ends[1]["unit"]
  if unit == "shard":
    raise ValueError("slices count examples or percent, not shards")
  first, end = (
    default if e["value"] is None else _place(e["value"], unit, size)
    for e, default in zip(ends, (0, size), strict=True)
  )
  if abs(first) > size or abs(end) > size:
    raise ValueError(f"[{text}] is out of range: the split has {size} examples")
  return [(name, *(i + size if i < 0 else i for i in (first, end)))]


def _place(text, unit, size):
  try:
    value = float(text) if unit else int(text)
  except ValueError:
    whole = "a number" if unit else "a whole number"
    raise ValueError(f"{text!r} in a slice is not {whole}") from None
  if not unit:
    return value
  if abs(value) > 100:
    raise ValueError(f"{text}% is not within -100% and 100%")
  return round(value * size / 100.0)


def host_range(total: int, shard: tuple[int, int]) -> tuple[int, int]:
  """(first, end) of one host's contiguous, even share of `total` examples."""
  index, count = shard
  return total * index // count, total * (index + 1) // count


class IndexedSource:
  """A source whose examples are reached by index and shuffled as a whole.

  The order is one permutation of the split for each seed. Its examples are
  dealt to the hosts in turn, so that the order of all hosts together does not
  depend on their number.

  Attributes:
    contents: encoded images, or their paths, of all splits, by index.
    labels: int64 [examples of all splits], the class of each.
    indices: int64 [total_examples], the indices of the split's examples.
    shard: (index, count) of this host, whose share of an epoch's order is
      `order[index::count]`.
    splits: {split: number of examples}, in the order of `contents`.
    first: {split: index of its first example}.
    class_names: names of all classes, in the order of their labels, if known.
    are_paths: whether the contents are paths of files.
    notes: what a person should know of the dataset, or "".
  """

  def __init__(
    self,
    contents: Sequence,
    labels: Sequence[int],
    splits: Mapping[str, int],
    ranges: Sequence[tuple[str, int, int]],
    class_names: Sequence[str] | None,
    shard: tuple[int, int],
    *,
    describe: Callable[[int], str],
    are_paths: bool = False,
    notes: str = "",
  ):
    """Makes a source of the examples in `ranges`, which `check_split` returned.

    `describe` gives the name of the example at an index. The class docstring
    explains all other arguments.
    """
    self.contents = contents
    self.labels = np.asarray(labels, np.int64)
    self.splits = dict(splits)
    starts = itertools.accumulate(splits.values(), initial=0)
    self.first = dict(zip(splits, starts, strict=False))
    parts = (np.arange(a, b) + self.first[name] for name, a, b in ranges)
    self.indices = np.concatenate([*parts])
    self.shard = shard
    self.are_paths = are_paths
    self.describe = describe
    self.notes = notes
    self.class_names = None if class_names is None else list(class_names)
    self.num_classes = None if class_names is None else len(self.class_names)
    self.total_examples = len(self.indices)
    self.num_examples = len(range(shard[0], self.total_examples, shard[1]))

  def stored(
    self, split: str, start: int = 0
  ) -> Iterator[tuple[str, str | bytes, int]]:
    """(name, content, label) of a whole split's examples from `start` on."""
    first = self.first[split]
    for i in range(first + start, first + self.splits[split]):
      yield self.describe(i), self.contents[i], int(self.labels[i])

  def files(self, split: str) -> Sequence[str | bytes]:
    """The contents of a split's examples: paths, or the encoded bytes."""
    first = self.first[split]
    return self.contents[first : first + self.splits[split]]

  def epoch(self, seed, skip=0, repeats=1):
    import tensorflow as tf

    index, count = self.shard
    order = self._tensors["indices"]
    if seed is not None:
      order = tf.random.experimental.stateless_shuffle(order, seed)
    places = tf.range(self.total_examples, dtype=tf.int64)[index::count]
    mine = tf.gather(order, places // repeats), places % repeats
    skip = tf.cast(skip, tf.int64)
    parallel = {}
    if self._by_pillow:  # in parallel: Pillow is as slow as a pp string
      parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    return tf.data.Dataset.from_tensor_slices(
      tuple(x[skip:] for x in mine)
    ).map(self._fetch, **parallel)

  @functools.cached_property
  def _by_pillow(self):
    """Whether some of the images must be decoded by Pillow."""
    return self.are_paths and any(
      path.lower().endswith(BY_PILLOW) for path in self.contents
    )

  def _read(self, path):
    import tensorflow as tf

    read = lambda: tf.io.read_file(path)
    if not self._by_pillow:
      return read()
    suffix = "|".join(map(re.escape, BY_PILLOW))
    data = tf.cond(
      tf.strings.regex_full_match(tf.strings.lower(path), f".*({suffix})"),
      lambda: tf.numpy_function(_as_png, [path], tf.string),
      read,
    )
    return tf.ensure_shape(data, [])

  @functools.cached_property
  def _tensors(self):
    """The arrays that an epoch reads, by name, as eager tensors.

    A graph that makes an epoch captures these tensors. If they were constants
    of the graph, they would be copied into every graph, and a graph may not
    exceed 2 GB.
    """
    import tensorflow as tf

    arrays = {
      "contents": list(self.contents),
      "labels": self.labels,
      "indices": self.indices,
    }
    with tf.init_scope():
      return {k: tf.constant(v) for k, v in arrays.items()}

  def _image(self, index):
    """The image of an example, and its file's name if it has one."""
    content = self._tensors["contents"][index]
    if not self.are_paths:
      return {"image": content}
    return {"file_name": content, "image": self._read(content)}

  def _fetch(self, index, repeat):
    return {
      **self._image(index),
      "label": self._tensors["labels"][index],
      "_index": index,
      "_repeat": repeat,
    }


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts to RGB; of 16 bits a channel the upper 8 stay, as in `decode`.

  Raises:
    ValueError: for pixels of 32 bits, whose range is not known.
  """
  if image.mode.startswith("I;16"):
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  if image.mode[0] in "IF":  # Pillow would clip these to 0..255
    raise ValueError(f"its mode is {image.mode!r}: need 8 or 16 bits a channel")
  return image.convert("RGB")


def _as_png(path):
  """Converts an image file that TensorFlow cannot decode to PNG bytes.

  The bytes of a file that Pillow cannot read either are returned unchanged, so
  that `decode` refuses them like any other corrupt file.
  """
  data = epath.Path(os.fsdecode(path)).read_bytes()
  png = io.BytesIO()
  try:
    with Image.open(io.BytesIO(data)) as image:
      to_rgb(image).save(png, "PNG", compress_level=1)
  except Exception:  # Pillow's decoders raise all sorts.
    return data
  return png.getvalue()
