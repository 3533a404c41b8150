"""Dataset -> seeded, sharded, resumable batches of NumPy arrays.

A host's training examples form one endless stream: its share of the split in
the order of epoch 0, then of epoch 1, and so on. A batch is a run of
consecutive examples of that stream, and may span two epochs. A resumed run
enters the stream at a position. How an example is augmented depends only on the
run's seed, the epoch, the example's index and the number of its repeat
(`pp_ops.random`).
"""

import contextlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
import tensorflow as tf
from jax.sharding import Mesh

from big_crop.data.base import Source
from big_crop.data.batches import (
  Batch,
  Features,
  ahead,
  check_features,
  check_repeats,
  names_of,
)
from big_crop.runtime import sharding
from pp_ops.errors import UserError
from pp_ops.random import example_seed
from pp_ops.registry import SEED, get_preprocess_fn, lookup

__all__ = ["get_preprocess_fn", "lookup"]  # part of an engine, see `batches`
OPTIONS = ("num_parallel_calls", "skip_corrupt")

# The seed of an epoch's order is made with this index, which no example has.
_SHUFFLE_INDEX = -1

# Errors of images that do not decode and of files that cannot be read.
_UNREADABLE = (
  tf.errors.DataLossError,
  tf.errors.FailedPreconditionError,
  tf.errors.InvalidArgumentError,
  tf.errors.NotFoundError,
  tf.errors.PermissionDeniedError,
  tf.errors.UnknownError,
)

# TensorFlow must leave the accelerator to JAX.
tf.config.set_visible_devices([], "GPU")
# Examples run in parallel. TensorFlow's default also spreads the ops of one
# example over threads, which costs up to a tenth more.
with contextlib.suppress(RuntimeError):  # if TensorFlow has been started
  tf.config.threading.set_intra_op_parallelism_threads(1)


def _stream(source, seed, start, repeats):
  """Raw training examples from position `start` on, with `"_epoch"`."""
  num = source.num_examples
  first_epoch, first_skip = divmod(start, num)

  def one_epoch(epoch):
    order = example_seed(seed, epoch, tf.constant(_SHUFFLE_INDEX, tf.int64))
    skip = tf.where(epoch == first_epoch, tf.constant(first_skip, tf.int64), 0)
    return source.epoch(order, skip, repeats).map(
      lambda features: {**features, "_epoch": epoch}
    )

  return tf.data.Dataset.range(first_epoch, 1 << 24).flat_map(one_epoch)


def _one_pass(source, start=0):
  """Raw examples in stored order from `start` on, with `"_epoch"` 0."""
  return source.epoch(None, start).map(
    lambda features: {**features, "_epoch": tf.constant(0, tf.int64)}
  )


def _pop_seed(example, seed):
  place = [example.pop(k) for k in ("_epoch", "_index", "_repeat")]
  return example_seed(seed, *place)


def _preprocessed(raw, pp, features, seed=0, start=0, num_parallel_calls=None):
  """Examples of `raw` after the pp function, with their `"_position"`."""

  @tf.autograph.experimental.do_not_convert
  def process(position, example):
    example[SEED] = _pop_seed(example, seed)
    out = pp(example)
    kept = {k: out[k] for k in names_of(features) if k in out}
    return {**kept, "_position": position}

  ds = raw.enumerate(start).map(
    process,
    num_parallel_calls=num_parallel_calls or tf.data.AUTOTUNE,
    deterministic=True,
  )
  check_features(ds.element_spec, features)
  for name, feature in ds.element_spec.items():
    if not (feature.dtype.is_floating or feature.dtype.is_integer):
      raise UserError(
        f"the pp string leaves {name!r} as {feature.dtype.name}: decode it"
      )
    if not feature.shape.is_fully_defined():
      raise UserError(
        f"the pp string leaves {name!r} with shape {feature.shape}: a batch "
        "needs a fixed one (give the crop or resize a size)"
      )
  return ds


def _batches(
  raw_from,
  source,
  pp,
  features,
  batch_size,
  *,
  seed,
  start=0,
  num_parallel_calls=None,
  skip_corrupt=False,
):
  """Batches of the raw examples `raw_from(start)`; the last may be short.

  A corrupt example is left out if `skip_corrupt`; else the error names it.
  """
  ds = _preprocessed(
    raw_from(start), pp, features, seed, start, num_parallel_calls
  )
  if skip_corrupt:
    ds = ds.ignore_errors()
  options = tf.data.Options()
  options.deterministic = True
  batches = ds.batch(batch_size).prefetch(2).with_options(options)
  batches, position = batches.as_numpy_iterator(), start
  while True:
    try:
      batch = next(batches)
    except StopIteration:
      return
    except _UNREADABLE as e:
      try:
        name, why = _find_corrupt(
          raw_from(position), pp, seed, source, batch_size
        )
      except _UNREADABLE as e:  # the file itself cannot be read
        name, why = e.message.splitlines()[0].split("} ")[-1], "cannot be read"
      raise UserError(
        f"corrupt example: {name or 'not found again'}: {why or e.message}; "
        "set skip_corrupt=True to leave such images out"
      ) from None
    places = batch.pop("_position")
    end = int(places[-1]) + 1
    yield Batch(batch, None, end, end - position - len(places))
    position = end


