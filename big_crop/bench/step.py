"""How long a train step takes: forward, backward and update, on random data.

Needs no TensorFlow. FLOPs are XLA's count of all operations of the step before
compilation, in float32, because a program compiled for a GPU has its matrix
products in calls that XLA does not count. A multiplication and an addition
count as two. The peak is the FLOP/s of a large matrix product of the same dtype
on the same devices in the same process. MFU is the step's FLOP/s divided by the
peak.
"""

import argparse
import ast
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from big_crop import objectives
from big_crop import step as steps
from big_crop.bench import output, timm_peer
from big_crop.config import default_config
from big_crop.models import transformer
from big_crop.runtime import sharding
from pp_ops.errors import UserError

_CLASSES = 1000
_REPLICATE = [(".*", "replicate")]


class Step(NamedTuple):
  """A compiled train step and its inputs.

  Attributes:
    run: (state, batch) -> (state, metrics).
    state: the initial state.
    batch: a batch, on the devices.
    flops: FLOPs of one step, over all devices.
    state_bytes: bytes of the state on each device.
  """

  run: Callable
  state: Any
  batch: Any
  flops: float
  state_bytes: int


def build(
  model_name: str,
  model_args: dict[str, Any],
  batch: int,
  res: int,
  *,
  mesh: jax.sharding.Mesh,
  strategy: list[tuple[str, str]] = _REPLICATE,
) -> Step:
  """Compiles a run's train step, with AdamW, clipping and cross-entropy.

  Args:
    model_name: see `models.get_model`.
    model_args: the model's arguments.
    batch: examples in a step, over all devices.
    res: height and width of the images in pixels.
    mesh: the mesh; the batch is split over all its axes.
    strategy: see `sharding.infer_sharding`.
  """
  sharding.check_batch_size(batch, mesh, where="--batch")
  split = sharding.batch_sharding(mesh)

  def random_batch():
    image, label = jax.random.split(jax.random.key(0))
    return {
      "image": jax.random.uniform(image, (batch, res, res, 3), minval=-1.0),
      "label": jax.random.randint(label, (batch,), 0, _CLASSES),
    }

  # Made on the devices, because copying a large batch there would take long.
  data = jax.jit(random_batch, out_shardings=split)()
  train_step, init = _train_step(model_name, model_args, res, mesh, strategy)
  state = init()
  compiled = train_step.lower(state, data).compile()
  flops = count_flops(model_name, model_args, batch, res)
  return Step(compiled, state, data, flops, sharding.bytes_per_device(state))


def count_flops(
  model_name: str, model_args: dict[str, Any], batch: int, res: int
) -> float:
  """FLOPs of a step of `build`, before compilation and in float32."""
  args = {**model_args, "dtype_mm": "float32"}
  # On the CPU, because other backends count only compiled programs.
  mesh = sharding.make_mesh([("data", 1)], jax.devices("cpu")[:1])
  step, init = _train_step(model_name, args, res, mesh, _REPLICATE)
  batch = {
    "image": jax.ShapeDtypeStruct((batch, res, res, 3), jnp.float32),
    "label": jax.ShapeDtypeStruct((batch,), jnp.int32),
  }
  return step.lower(jax.eval_shape(init), batch).cost_analysis()["flops"]


def _train_step(model_name, model_args, res, mesh, strategy):
  """The jitted step, and a function () -> its initial state."""
  config = default_config()
  config.update(model_name=model_name, model=model_args)
  objective = objectives.make(config, _CLASSES)
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
  specs = {"image": jax.ShapeDtypeStruct((res, res, 3), jnp.float32)}
  args = objective, tx, mesh, strategy, specs
  train_step = steps.make_train_step(
    objective,
    tx,
    mesh=mesh,
    state_sharding=steps.shardings_of(steps.abstract_state(*args)),
    seed=0,
  )
  return train_step, lambda: steps.init_state(*args, seed=0)


def time_steps(step: Step, num: int, repeats: int) -> list[tuple[float, float]]:
  """Times `repeats` runs of `num` steps, after a warm-up of two steps.

  Returns:
    For each run, the seconds and the CPU seconds per step.
  """
  state, times = step.state, []
  for repeat in range(repeats + 1):
    start = time.perf_counter(), time.process_time()
    for _ in range(num if repeat else 2):
      state, metrics = step.run(state, step.batch)
    jax.block_until_ready((state, metrics))
    end = time.perf_counter(), time.process_time()
    if repeat:
      wall, cpu = (b - a for a, b in zip(start, end, strict=True))
      times.append((wall / num, cpu / num))
  return times


