"""What evaluators read: every example of a split exactly once, sharded."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from big_crop import config_checks
from big_crop.data import batches, sources
from big_crop.runtime import memory, sharding
from pp_ops.checks import check_number
from pp_ops.errors import UserError


class EvalData:
  """A split with its preprocessing, opened once and read as often as need be.

  Attributes:
    source: this host's share.
    asked: the arguments of `sources.get_source` that it was opened with.
    features: names of the wanted features that the pp string leaves.
    skip_corrupt: whether `batches` may lack examples.
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
      seed: the run's, for a pp string with random ops.
      data: arguments of `sources.get_source`.
      pp_fn: the pp string.
      features: what it must leave, see `batches.Features`.
      batch_size: over all devices; a last, smaller batch is padded.
      engine: what runs the pp string, see `batches.ENGINES`.
      skip_corrupt: leave out images that do not decode, rather than fail.
      num_parallel_calls: threads; TensorFlow chooses by default.

    Raises:
      ValueError: if any of it is wrong.
    """
    self._mesh, self._num_hosts = mesh, jax.process_count()
    config_checks.check_data("data", data)
    self.asked = data
    check_number("batch_size", batch_size, 1, whole=True)
    sharding.check_batch_size(batch_size, mesh)
    self._local_batch_size = batch_size // self._num_hosts
    self.source = sources.get_source(
      **data, shard=(jax.process_index(), self._num_hosts)
    )
    if not self.source.total_examples:
      raise UserError(f"split {data['split']!r} has no examples")
    self._engine = batches.engine(engine)
    self._pp = self._engine.get_preprocess_fn(pp_fn)
    self._wanted = features
    specs = self._engine.feature_specs(self.source, self._pp, features)
    memory.check({"a batch": sharding.batch_of(specs, batch_size, mesh)}, mesh)
    self.features = set(specs)
    self.skip_corrupt = skip_corrupt
    given = dict(
      skip_corrupt=skip_corrupt, num_parallel_calls=num_parallel_calls
    )
    given = {k: v for k, v in given.items() if k in self._engine.OPTIONS}
    self._options = dict(seed=seed, **given)

  def batches(self) -> Iterator[tuple[dict[str, jax.Array], int]]:
    """Reads the split in stored order.

    Returns:
      An iterator: global arrays [B, ...] by feature, with "mask" [B] float32,
      0 for padding; and how many examples of this host are in the batch.
    """
    return self._engine.eval_device_batches(
      self.source,
      self._pp,
      self._wanted,
      self._local_batch_size,
      mesh=self._mesh,
      **self._options,
    )
