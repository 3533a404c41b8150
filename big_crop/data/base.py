"""What a dataset source is, and one whose examples are reached by index."""

from collections.abc import Callable, Sequence
from typing import Protocol

import tensorflow as tf

from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean


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
      skip: int64 scalar: examples to leave out at the start.
      repeats: how often an example comes in a row. An epoch is as long as it
        is with 1, so that only the first examples of the order, one in
        `repeats`, are in it.

    Returns:
      A dataset of feature dicts, among them `"_index"` (int64) and `"_repeat"`
      (int64, 0 to `repeats` - 1). It may be built inside a `tf.data` function:
      `seed` and `skip` may be graph tensors.
    """
    ...

  def describe(self, index: int) -> str:
    """The file, or the record of a file, that example `index` is."""
    ...


def check_split(split: str, sizes: dict[str, int], dataset: str):
  """Turns a split spec into absolute ranges, with TFDS's own parser.

  Args:
    split: e.g. `"train[:90%]+validation"`, or `"all"`.
    sizes: examples in each split.
    dataset: its name, for the error.

  Returns:
    [(split name, first, end)].

  Raises:
    ValueError: unknown split or bad slice.
  """
  import tensorflow_datasets as tfds

  infos = {k: _Size(n) for k, n in sizes.items()}
  try:
    instruction = tfds.core.ReadInstruction.from_spec(split)
    parts = instruction.to_absolute(infos)
  except (ValueError, NotImplementedError) as e:
    name = split.split("[")[0]
    reason = str(e).splitlines()[0]
    if name not in (*sizes, "all"):
      reason = f"no such split; {did_you_mean(name, sizes)}"
    raise UserError(f"split {split!r} of {dataset}: {reason}") from None
  return [
    (p.splitname, p.from_ or 0, sizes[p.splitname] if p.to is None else p.to)
    for p in parts
  ]


class _Size:
  """As much of a `tfds.core.SplitInfo` as `to_absolute` reads."""

  def __init__(self, num_examples):
    self.num_examples = num_examples


def host_range(total: int, shard: tuple[int, int]) -> tuple[int, int]:
  """First and end of one host's even share of `total` examples."""
  index, count = shard
  return total * index // count, total * (index + 1) // count


class IndexedSource:
  """A source whose examples are reached by index, shuffled as a whole.

  The order is one permutation of the split for each seed, dealt to the hosts
  in turn, so that it does not depend on their number.
  """

  def __init__(
    self,
    contents: Sequence,
    labels: Sequence[int],
    indices: Sequence[int],
    class_names: Sequence[str],
    shard: tuple[int, int],
    *,
    are_paths: bool,
    describe: Callable[[int], str],
  ):
    """Makes a source of `contents[i]` for i in `indices`.

    Args:
      contents: encoded images, or their paths.
      labels: class of each.
      indices: which of them this split has; also the examples' `"_index"`.
      class_names: of all classes, in the order of their labels.
      shard: (index, count) of this host's share.
      are_paths: whether the contents are paths to be read.
      describe: index -> str.
    """
    self._contents = tf.constant(list(contents))
    self._labels = tf.constant(list(labels), tf.int64)
    self._indices = tf.constant(list(indices), tf.int64)
    self._shard = shard
    self._are_paths = are_paths
    self.describe = describe
    self.class_names = list(class_names)
    self.num_classes = len(self.class_names)
    self.total_examples = len(indices)
    self.num_examples = len(range(shard[0], len(indices), shard[1]))

  def epoch(self, seed, skip=0, repeats=1):
    index, count = self._shard
    order = self._indices
    if seed is not None:
      order = tf.random.experimental.stateless_shuffle(order, seed)
    places = tf.range(self.total_examples, dtype=tf.int64)[index::count]
    mine = tf.gather(order, places // repeats), places % repeats
    skip = tf.cast(skip, tf.int64)
    return tf.data.Dataset.from_tensor_slices(
      tuple(x[skip:] for x in mine)
    ).map(self._fetch)

  def _fetch(self, index, repeat):
    content = self._contents[index]
    if self._are_paths:
      content = tf.io.read_file(content)
    name = {"file_name": self._contents[index]} if self._are_paths else {}
    return {
      **name,
      "image": content,
      "label": self._labels[index],
      "_index": index,
      "_repeat": repeat,
    }