def rate(work: Callable, size: int, num: int, turns: int = 3) -> float:
  """Images per second of `work`: the median of some turns after a warm-up.

  Args:
    work: makes or uses one batch. The clock waits for the JAX arrays that it
      returns.
    size: images in a batch.
    num: batches in a turn.
    turns: number of turns, besides a first one that warms up.
  """
  rates = []
  for _ in range(turns + 1):
    start = time.perf_counter()
    for _ in range(num):
      out = work()
    jax.block_until_ready(out)
    rates.append(num * size / (time.perf_counter() - start))
  return statistics.median(rates[1:])


def peak_flops(mesh: jax.sharding.Mesh, dtype: str, repeats: int = 5) -> float:
  """FLOP/s of a matrix product on all devices at once: the best of several.

  The factors are random, because a GPU needs less power to multiply ones, and
  so would run at a higher clock than in training.

  Args:
    mesh: the devices.
    dtype: of both factors.
    repeats: readings of the clock, after a first one that warms up.
  """
  size = 2048 if mesh.devices.flat[0].platform == "cpu" else 8192
  split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
  shape = (mesh.size, size, size)
  make = jax.jit(
    lambda key: jax.random.normal(key, shape, dtype) / size**0.5,
    out_shardings=split,
  )
  x, y = (make(jax.random.key(i)) for i in range(2))
  times = []
  # Several products in a row, so that the time to launch them hardly counts.
  chain = 1 if size == 2048 else 10

  def product(x, y):
    for _ in range(chain):  # entries of x keep their standard deviation
      x = jnp.einsum("nij,njk->nik", x, y)
    return x

  run = jax.jit(product, out_shardings=split)
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(run(x, y))
    times.append(time.perf_counter() - start)
  return mesh.size * chain * 2 * size**3 / min(times[1:])


def add_model_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that `model_args` reads."""
  add = parser.add_argument
  add("--model", default="vit")
  add("--variant", default="S/16")
  add("--model_args", default="{}", metavar="DICT",
      help="more arguments of the model")  # fmt: skip
  add("--res", type=int, default=224)
  add("--dtype", default="float32", choices=("float32", "bfloat16"))


def model_args(args: argparse.Namespace) -> dict[str, Any]:
  """The model's arguments, from the flags of `add_model_flags`."""
  more = literal("--model_args", args.model_args, dict)
  return {"variant": args.variant, "dtype_mm": args.dtype, **more}


def literal(flag: str, text: str, kind: type) -> Any:
  """Reads a Python literal.

  Raises:
    ValueError: if the text is not a literal of type `kind`.
  """
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    value = None
  if not isinstance(value, kind):
    raise UserError(f"{flag} {text}: need a {kind.__name__} literal")
  return value


