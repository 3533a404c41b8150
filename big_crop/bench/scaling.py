"""How a train step scales with the devices, at a fixed batch per device.

On a machine without accelerators the devices are virtual ones that share its
cores. There this shows what sharding costs, not what it gains.
"""

import statistics
from typing import Any

import jax
from tqdm import tqdm

from big_crop.bench import output
from big_crop.bench import step as bench_step
from big_crop.runtime import sharding
from pp_ops.errors import UserError


def measure(
  model_name: str,
  model_args: dict[str, Any],
  batch: int,
  res: int,
  *,
  counts: list[int],
  strategy: list[tuple[str, str]],
  steps: int,
  repeats: int,
) -> list[dict[str, Any]]:
  """Times the step on the first 1, 2, ... devices.

  Args:
    model_name: see `models.get_model`.
    model_args: the model's arguments.
    batch: examples per device.
    res: height and width of the images in pixels.
    counts: numbers of devices.
    strategy: see `sharding.infer_sharding`.
    steps: train steps between two readings of the clock.
    repeats: readings.

  Returns:
    For each number of devices: `devices`; `images_per_s` over all of them;
    `all_step_ms`, the readings; `state_mb_per_device`.

  Raises:
    ValueError: if the machine has fewer devices.
  """
  devices = jax.devices()
  if max(counts) > len(devices):
    raise UserError(f"--devices {max(counts)}: there are {len(devices)}")
  results = []
  for num in tqdm(counts, "compiling and timing", leave=False):
    step = bench_step.build(
      model_name,
      model_args,
      batch * num,
      res,
      mesh=sharding.make_mesh([("data", num)], devices[:num]),
      strategy=strategy,
    )
    times = [s for s, _ in bench_step.time_steps(step, steps, repeats)]
    results.append(
      {
        "devices": num,
        "images_per_s": batch * num / statistics.median(times),
        "all_step_ms": [1000 * t for t in times],
        "state_mb_per_device": step.state_bytes / 1e6,
      }
    )
  return results


def main(argv: list[str]) -> None:
  """Runs the command."""
  parser = output.parser("scaling", __doc__)
  add = parser.add_argument
  bench_step.add_model_flags(parser)
  add("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
  add("--batch", type=int, default=8, help="per device")
  add("--sharding_strategy", default="[('.*', 'replicate')]", metavar="LIST")
  add("--steps", type=int, default=3, help="steps between two readings")
  add("--repeats", type=int, default=3, help="readings")
  args = parser.parse_args(argv)
  if min(args.batch, args.res, args.steps, args.repeats, *args.devices) < 1:
    raise UserError("every number must be at least 1.")

  jax.config.update("jax_num_cpu_devices", max(args.devices))
  results = measure(
    args.model,
    bench_step.model_args(args),
    args.batch,
    args.res,
    counts=args.devices,
    strategy=bench_step.literal(
      "--sharding_strategy", args.sharding_strategy, list
    ),
    steps=args.steps,
    repeats=args.repeats,
  )
  print("devices  images/s  per device  MB of state per device")
  for r in results:
    rate, num = r["images_per_s"], r["devices"]
    print(
      f"{num:7d}  {rate:8.1f}  {rate / num:10.1f}"
      f"  {r['state_mb_per_device']:22.1f}"
    )
  output.write(args, results=results)
