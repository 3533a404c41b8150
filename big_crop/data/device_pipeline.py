"""Packed dataset -> batches that are preprocessed on the devices, in JAX.

The examples, their order and their random numbers are those of
`input_pipeline` for the same source, seed and pp string, so that runs on the
two engines can be compared. If the dataset fits, it is kept in the devices'
memory, a part on each, and the host only sends the numbers of the examples that
come next. Otherwise the host reads the examples of each batch from the memory
map and sends them.
"""

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from big_crop.data.batches import (
  Batch,
  Features,
  ahead,
  check_features,
  check_repeats,
  names_of,
)
from big_crop.data.packed import PackedSource, example_bytes
from big_crop.device_ops import philox
from big_crop.device_ops.canvas import unpack
from big_crop.device_ops.registry import get_preprocess_fn, lookup
from big_crop.runtime import sharding
from pp_ops import seeds
from pp_ops.errors import UserError

__all__ = ["get_preprocess_fn", "lookup"]  # part of an engine, see `batches`
OPTIONS = ("hold",)

_SHUFFLE_INDEX = -1  # as in `input_pipeline`
_PART_TO_HOLD = 0.5  # part of a device's memory that the data may take
_CPU_BYTES = 4e9  # the same in bytes, for devices that do not tell their memory


def check_source(source: Any) -> None:
  """Raises a one-line ValueError unless the data are packed."""
  if not isinstance(source, PackedSource):
    raise UserError(
      'config.input.engine = "device" needs packed data: make them with'
      " python -m big_crop.pack and give their folder as the dataset's name"
    )


def process_fn(source, pp, features):
  """The function (stored images, batch of `_inputs`) -> wanted features."""
  shapes = source.shapes[source.indices]
  least = tuple(shapes.min(0).tolist()) if len(shapes) else (1, 1)

  def process(images, batch):
    canvas = unpack(images, batch["shape"], least)
    out = pp({"image": canvas, "label": batch["label"]}, batch["seed"])
    check_features(out, features)
    wanted = {k: out[k] for k in names_of(features) if k in out}
    return wanted | {k: batch[k] for k in ("mask",) if k in batch}

  return process


def feature_specs(
  source: PackedSource, pp: Callable, features: Features
) -> dict[str, jax.ShapeDtypeStruct]:
  """See `big_crop.data.batches`."""
  check_source(source)
  of = jax.ShapeDtypeStruct
  batch = {
    "shape": of((1, 2), jnp.int32),
    "label": of((1,), jnp.int32),
    "seed": of((1, 4), jnp.uint32),
  }
  images = of((1, *source.canvas, 3), jnp.uint8)
  out = jax.eval_shape(process_fn(source, pp, features), images, batch)
  return {k: of(v.shape[1:], v.dtype) for k, v in out.items()}