def main(argv: list[str]) -> None:
  """Runs the command."""
  parser = output.parser("step", __doc__)
  add = parser.add_argument
  add_model_flags(parser)
  add("--batch", type=int, default=16, help="over all devices")
  add("--mesh", default="[('data', -1)]", help="as config.mesh")
  add("--sharding_strategy", default=str(_REPLICATE), metavar="LIST")
  add("--steps", type=int, default=3, help="steps between two readings")
  add("--repeats", type=int, default=5, help="readings")
  add("--peers", action="store_true", help="also timm's model, in turns")
  add("--flax_attention", action="store_true",
      help="also a ViT with Flax's own attention, in turns")  # fmt: skip
  args = parser.parse_args(argv)
  if min(args.batch, args.res, args.steps, args.repeats) < 1:
    raise UserError("--batch, --res, --steps, --repeats must be at least 1.")

  mesh = sharding.make_mesh(literal("--mesh", args.mesh, list))
  bar = tqdm(total=args.repeats, desc="compiling", unit="reading", leave=False)
  build_it = lambda: build(
    args.model,
    model_args(args),
    args.batch,
    args.res,
    mesh=mesh,
    strategy=literal("--sharding_strategy", args.sharding_strategy, list),
  )
  step = build_it()
  peer = flax = None
  if args.flax_attention:
    with mock.patch.object(transformer, "Attention", FlaxAttention):
      flax = build_it()
  if args.peers:
    peer = timm_peer.start(
      args.model, args.variant, args.batch, args.res, args.dtype
    )
  times, peer_times, flax_times, products = [], [], [], []
  bar.set_description("timing")
  for _ in range(args.repeats):
    times += time_steps(step._replace(state=_copy(step.state)), args.steps, 1)
    if flax:
      again = flax._replace(state=_copy(flax.state))
      flax_times += time_steps(again, args.steps, 1)
    if peer:
      peer_times.append(peer(args.steps))
      products.append(peak_flops(mesh, args.dtype) / peer(0))
    bar.update()
  bar.close()
  peak = peak_flops(mesh, args.dtype)
  times, cpu_times = zip(*times, strict=True)
  seconds = statistics.median(times)
  results = {
    "devices": f"{mesh.size} {mesh.devices.flat[0].device_kind}",
    "step_ms": 1000 * seconds,
    "all_step_ms": [1000 * t for t in times],
    "images_per_s": args.batch / seconds,
    "gflop_per_step": step.flops / 1e9,
    "gflop_per_s": step.flops / seconds / 1e9,
    "peak_gflop_per_s": peak / 1e9,
    "mfu": step.flops / seconds / peak,
    "state_mb_per_device": step.state_bytes / 1e6,
  }
  print(
    f"{args.model} {args.variant}, batch {args.batch}, {args.res} pixels,"
    f" {args.dtype}, {results['devices']}\n"
    f"step time       {results['step_ms']:10.2f} ms (median of"
    f" {', '.join(f'{1000 * t:.1f}' for t in times)})\n"
    f"images/s        {results['images_per_s']:10.2f}\n"
    f"model GFLOP     {results['gflop_per_step']:10.2f} per step: forward,"
    " backward and update, XLA's count\n"
    f"model GFLOP/s   {results['gflop_per_s']:10.2f}\n"
    f"peak GFLOP/s    {results['peak_gflop_per_s']:10.2f} of a matrix product\n"
    f"MFU             {100 * results['mfu']:10.1f} %\n"
    f"train state     {results['state_mb_per_device']:10.1f} MB per device"
  )
  if peer:
    theirs, their_cpu = zip(*peer_times, strict=True)
    # The ratio within each turn, because other work on the machine slows both
    # alike.
    ratio = statistics.median(b / a for a, b in zip(times, theirs, strict=True))
    cpu, timms_cpu = statistics.median(cpu_times), statistics.median(their_cpu)
    results["timm_step_ms"] = 1000 * statistics.median(theirs)
    results["all_timm_step_ms"] = [1000 * t for t in theirs]
    results["times_as_fast"] = ratio
    results["cpu_s_per_step"], results["timm_cpu_s_per_step"] = cpu, timms_cpu
    product = results["matrix_product_ratio"] = statistics.median(products)
    print(
      f"timm images/s   {args.batch / statistics.median(theirs):10.2f}, median"
      f" of {', '.join(f'{1000 * t:.1f}' for t in theirs)} ms; ours is"
      f" {ratio:.2f} times as fast (median of the turns)\n"
      f"CPU s per step  {cpu:10.2f}, timm's {timms_cpu:.2f}\n"
      f"matrix product  {product:10.2f} times as fast as PyTorch's, median of"
      " the turns"
    )
  if flax:
    ratio = statistics.median(
      b[0] / a for a, b in zip(times, flax_times, strict=True)
    )
    results["times_as_fast_as_flax_attention"] = ratio
    print(f"Flax attention  {ratio:10.2f} times as fast as with it")
  output.write(args, **results)


class FlaxAttention(nn.Module):
  """Flax's attention in place of `transformer.Attention`, to compare with."""

  layers: transformer.Layers

  @nn.compact
  def __call__(self, x_q, x_kv):
    return nn.MultiHeadDotProductAttention(
      self.layers.num_heads, dtype=self.layers.dtype
    )(x_q, x_kv)


def _copy(state):
  """Copies the state, because the step donates its buffers."""
  return jax.tree.map(lambda x: jnp.array(x, copy=True), state)
