"""How long a train step takes: forward, backward and update, on random data.

FLOPs are XLA's count for the compiled step: all its operations, forward,
backward and update, as they are executed. A multiplication and an addition
count as two.
"""

import argparse
import json
import pathlib
import platform
import statistics
import time

import jax
import numpy as np
import optax

from big_crop import models, sharding
from big_crop import step as steps

_CLASSES = 1000


def build(
  model_name: str, variant: str, batch: int, res: int, dtype: str
) -> tuple:
  """Compiles a train step as a run has it: AdamW, clipping, cross-entropy.

  The batch is split over all devices, the state is replicated.

  Args:
    model_name: see `models.get_model`.
    variant: the model's.
    batch: examples in a step.
    res: height and width of the images.
    dtype: `dtype_mm` of the model.

  Returns:
    The compiled step, its first state, a batch on the devices, and the step's
    FLOPs over all devices.
  """
  model = models.get_model(
    model_name, _CLASSES, variant=variant, dtype_mm=dtype
  )
  mesh = sharding.make_mesh([("data", -1)])
  sharding.check_batch_size(batch, mesh)
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
  strategy = [(".*", "replicate")]
  state = steps.init_state(model, tx, mesh, strategy, (res, res, 3), seed=0)
  train_step = steps.make_train_step(
    model,
    tx,
    loss="softmax_xent",
    num_classes=_CLASSES,
    mesh=mesh,
    state_sharding=steps.shardings_of(state),
    seed=0,
  )
  rng = np.random.default_rng(0)
  data = {
    "image": rng.uniform(-1, 1, (batch, res, res, 3)).astype(np.float32),
    "label": rng.integers(0, _CLASSES, batch, np.int32),
  }
  data = jax.device_put(data, sharding.batch_sharding(mesh))
  compiled = train_step.lower(state, data).compile()
  # Of one device's program; all run the same.
  flops = compiled.cost_analysis()["flops"] * mesh.size
  return compiled, state, data, flops


def time_steps(compiled, state, data, num: int, repeats: int) -> list[float]:
  """Seconds per step of `repeats` runs of `num` steps, after a warm-up."""
  times = []
  for repeat in range(repeats + 1):
    start = time.perf_counter()
    for _ in range(num if repeat else 2):
      state, metrics = compiled(state, data)
    jax.block_until_ready((state, metrics))
    if repeat:
      times.append((time.perf_counter() - start) / num)
  return times


def main(argv: list[str]) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m big_crop.bench step", description=__doc__
  )
  add = parser.add_argument
  add("--model", default="vit")
  add("--variant", default="S/16")
  add("--batch", type=int, default=16, help="over all devices")
  add("--res", type=int, default=224)
  add("--dtype", default="float32", choices=("float32", "bfloat16"))
  add("--steps", type=int, default=3, help="steps between two readings")
  add("--repeats", type=int, default=5, help="readings")
  add("--json", help="file for the results")
  args = parser.parse_args(argv)
  if min(args.batch, args.res, args.steps, args.repeats) < 1:
    raise ValueError("--batch, --res, --steps, --repeats must be at least 1.")

  compiled, state, data, flops = build(
    args.model, args.variant, args.batch, args.res, args.dtype
  )
  times = time_steps(compiled, state, data, args.steps, args.repeats)
  seconds = statistics.median(times)
  device = jax.devices()[0]
  record = {
    **{k: v for k, v in vars(args).items() if k != "json"},
    "devices": f"{jax.device_count()} {device.device_kind}",
    "platform": platform.platform(),
    "jax": jax.__version__,
    "step_ms": 1000 * seconds,
    "all_step_ms": [1000 * t for t in times],
    "images_per_s": args.batch / seconds,
    "gflop_per_step": flops / 1e9,
    "gflop_per_s": flops / seconds / 1e9,
  }
  print(
    f"{args.model} {args.variant}, batch {args.batch}, {args.res} pixels,"
    f" {args.dtype}, {record['devices']}\n"
    f"step time       {record['step_ms']:10.2f} ms (median of"
    f" {', '.join(f'{1000 * t:.1f}' for t in times)})\n"
    f"images/s        {record['images_per_s']:10.2f}\n"
    f"model GFLOP     {record['gflop_per_step']:10.2f} per step: forward,"
    " backward and update, XLA's count\n"
    f"model GFLOP/s   {record['gflop_per_s']:10.2f}"
  )
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(record, indent=2) + "\n")
