"""How a train step scales over devices: the batch grows with them.

On a machine without accelerators the devices are pretended ones, which share
its cores: then this tells what sharding costs, not what it gains.
"""

import argparse
import statistics

import jax

from big_crop import sharding
from big_crop.bench import output
from big_crop.bench import step as bench_step


def main(argv: list[str]) -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    prog="python -m big_crop.bench scaling", description=__doc__
  )
  add = parser.add_argument
  bench_step.add_model_flags(parser)
  add("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
  add("--batch", type=int, default=8, help="per device")
  add("--sharding_strategy", default="[('.*', 'replicate')]", metavar="LIST")
  add("--steps", type=int, default=3, help="steps between two readings")
  add("--repeats", type=int, default=3, help="readings")
  output.add_flag(parser)
  args = parser.parse_args(argv)
  if min(args.batch, args.res, args.steps, args.repeats, *args.devices) < 1:
    raise ValueError("every number must be at least 1.")

  jax.config.update("jax_num_cpu_devices", max(args.devices))
  devices = jax.devices()
  if max(args.devices) > len(devices):
    raise ValueError(f"--devices: there are {len(devices)}.")
  strategy = bench_step.literal(
    "--sharding_strategy", args.sharding_strategy, list
  )
  results = []
  print("devices  images/s  per device  MB of state per device")
  for num in args.devices:
    mesh = sharding.make_mesh([("data", num)], devices[:num])
    step = bench_step.build(
      args.model,
      bench_step.model_args(args),
      args.batch * num,
      args.res,
      mesh=mesh,
      strategy=strategy,
    )
    times = bench_step.time_steps(step, args.steps, args.repeats)
    rate = args.batch * num / statistics.median(times)
    results.append(
      {
        "devices": num,
        "images_per_s": rate,
        "all_step_ms": [1000 * t for t in times],
        "state_mb_per_device": step.state_bytes / 1e6,
      }
    )
    print(
      f"{num:7d}  {rate:8.1f}  {rate / num:10.1f}  {step.state_bytes / 1e6:.1f}"
    )
  output.write(args, results=results)
