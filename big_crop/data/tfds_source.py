"""Prepared TFDS datasets: sequential TFRecord files, shuffled while streaming.

TFDS's own reader fixes its shuffle seed when the graph is built. Here the
files' order and the shuffle buffer are functions of a seed tensor, so that one
graph serves all epochs and any of them can be entered in the middle.
"""

import bisect
import difflib

import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from big_crop.data import base
from pp_ops.errors import UserError

# How many files are read at a time; part of the definition of the order.
_CYCLE, _BLOCK = 16, 16


def open_name(name, data_dir, split, shard, shuffle_buffer_size):
  """Opens a dataset by its TFDS name; see `sources.get_source`."""
  where = data_dir or tfds.core.constants.DATA_DIR
  try:
    builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
  except tfds.core.DatasetNotFoundError:
    known = ["critters", "folder", *tfds.list_builders()]
    if (parent := epath.Path(where)).is_dir():
      known += [p.name for p in parent.iterdir() if p.is_dir()]
    near = difflib.get_close_matches(name, known, n=1)
    near = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(
      f"dataset {name!r} is not there: no folder of that name and no TFDS "
      f"dataset in {where}{near}"
    ) from None
  except ValueError as e:  # no name, or no such config of the dataset
    raise UserError(f"dataset {name!r}: {str(e).splitlines()[0]}") from None
  if not builder.info.splits:
    raise UserError(
      f"dataset {name!r} is not prepared in {where}: prepare it with "
      f"`tfds build {name} --data_dir {where}`"
    )
  return TfdsSource(builder, split, shard, shuffle_buffer_size)


def open_directory(path, split, shard, shuffle_buffer_size):
  """Opens a prepared dataset's directory; see `sources.get_source`."""
  try:
    builder = tfds.builder_from_directory(path)
  except ValueError as e:  # json's and protobuf's errors are such
    raise UserError(
      f"{path}/dataset_info.json is damaged: {str(e).splitlines()[0]}"
    ) from None
  return TfdsSource(builder, split, shard, shuffle_buffer_size)


class TfdsSource:
  """See `base.Source`; `splits` is {split name: examples}."""

  def __init__(self, builder, split, shard, shuffle_buffer_size):
    info = builder.info
    if info.file_format != tfds.core.file_adapters.FileFormat.TFRECORD:
      raise UserError(
        f"dataset {info.full_name} is stored as {info.file_format.value}: only "
        "tfrecord is read; prepare it with --file_format=tfrecord"
      )
    self.splits = {k: s.num_examples for k, s in info.splits.items()}
    parts = base.check_split(split, self.splits, f"dataset {info.full_name}")
    self.full_name = info.full_name
    self._features = info.features
    labels = dict(info.features.items()).get("label")
    self.num_classes = getattr(labels, "num_classes", None)
    self.class_names = getattr(labels, "names", None)
    # Records are numbered through all files of all splits.
    self._files, self._starts, count = [], [], 0
    pieces = []  # (file number, first record in the file, records)
    self._pieces_of = {}  # the same of each split as a whole
    for name, info_of_split in sorted(info.splits.items()):
      at = 0  # examples of the split before this file
      whole = self._pieces_of[name] = []
      for file, length in zip(
        info_of_split.filepaths, info_of_split.shard_lengths, strict=True
      ):
        for part, first, end in parts:
          lo, hi = max(first, at), min(end, at + length)
          if part == name and lo < hi:
            pieces.append((len(self._files), lo - at, hi - lo))
        whole.append((len(self._files), 0, length))
        self._files.append(str(file))
        self._starts.append(count)
        at, count = at + length, count + length
    self.total_examples = sum(n for _, _, n in pieces)
    self._pieces = _share(pieces, *base.host_range(self.total_examples, shard))
    self.num_examples = sum(n for _, _, n in self._pieces)
    self._buffer = shuffle_buffer_size
    self._decoders = {
      k: tfds.decode.SkipDecoding()
      for k, f in info.features.items()
      if isinstance(f, tfds.features.Image)
    }

  def epoch(self, seed, skip=0, repeats=1):
    pieces = tf.reshape(tf.constant(self._pieces, tf.int64), [-1, 3])
    if seed is not None:
      pieces = tf.random.experimental.stateless_shuffle(pieces, seed)
    files = tf.constant(self._files)
    starts = tf.constant(self._starts, tf.int64)

    def read(piece):
      file, first, num = piece[0], piece[1], piece[2]
      records = tf.data.TFRecordDataset(files[file], buffer_size=1 << 20)
      return records.skip(first).take(num).enumerate(starts[file] + first)

    ds = tf.data.Dataset.from_tensor_slices(pieces).interleave(
      read,
      cycle_length=_CYCLE,
      block_length=_BLOCK,
      num_parallel_calls=tf.data.AUTOTUNE,
      deterministic=True,
    )
    if seed is not None and self.num_examples:
      ds = ds.shuffle(
        min(self._buffer, self.num_examples),
        seed=tf.random.stateless_uniform([], seed, None, None, tf.int64),
        reshuffle_each_iteration=False,
      )
    if repeats > 1:
      ds = ds.flat_map(
        lambda *x: tf.data.Dataset.range(repeats).map(lambda i: (*x, i))
      ).take(self.num_examples)
    else:
      ds = ds.map(lambda *x: (*x, tf.constant(0, tf.int64)))
    return ds.skip(skip).map(self._parse)

  def _parse(self, index, record, repeat):
    features = self._features.deserialize_example(
      record, decoders=self._decoders
    )
    return {**features, "_index": index, "_repeat": repeat}

  def records(self, split: str, start: int = 0) -> tf.data.Dataset:
    """A whole split's examples from place `start` on, in their files' order.

    Args:
      split: a split's name.
      start: how many examples to leave out at the beginning.

    Returns:
      A dataset as `epoch` makes it, but for the order.
    """
    pieces = _share(self._pieces_of[split], start, self.splits[split])

    def read(file, index, skip, num):
      records = tf.data.TFRecordDataset(file, buffer_size=1 << 20)
      return records.skip(skip).take(num).enumerate(index)

    files = [self._files[file] for file, _, _ in pieces]
    starts = [self._starts[file] + skip for file, skip, _ in pieces]
    ds = tf.data.Dataset.from_tensor_slices(
      (
        tf.constant(files, tf.string),
        tf.constant(starts, tf.int64),
        tf.constant([skip for _, skip, _ in pieces], tf.int64),
        tf.constant([num for _, _, num in pieces], tf.int64),
      )
    )
    zero = tf.constant(0, tf.int64)
    return ds.flat_map(read).map(lambda *x: self._parse(*x, zero))

  def files(self, split: str) -> list[str]:
    """A split's files."""
    return [self._files[file] for file, _, _ in self._pieces_of[split]]

  def name(self, split: str, place: int) -> str:
    """The record that is a split's example number `place` in `records`."""
    [(file, skip, _)] = _share(self._pieces_of[split], place, place + 1)
    return self.describe(self._starts[file] + skip)

  def describe(self, index):
    file = bisect.bisect_right(self._starts, index) - 1
    return f"record {index - self._starts[file]} of {self._files[file]}"


def _share(pieces, first, end):
  """The parts of `pieces` that hold records first..end-1 of their sequence."""
  out, start = [], 0
  for file, skip, num in pieces:
    lo, hi = max(first, start), min(end, start + num)
    if lo < hi:
      out.append((file, skip + lo - start, hi - lo))
    start += num
  return out
