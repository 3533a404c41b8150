"""Pipeline and step together: how much of its time a device has no work.

Trains a config for some steps, without checkpoints and evaluations. A device
waits from the moment it has finished a step until the host dispatches the next
one. This includes all that the host does in between, not only making the batch.
"""

import concurrent.futures
import itertools
import time

import jax
from tqdm import tqdm

from big_crop import config as configs
from big_crop.bench import output
from big_crop.bench import step as bench_step
from big_crop.parts import build
from big_crop.train import STEPS_IN_FLIGHT
from pp_ops.errors import UserError


def measure(config, warmup: int, steps: int) -> dict[str, float]:
  """Trains and times.

  Args:
    config: a run's.
    warmup: steps before the clock starts, at least 1.
    steps: steps that are timed.

  Returns:
    `images_per_s` of training, `step_images_per_s` of the step alone,
    `pipeline_images_per_s` of the pipeline alone, and `waiting`, the fraction
    of the time in which the device had nothing to do.
  """
  parts = build(config)
  size = config.input.batch_size
  batches, state = parts.device_batches(), parts.init()
  done_at = concurrent.futures.ThreadPoolExecutor(1)

  def when_ready(x):
    jax.block_until_ready(x)
    return time.perf_counter()

  ready, handed = [], []
  num = warmup + steps
  together = itertools.islice(parts.device_batches(), num)
  bar = tqdm(together, "training", num, unit="step", leave=False)
  for batch, _ in bar:
    handed.append(time.perf_counter())
    state, metrics = parts.train_step(state, batch)
    ready.append(done_at.submit(when_ready, metrics))
    if len(ready) > STEPS_IN_FLIGHT:
      ready[-1 - STEPS_IN_FLIGHT].result()
  ready = [r.result() for r in ready]
  pairs = zip(ready[warmup - 1 : -1], handed[warmup:], strict=True)
  waited = sum(max(0.0, begun - free) for free, begun in pairs)
  seconds = ready[-1] - ready[warmup - 1]

  def one_step():
    nonlocal state
    state, metrics = parts.train_step(state, batch)
    return metrics

  return {
    "images_per_s": steps * size / seconds,
    "step_images_per_s": bench_step.rate(one_step, size, 10),
    "pipeline_images_per_s": bench_step.rate(
      lambda: next(batches)[0], size, 10
    ),
    "waiting": waited / seconds,
  }


def main(argv: list[str]) -> None:
  """Runs the command."""
  parser = output.parser("train", __doc__, allow_abbrev=False)
  add = parser.add_argument
  add("--warmup", type=int, default=20, help="steps that are not timed")
  add("--steps", type=int, default=100)
  config, args = configs.parse_command_line(parser, argv)
  if min(args.warmup, args.steps) < 1:
    raise UserError("--warmup and --steps must be at least 1.")
  results = measure(config, args.warmup, args.steps)
  print(
    f"together        {results['images_per_s']:10.1f} images/s\n"
    f"step alone      {results['step_images_per_s']:10.1f}\n"
    f"pipeline alone  {results['pipeline_images_per_s']:10.1f}\n"
    f"device waits    {100 * results['waiting']:10.1f} % of the time"
  )
  output.write(args, **results)
