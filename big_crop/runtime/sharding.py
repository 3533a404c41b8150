"""Meshes of devices, and the sharding of arrays by rules."""

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from big_crop import names, trees
from pp_ops import registry
from pp_ops.errors import UserError

# Anything with a shape and a dtype -> how to split it.
Rule = Callable[[Any], PartitionSpec]

_WHERE = "config.sharding_strategy"


def make_mesh(
  axes: Sequence[tuple[str, int]], devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Arranges the devices in a mesh; a batch is split over all of its axes.

  `axes` are (name, size) pairs, e.g. `[("data", 2), ("fsdp", 4)]`. One size may
  be -1, which stands for all devices that the other sizes leave.
  """
  devices = jax.devices() if devices is None else devices
  if not axes:
    raise UserError("config.mesh is empty: need at least one axis")
  axis_names, sizes = zip(*axes, strict=True)
  if len(set(axis_names)) < len(axis_names):
    raise UserError(f"config.mesh={axes!r}: need names that differ")
  known = math.prod(size for size in sizes if size != -1)
  shape = tuple(
    len(devices) // known if size == -1 and known > 0 else size
    for size in sizes
  )
  if (
    sizes.count(-1) > 1
    or any(size < 1 for size in shape)
    or math.prod(shape) != len(devices)
  ):
    raise UserError(
      f"config.mesh: {[tuple(axis) for axis in axes]} does not arrange"
      f" {len(devices)} devices; use sizes whose product is {len(devices)}"
      " (one of them may be -1)."
    )
  # The types are given, because newer versions of JAX would otherwise make the
  # axes explicit and shardings part of an array's type.
  types = (AxisType.Auto,) * len(shape)
  return jax.make_mesh(shape, axis_names, types, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that puts the whole array on each device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, batch_dim: int = 0) -> NamedSharding:
  """Returns the sharding that splits `batch_dim` over all axes of the mesh."""
  spec = (None,) * batch_dim + (mesh.axis_names,)
  return NamedSharding(mesh, PartitionSpec(*spec))


def make_global_batch(
  batch: Mapping[str, np.ndarray], mesh: Mesh
) -> dict[str, jax.Array]:
  """Puts a batch on the devices, split over all of them.

  Each process passes its part, arrays [local batch, ...], where all local
  batches have the same size. Returns arrays [global batch, ...].
  """
  sharding = batch_sharding(mesh)
  return {
    key: jax.make_array_from_process_local_data(sharding, value)
    for key, value in batch.items()
  }


def batch_of(
  specs: Mapping[str, jax.ShapeDtypeStruct], batch_size: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of `make_global_batch`'s arrays, from those of one example."""
  sharding = batch_sharding(mesh)
  return {
    k: jax.ShapeDtypeStruct((batch_size, *v.shape), v.dtype, sharding=sharding)
    for k, v in specs.items()
  }


def check_batch_size(
  batch_size: int, mesh: Mesh, grad_accum: int = 1, where: str = "batch size"
) -> None:
  """Raises unless devices get equally many examples of each microbatch.

  `batch_size` counts the examples on all devices. The error names the nearest
  sizes that work; it calls the batch size `where`.
  """
  unit = mesh.size * grad_accum
  if batch_size > 0 and batch_size % unit == 0:
    return
  below = max(batch_size, 0) // unit * unit
  nearest = f"{below} and {below + unit}" if below else f"{unit}"
  parts = f"{mesh.size} devices"
  if grad_accum > 1:
    parts += f" x {grad_accum} accumulation steps"
  raise UserError(
    f"{where} {batch_size} is not divisible by {parts};"
    f" nearest {'are' if below else 'is'} {nearest}"
  )


def infer_sharding(
  tree: Any,
  mesh: Mesh,
  strategy: Sequence[tuple[str, str]],
  known: Sequence[str] | None = None,
) -> Any:
  """Finds a sharding for each leaf of a tree.

  Args:
    tree: arrays, or anything with shape and dtype.
    mesh: the mesh.
    strategy: (regex, rule) pairs over parameter names. The first match wins;
      without a match an array is replicated. A rule is `replicate`, or
      `fsdp(axis="data", min_size_to_shard_mb=0.0625)`, which splits the largest
      dimension that the axis (or tuple of axes) divides, and replicates arrays
      that are smaller than the minimum in MiB.
    known: the names that the patterns are matched with, usually those of the
      parameters; by default all names of `tree`. A leaf of `tree` whose name
      ends with a known name follows that name's rule, for example moments in an
      optimiser state, and averages. All other leaves, such as counters and
      running statistics, are replicated.

  Returns:
    The tree with a `NamedSharding` for each leaf.

  Raises:
    ValueError: in one line, for patterns that match nothing, unknown rules and
      wrong arguments.
  """
  if known is None:
    known = [name for name, _ in trees.named_leaves(tree)]
  index_of = dict.fromkeys(known)
  index_of |= trees.first_match(known, strategy, _WHERE)
  rules = [_parse_rule(rule, mesh) for _, rule in strategy]

  def shard(name, leaf):
    parts = name.split("/")
    suffixes = ("/".join(parts[i:]) for i in range(len(parts)))
    index = next((index_of[s] for s in suffixes if s in index_of), None)
    spec = PartitionSpec() if index is None else rules[index](leaf)
    return NamedSharding(mesh, spec)

  return trees.map_with_names(shard, tree)


def bytes_per_device(tree: Any) -> int:
  """Returns the bytes of a tree of arrays on this process's fullest device."""
  total = collections.Counter()
  for leaf in jax.tree.leaves(tree):
    for shard in leaf.addressable_shards:
      total[shard.device] += shard.data.nbytes
  return max(total.values(), default=0)


def _replicate(mesh: Mesh) -> Rule:
  del mesh
  return lambda leaf: PartitionSpec()


def _fsdp(
  mesh: Mesh,
  axis: str | tuple[str, ...] = "data",
  min_size_to_shard_mb: float = 0.0625,
) -> Rule:
  axes = (axis,) if isinstance(axis, str) else tuple(axis)
  for name in axes:
    if name not in mesh.axis_names:
      raise names.unknown(f"{_WHERE}: axis of fsdp", name, mesh.axis_names)
  parts = math.prod(mesh.shape[name] for name in axes)

  def rule(leaf):
    size_mb = math.prod(leaf.shape) * leaf.dtype.itemsize / 2**20
    divisible = [d for d in leaf.shape if d % parts == 0]
    if size_mb < min_size_to_shard_mb or not divisible:
      return PartitionSpec()
    return PartitionSpec(*[None] * leaf.shape.index(max(divisible)), axes)

  return rule


_RULES = {"replicate": _replicate, "fsdp": _fsdp}


def _parse_rule(text: str, mesh: Mesh) -> Rule:
  """Builds the rule that `name` or `name(key=literal, ...)` stands for."""
  try:
    [(name, args, kwargs)] = registry.parse(text)
  except ValueError:
    raise UserError(
      f"{_WHERE}: {text!r} is not a rule such as 'fsdp(axis=\"data\")'."
    ) from None
  if name not in _RULES:
    raise names.unknown(_WHERE, name, _RULES)
  names.check_arguments(_WHERE, _RULES[name], kwargs)
  try:
    return _RULES[name](mesh, *args, **kwargs)
  except TypeError as e:
    raise UserError(f"{_WHERE}: {text!r}: {e}.") from None