def _find_corrupt(raw, pp, seed, source, num):
  """(name, reason) of the first of `num` raw examples that does not decode."""
  for example in raw.take(num):
    index = int(example["_index"])
    example[SEED] = _pop_seed(example, seed)
    try:
      pp(example)
    except tf.errors.InvalidArgumentError as e:
      reason = (e.message or str(e)).splitlines()[0]
      # The name of the graph's op, which means nothing to a user, is cut off.
      return source.describe(index), reason.split("} ")[-1].split(" [Op:")[0]
  return None, None


def _check_any(source, pp, features, seed):
  """Raises if no example can be used: training would wait for one forever."""
  usable = _preprocessed(_one_pass(source), pp, features, seed).ignore_errors()
  if next(iter(usable), None) is None:
    name, why = _find_corrupt(_one_pass(source), pp, seed, source, 1)
    raise UserError(f"no example can be used; the first is {name}: {why}")


def feature_specs(
  source: Source, pp: Callable, features: Features
) -> dict[str, jax.ShapeDtypeStruct]:
  """See `big_crop.data.batches`."""
  spec = _preprocessed(_one_pass(source), pp, features).element_spec
  return {
    k: jax.ShapeDtypeStruct(tuple(v.shape), v.dtype.as_numpy_dtype)
    for k, v in spec.items()
    if k != "_position"
  }


def train_batches(
  source: Source,
  pp: Callable,
  features: Features,
  batch_size: int,
  *,
  seed: int,
  start: int = 0,
  repeats: int = 1,
  **options,
) -> Iterator[Batch]:
  """This host's endless training batches, in host memory.

  Args:
    source: this host's share; see `batches` for all arguments.
    pp: the function that `get_preprocess_fn` made.
    features: names of the features that the batches hold.
    batch_size: examples per batch on this host.
    seed: the run's seed.
    start: how many examples of the stream to skip, a `Batch.position`.
    repeats: how many times in a row an image comes.
    **options: num_parallel_calls, the number of preprocessing threads, which
      does not change the batches (by default TensorFlow decides); skip_corrupt,
      to leave out examples that do not decode, rather than raise.
  """
  check_repeats(repeats)
  if options.get("skip_corrupt"):
    _check_any(source, pp, features, seed)
  raw_from = lambda position: _stream(source, seed, position, repeats)
  given = dict(seed=seed, start=start, **options)
  return _batches(raw_from, source, pp, features, batch_size, **given)


def eval_batches(
  source: Source,
  pp: Callable,
  features: Features,
  batch_size: int,
  *,
  num_hosts: int = 1,
  seed: int = 0,
  **options,
) -> Iterator[Batch]:
  """Every example of this host's share once, in stored order, with a mask.

  All `num_hosts` hosts get the same number of batches; the last ones are
  padded. For the other arguments see `train_batches`.
  """
  raw_from = lambda position: _one_pass(source, position)
  batches = _batches(
    raw_from, source, pp, features, batch_size, seed=seed, **options
  )
  largest_share = -(-source.total_examples // num_hosts)
  for _ in range(-(-largest_share // batch_size)):
    if (batch := next(batches, None)) is None:
      specs = feature_specs(source, pp, features)
      empty = {k: np.zeros((0, *v.shape), v.dtype) for k, v in specs.items()}
      batch = Batch(empty, None, 0, 0)
    num = len(next(iter(batch.data.values())))
    pad = lambda x, n=num: np.pad(
      x, [(0, batch_size - n)] + [(0, 0)] * (x.ndim - 1)
    )
    yield batch._replace(
      data={k: pad(v) for k, v in batch.data.items()},
      mask=(np.arange(batch_size) < num).astype(np.float32),
    )


def device_batches(
  *args, mesh: Mesh, **options
) -> Iterator[tuple[dict[str, jax.Array], Batch]]:
  """The batches of `train_batches` on the devices, sent ahead of use."""
  return ahead(
    (sharding.make_global_batch(b.data, mesh), b._replace(data={}))
    for b in train_batches(*args, **options)
  )


def eval_device_batches(
  *args, mesh: Mesh, **options
) -> Iterator[tuple[dict[str, jax.Array], int]]:
  """`eval_batches` on the devices; see `big_crop.data.batches`."""
  for b in eval_batches(*args, num_hosts=jax.process_count(), **options):
    arrays = sharding.make_global_batch({**b.data, "mask": b.mask}, mesh)
    yield arrays, int(b.mask.sum())


def apply(pp: Callable, images: np.ndarray) -> np.ndarray:
  """Images [N, H, W, C] after a pp function whose ops are all on the image."""
  return np.stack([pp({"image": tf.constant(x)})["image"] for x in images])


def describe(source: Source, mesh: Mesh, **options) -> str:
  """Where the data are: this engine has nothing to say."""
  del source, mesh, options
  return ""