def bytes_to_hold(source: PackedSource, mesh: Mesh) -> int:
  """Bytes on each device if the devices hold the split."""
  return -(-source.total_examples // mesh.size) * example_bytes(source.canvas)


def _is_to_be_held(source, mesh, hold):
  if hold is not None:
    return hold
  memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
  limit = _PART_TO_HOLD * memory if memory else _CPU_BYTES
  return bytes_to_hold(source, mesh) <= limit


class _Store:
  """A split whose images the host sends, and the programs that process them."""

  def __init__(self, source, mesh):
    self.source, self.mesh = source, mesh
    self._programs = {}

  def inputs(self, index):
    """What the host sends for a batch so that the devices get its images.

    `index` is int [n]. For this class the result is the images themselves.
    """
    return {"stored": self.source.read(index)[0]}

  def images(self, data, batch):
    """The images of a batch, on the devices."""
    del data
    return batch["stored"]

  data = None  # images that stay on the devices; here none

  def function(self, pp, features):
    """The function (`self.data`, batch on the devices) -> features."""
    process = process_fn(self.source, pp, features)
    return lambda data, batch: process(self.images(data, batch), batch)

  def program(self, pp, features):
    """The function (batch on the devices) -> features, compiled once."""
    key = pp, tuple(features)
    if key not in self._programs:
      self._programs[key] = jax.jit(
        self.function(pp, features),
        out_shardings=sharding.batch_sharding(self.mesh),
      )
    return functools.partial(self._programs[key], self.data)


class _Held(_Store):
  """A split in the devices' memory: each has an equal, contiguous part."""

  def __init__(self, source, mesh):
    super().__init__(source, mesh)
    self._rows = np.zeros(source.indices.max() + 1, np.int32)
    self._rows[source.indices] = np.arange(len(source.indices))
    each = -(-len(source.indices) // mesh.size)
    shape = (each * mesh.size, *source.canvas, 3)

    def part(slices):
      images = source.read(source.indices[slices[0]])[0]
      first, end, _ = slices[0].indices(shape[0])
      return np.pad(images, [(0, end - first - len(images)), *[(0, 0)] * 3])

    self.data = jax.make_array_from_callback(
      shape, sharding.batch_sharding(mesh), part
    )
    axes = mesh.axis_names
    split = PartitionSpec(axes)

    def take_own(images, rows):
      """Gets each device its rows of a batch.

      Each device looks up the rows of all devices, with zeros for those that it
      does not hold; a summing scatter then gives each device its own.
      """
      rows = jax.lax.all_gather(rows, axes, tiled=True)
      place = rows - jax.lax.axis_index(axes) * each
      here = (place >= 0) & (place < each)
      found = images[jnp.clip(place, 0, each - 1)]
      found = jnp.where(here[:, None, None, None], found, 0)
      return jax.lax.psum_scatter(found, axes, tiled=True)

    self._take = jax.shard_map(
      take_own, mesh=mesh, in_specs=(split, split), out_specs=split
    )
    if mesh.size == 1:
      self._take = lambda images, rows: images[rows]

  def inputs(self, index):
    return {"row": self._rows[index]}

  def images(self, data, batch):
    return self._take(data, batch["row"])


def store_of(source: PackedSource, mesh: Mesh, hold: bool | None) -> _Store:
  """Returns the store of a source's images; makes it if there is none yet.

  The store is an attribute of the source, shared by the source's evaluators and
  freed with the source: a study opens new sources for each run. `hold` is that
  of `device_batches`.
  """
  check_source(source)
  if source.store is None:
    held = source.total_examples and _is_to_be_held(source, mesh, hold)
    source.store = (_Held if held else _Store)(source, mesh)
  return source.store


def apply(pp: Callable, images: np.ndarray) -> np.ndarray:
  """Images [N, H, W, C] after a pp function whose ops are all on the image."""
  seeds = np.zeros((len(images), 4), np.uint32)
  return np.asarray(pp({"image": images}, seeds)["image"])


def describe(
  source: PackedSource, mesh: Mesh, *, hold: bool | None = None
) -> str:
  """Where the data are, and how much memory they take on each device."""
  held = _is_to_be_held(source, mesh, hold)
  size = bytes_to_hold(source, mesh) / 1e6
  return f"{size:.1f} MB of data on each" if held else "data read from disk"


def _inputs(source, store, seed, epoch, index, repeat):
  """What the host sends for a batch, as NumPy arrays."""
  return {
    "seed": philox.seed_words(*seeds.pack(seed, epoch, index, repeat)),
    "shape": source.shapes[index],
    "label": source.labels[index].astype(np.int32),
    **store.inputs(index),
  }


def host_inputs(
  source: PackedSource,
  store: _Store,
  batch_size: int,
  seed: int,
  start: int,
  repeats: int,
) -> Iterator[dict[str, np.ndarray]]:
  """What the host sends for each training batch; see `device_batches`."""
  check_repeats(repeats)
  host, hosts = source.shard
  mine = np.arange(source.total_examples)[host::hosts]

  @functools.lru_cache(2)  # because a batch may span two epochs
  def order(epoch):
    order_seed = np.array(seeds.pack(seed, epoch, _SHUFFLE_INDEX, 0), np.int64)
    return philox.permutation(source.total_examples, order_seed)

  for first in itertools.count(start, batch_size):
    positions = np.arange(first, first + batch_size)
    epoch, place = np.divmod(positions, source.num_examples)
    place = mine[place]
    index = [
      order(int(e))[place[epoch == e] // repeats] for e in np.unique(epoch)
    ]
    index = source.indices[np.concatenate(index)]
    yield _inputs(source, store, seed, epoch, index, place % repeats)


def _read_ahead(items):
  """Yields the same items; another thread makes the next one meanwhile."""
  with concurrent.futures.ThreadPoolExecutor(1) as thread:
    items, end = iter(items), object()
    coming = thread.submit(next, items, end)
    while (item := coming.result()) is not end:
      coming = thread.submit(next, items, end)
      yield item


def device_batches(
  source: PackedSource,
  pp: Callable,
  features: Features,
  batch_size: int,
  *,
  mesh: Mesh,
  seed: int,
  start: int = 0,
  repeats: int = 1,
  hold: bool | None = None,
) -> Iterator[tuple[dict[str, jax.Array], Batch]]:
  """See `big_crop.data.batches`.

  `hold` says whether to keep the dataset in the devices' memory; None: if it
  fits.
  """
  store = store_of(source, mesh, hold)
  program = store.program(pp, features)
  sent = host_inputs(source, store, batch_size, seed, start, repeats)

  def batches():
    for i, inputs in enumerate(_read_ahead(sent), 1):
      arrays = program(sharding.make_global_batch(inputs, mesh))
      yield arrays, Batch({}, None, start + i * batch_size, 0)

  return ahead(batches())


def eval_device_batches(
  source: PackedSource,
  pp: Callable,
  features: Features,
  batch_size: int,
  *,
  mesh: Mesh,
  seed: int = 0,
  hold: bool | None = None,
) -> Iterator[tuple[dict[str, jax.Array], int]]:
  """See `big_crop.data.batches` and `device_batches`."""
  store = store_of(source, mesh, hold)
  program = store.program(pp, features)
  host, hosts = source.shard
  mine = source.indices[host::hosts]
  largest_share = -(-source.total_examples // hosts)
  for i in range(0, largest_share, batch_size):
    index = mine[i : i + batch_size]
    num = len(index)
    # Padding repeats the split's first example.
    index = np.concatenate(
      [index, np.full(batch_size - num, source.indices[0])]
    )
    zero = np.zeros_like(index)
    inputs = _inputs(source, store, seed, zero, index, zero)
    inputs["mask"] = (np.arange(batch_size) < num).astype(np.float32)
    yield program(sharding.make_global_batch(inputs, mesh)), num
