"""Checks that a run's arrays fit into memory, before any of them is made."""

import contextlib
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from pp_ops.errors import UserError

_CGROUP = (
  "/sys/fs/cgroup/memory.max",
  "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def _of_machine():
  """Bytes of this machine's memory, or of the container's share of it."""
  found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
  for path in _CGROUP:
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
      found.append(int(pathlib.Path(path).read_text()))
  return min(found)


def _bytes(x):
  """Bytes of an array on one device."""
  shape = x.shape
  if getattr(x, "sharding", None) is not None:
    shape = x.sharding.shard_shape(shape)
  return math.prod(shape) * x.dtype.itemsize


def check(parts: Mapping[str, Any], mesh: jax.sharding.Mesh) -> None:
  """Raises unless the arrays that a step needs at least fit into memory.

  `parts` is {name for the error message: tree of `jax.ShapeDtypeStruct` with
  the shardings that the arrays will have on the mesh}.
  """
  device = mesh.local_devices[0]
  limit = (device.memory_stats() or {}).get("bytes_limit")
  where, copies = "a device", 1
  if not limit:  # CPU devices, which share the machine's memory
    limit, where = _of_machine(), "this machine"
    copies = len(mesh.local_devices)
  sizes = {
    name: copies * sum(map(_bytes, jax.tree.leaves(tree)))
    for name, tree in parts.items()
  }
  if sum(sizes.values()) > limit:
    gb = lambda n: f"{n / 1e9:,.1f} GB"
    listed = " and ".join(f"{gb(n)} for {k}" for k, n in sizes.items())
    raise UserError(f"not enough memory: {listed}; {where} has {gb(limit)}")
