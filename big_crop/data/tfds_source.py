"""Prepared TFDS datasets: sequential TFRecord files, shuffled while streaming.

TFDS's own reader fixes its shuffle seed when the graph is built. Here the order
of files and the shuffle buffer are functions of a seed tensor, so that one
graph serves all epochs, and an epoch can be entered in the middle.
"""

import bisect
import contextlib
import difflib

import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from big_crop.data import base
from pp_ops.errors import UserError

# How many files are read in parallel, and how many records of one before the
# next. Both are part of the definition of the order.
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
  except ValueError as e:  # an invalid name, or no such config of the dataset
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
  except ValueError as e:  # the base of json's and protobuf's errors
    raise UserError(
      f"{path}/dataset_info.json is damaged: {str(e).splitlines()[0]}"
    ) from None
  return TfdsSource(builder, split, shard, shuffle_buffer_size)


class TfdsSource:
  """A TFDS dataset as a `base.Source`.

  Attributes, besides the protocol's:
    splits: {split: number of examples}.
    full_name: the dataset's name with config and version.
  """

  def __init__(self, builder, split, shard, shuffle_buffer_size):
    info = builder.info
    if info.file_format != tfds.core.file_adapters.FileFormat.TFRECORD:
      raise UserError(
        f"dataset {info.full_name} is stored as {info.file_format.value}: only "
        "tfrecord is read; prepare it with --file_format=tfrecord"
      )
    self.splits = {k: s.num_examples for k, s in info.splits.items()}
    parts = base.check_split(split, self.splits, f"dataset {info.full_name}")
    self._builder, self.full_name = builder, info.full_name
    self._features = info.features
    labels = dict(info.features.items()).get("label")
    self.num_classes = getattr(labels, "num_classes", None)
    self.class_names = getattr(labels, "names", None)
    # Records are numbered through all files of all splits.
    self._files, self._starts, count = [], [], 0
    pieces = []  # (file number, first record in the file, records)
    for name, info_of_split in sorted(info.splits.items()):
      at = 0  # examples of the split before this file
      for file, length in zip(
        info_of_split.filepaths, info_of_split.shard_lengths, strict=True
      ):
        for part, first, end in parts:
          lo, hi = max(first, at), min(end, at + length)
          if part == name and lo < hi:
            pieces.append((len(self._files), lo - at, hi - lo))
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
    pieces, cycle = self._pieces, _CYCLE
    if seed is None:  # in stored order; records before `skip` are not read
      pieces, skip, cycle = _share(pieces, skip, self.num_examples), 0, 1
    pieces = tf.reshape(tf.constant(pieces, tf.int64), [-1, 3])
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
      cycle_length=cycle,
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

  def stored(self, split, start=0):
    """See `base.IndexedSource.stored`."""
    with contextlib.suppress(RuntimeError):  # if TensorFlow has been started
      tf.config.set_visible_devices([], "GPU")
    source = TfdsSource(self._builder, split, (0, 1), 0)
    try:
      examples = source.epoch(None, start)
      spec = examples.element_spec
      for key, dtypes in [
        ("image", (tf.string,)),
        ("label", (tf.int64, tf.int32, tf.uint8)),
      ]:
        found = spec.get(key)
        if found is None or found.dtype not in dtypes or found.shape.rank:
          raise UserError(
            f"dataset {self.full_name}: packing needs records of an encoded "
            f"image and a whole number as label, {key!r} is {found}"
          )
      # Other features are dropped here, so that they are not copied to NumPy.
      kept = examples.map(lambda x: (x["_index"], x["image"], x["label"]))
      for index, image, label in kept.prefetch(256).as_numpy_iterator():
        yield source.describe(index), image, int(label)
    except tf.errors.OpError as e:
      reason = (e.message or str(e)).splitlines()[0]
      raise UserError(
        f"dataset {self.full_name}, split {split!r}: {reason}"
      ) from None

  def files(self, split):
    """See `base.IndexedSource.files`."""
    return list(map(str, self._builder.info.splits[split].filepaths))

  def describe(self, index):
    file = bisect.bisect_right(self._starts, index) - 1
    return f"record {index - self._starts[file]} of {self._files[file]}"


def _share(pieces, first, end):
  """The parts of `pieces` that hold records first..end-1 of all their records.

  A piece is (file number, first record in the file, number of records).
  """
  out, start = [], 0
  for file, skip, num in pieces:
    lo, hi = max(first, start), min(end, start + num)
    if lo < hi:
      out.append((file, skip + lo - start, hi - lo))
    start += num
  return out
