"""Data of evaluators: every example of a split exactly once, sharded."""

import copy
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from big_crop.config import checks
from big_crop.data import batches, sources
from big_crop.runtime import memory, sharding
from pp_ops.checks import check_number
from pp_ops.errors import UserError


class EvalData:
  """A split with its preprocessing, opened once and read any number of times.

  Attributes:
    source: this host's share.
    asked: the arguments of `sources.get_source` that opened the source.
    engine: the module that runs the pp string, see `batches`.
    pp_fn: the pp string.
    features: names of the wanted features that the pp string leaves.
    skip_corrupt: whether `batches` leaves out images that do not decode.
  """

  def __init__(
    self,
    mesh: Mesh,
    *,
    seed: int,
    data: dict[str, Any],
    pp_fn: str,
    features: batches.Features,
    batch_size: int,
    engine: str = "tf.data",
    skip_corrupt: bool = False,
    num_parallel_calls: int | None = None,
  ):
    """Opens the data.

    Args:
      mesh: the mesh.
      seed: the run's seed, for a pp string with random ops.
      data: arguments of `sources.get_source`.
      pp_fn: the pp string.
      features: names that the pp string must leave, see `batches.Features`.
      batch_size: examples per batch over all devices; the last one is padded.
      engine: what runs the pp string, see `batches.ENGINES`.
      skip_corrupt: leave out images that do not decode, rather than fail.
      num_parallel_calls: threads; by default TensorFlow decides.

    Raises:
      ValueError: in one line, for a wrong argument.
    """
    self._mesh, self._num_hosts = mesh, jax.process_count()
    checks.check_data("data", data)
    self.asked = data
    check_number("batch_size", batch_size, 1, whole=True)
    sharding.check_batch_size(batch_size, mesh)
    self._local_batch_size = batch_size // self._num_hosts
    self.source = sources.get_source(
      **data, shard=(jax.process_index(), self._num_hosts)
    )
    if not self.source.total_examples:
      raise UserError(f"split {data['split']!r} has no examples")
    self._wanted = features
    self._batch_size = batch_size
    self._seed = seed
    self.skip_corrupt = skip_corrupt
    self._given = dict(
      skip_corrupt=skip_corrupt, num_parallel_calls=num_parallel_calls
    )
    self._preprocess(pp_fn, engine)

  def _preprocess(self, pp_fn, engine):
    self.engine, self.pp_fn = batches.engine(engine), pp_fn
    self._pp = self.engine.get_preprocess_fn(pp_fn)
    specs = self.engine.feature_specs(self.source, self._pp, self._wanted)
    batch = sharding.batch_of(specs, self._batch_size, self._mesh)
    memory.check({"a batch": batch}, self._mesh)
    self.features = set(specs)
    given = {k: v for k, v in self._given.items() if k in self.engine.OPTIONS}
    self._options = dict(seed=self._seed, **given)

  def through(self, pp_fn: str, engine: str) -> "EvalData":
    """The same examples through another pp string; the source is shared.

    Raises:
      ValueError: if the string or the engine does not fit.
    """
    other = copy.copy(self)
    other._preprocess(pp_fn, engine)
    return other

  def batches(self) -> Iterator[tuple[dict[str, jax.Array], int]]:
    """Reads the split in stored order.

    Returns:
      An iterator of pairs: global arrays [B, ...] by feature, with "mask" [B]
      float32, which is 0 for padding; and the number of this host's examples in
      the batch.
    """
    return self.engine.eval_device_batches(
      self.source,
      self._pp,
      self._wanted,
      self._local_batch_size,
      mesh=self._mesh,
      **self._options,
    )
