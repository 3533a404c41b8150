"""Trains: `python -m big_crop.train --config FILE[:arg=value] --workdir DIR`.

This file has the training loop; `big_crop.parts` builds what the loop needs. An
example goes record -> seed -> pp string -> batch -> sharded array ->
objective.prepare -> model -> loss -> update. SIGTERM saves a checkpoint and
ends with status 0, Ctrl-C likewise with status 130; the same command then
continues from the last checkpoint.
"""

import argparse
import json
import math
import time

from big_crop.runtime import commands, pages, stop

if __name__ == "__main__":
  pages.use_huge_pages()
  stop.listen(goes_on=True, sigterm=True)

import jax
import numpy as np
from etils import epath

from big_crop import averages, trees, weights
from big_crop import config as configs
from big_crop.display import pictures
from big_crop.parts import Parts, build
from big_crop.runtime import (
  checkpoint,
  hosts,
  outputs,
  progress,
  records,
  sharding,
  storage,
)
from big_crop.step import renew_extra
from pp_ops.errors import UserError

# How many steps the host may dispatch ahead of the devices.
STEPS_IN_FLIGHT = 3
# What must be finite after each step.
FINITE = {
  "training_loss": "the loss",
  "l2_params": "the norm of the parameters",
}


def last_step(workdir: epath.Path) -> int:
  """The step of the last undamaged checkpoint, 0 if there is none.

  Only the first host looks for it. It also removes the remains of killed saves
  and renames damaged checkpoints, so that their steps can be saved again.
  """
  step, failure = 0, None
  if jax.process_index() == 0:
    try:
      step = checkpoint.latest_step(workdir, tidy=True) or 0
    except UserError as e:
      step, failure = -1, e
  step = hosts.agree_on_first(step)
  if step < 0:
    raise failure or UserError(f"{workdir}: see the first host's error")
  return step


def start_or_resume(
  config, workdir: epath.Path, parts: Parts, start: int
) -> tuple:
  """Restores the train state from a checkpoint, or makes a new one.

  Args:
    config: the config.
    workdir: the run's folder. It is created, and config.json written, here.
    parts: those of `build`.
    start: the checkpoint's step, 0 for a new state.

  Returns:
    The state; the dict that was saved with it, with the hosts' positions in
    their streams of examples; and the open checkpoints.
  """
  host = {}
  if not start:
    state = parts.init()
    if config.model_init:
      state = weights.initialise(
        state, config.model_init, parts.objective.model, **config.model_load
      )
      state = renew_extra(parts.objective, state, config.seed)
  if jax.process_index() == 0:
    records.write_config(workdir, configs.as_json(config))
  checkpoints = checkpoint.Checkpoints(workdir, config.keep_ckpt_steps)
  if start:
    state, host = checkpoints.restore(start, parts.abstract)
    if jax.process_index() == 0:
      print(f"going on from checkpoint {checkpoints.path / str(start)}")
  elif jax.process_index() == 0:
    print(trees.overview(state.params))
  num_hosts = jax.process_count()
  if len(host.get("positions", [])) != num_hosts:
    # With another number of hosts, the examples are split into other streams.
    # Start each at the position that corresponds to the examples seen so far.
    position = start * config.input.batch_size // num_hosts
    host["positions"] = [position] * num_hosts
  return state, host, checkpoints


def run(config, workdir: str) -> dict | None:
  """Trains until the end or a stop; with `total_steps` 0 it only evaluates.

  Args:
    config: with the keys of `big_crop.config.default_config`.
    workdir: the run's folder, local or gs://.

  Returns:
    The contents of summary.json, or None after a SIGTERM or Ctrl-C and on all
    hosts but the first.

  Raises:
    ValueError: for anything wrong with the config, the data or the workdir; and
      when the loss is not finite.
  """
  began = time.time()
  outputs.check_folder(workdir, "--workdir")
  workdir = storage.path(workdir)
  first_process = jax.process_index() == 0
  hosts.agree(json.dumps(configs.as_json(config)), "the config")
  records.check_workdir(workdir, configs.as_json(config), configs.FREE_KEYS)
  parts = build(config)
  start = last_step(workdir)
  state, host, checkpoints = start_or_resume(config, workdir, parts, start)
  position = host["positions"][jax.process_index()]
  skipped, elapsed = 0, host.get("elapsed_s", 0.0)
  skipped_before = all_skipped = host.get("skipped", 0)
  state_bytes = sharding.bytes_per_device(state)
  batch_size, total_steps = config.input.batch_size, parts.total_steps

  batches = parts.device_batches(position)
  metrics_file = None
  if first_process:
    metrics_file = records.Metrics(workdir, start if total_steps else -1)
  line = progress.Progress(
    total_steps, batch_size, start, silent=not first_process
  )
  counts = {"host": jax.process_count(), "device": parts.mesh.size}
  machines = ", ".join(f"{n} {k}{'s' * (n > 1)}" for k, n in counts.items())
  facts = [machines, f"{state_bytes / 1e6:.1f} MB of train state on each"]
  line.show(", ".join(filter(None, [*facts, parts.describe_data()])))
  unchecked = []  # (step, metrics on the devices)

  def evaluate(step, names):
    measured = {}
    for name in names:
      results, text = run_evaluator(
        name, parts.evals[name][0], state.variables(), workdir
      )
      measured |= results
      line.show(f"step {step}  {text}")
    return measured

  if not total_steps:
    measured = evaluate(0, parts.evals)
    if first_process:
      metrics_file.write(0, measured)
    if checkpoints.latest() is None:  # commands on finished runs need one
      checkpoints.save(0, state, {"positions": host["positions"]})

  if start < total_steps:
    line.pause(compiling=start)
  for step in range(start + 1, total_steps + 1):
    batch, origin = next(batches)
    if step == 1:
      prepared, _ = parts.prepare(batch, 0)
      if first_process:
        save_images(workdir, prepared)
    state, metrics = parts.train_step(state, batch)
    if step == start + 1:
      jax.block_until_ready(metrics)
      line.resume(1)
    # From here Ctrl-C waits for a checkpoint. Before, there is nothing to save,
    # and compilation would delay the answer.
    stop.hold()
    position, skipped = origin.position, skipped + origin.skipped
    unchecked.append((step, metrics))
    if len(unchecked) > STEPS_IN_FLIGHT:
      jax.block_until_ready(unchecked[-1 - STEPS_IN_FLIGHT])

    last, stopping = step == total_steps, hosts.stop_requested()
    log = last or step % config.log_training_steps == 0
    due = [
      name
      for name, (_, every) in parts.evals.items()
      if last or step % every == 0
    ]
    save = last or stopping or step % config.ckpt_steps == 0
    if not (log or due or save):
      continue

    unchecked = jax.device_get(unchecked)
    check_finite(unchecked, checkpoints)
    all_skipped = skipped_before + sum(hosts.gather(skipped))
    measured = {}
    if log:
      measured = {k: float(v) for k, v in unchecked[-1][1].items()}
      measured["lr"] = parts.lr(step - 1)
      measured["epoch"] = step * batch_size / parts.source.total_examples
      rate = line.update(step, measured["training_loss"], measured["lr"])
      if rate:
        measured["images_per_s"] = rate
      if text := parts.objective.warning(measured):
        line.show(f"step {step}: {text}")
      if all_skipped:
        measured["skipped_corrupt"] = all_skipped
    unchecked = []
    line.pause()
    if last and config.swa:
      num = parts.source.total_examples // batch_size
      line.show(f"step {step}: batch statistics of the mean, {num} batches")
      state = averages.estimate_statistics(state, parts, batches, num)
    measured |= evaluate(step, due)
    if measured and first_process:
      metrics_file.write(step, measured)
    if save:
      checkpoints.save(
        step,
        state,
        {
          "positions": hosts.gather(position),
          "skipped": all_skipped,
          "elapsed_s": elapsed + time.time() - began,
        },
      )
    line.resume()
    if stopping and not last:
      checkpoints.close()
      if first_process:
        stop.tell(f"saved checkpoint {checkpoints.path / str(step)}")
      return None

  checkpoints.close()
  digest = trees.params_sha256(state.params)
  if not first_process:
    return None
  return summarise(
    workdir,
    {
      "step": total_steps,
      "num_params": sum(x.size for x in jax.tree.leaves(state.params)),
      "params_sha256": digest,
      "skipped_corrupt": all_skipped,
      "state_bytes_per_device": state_bytes,
      "wall_time_s": elapsed + time.time() - began,
    },
  )


def run_evaluator(name, evaluator, variables, workdir):
  """Runs an evaluator and draws its pictures.

  Returns:
    {"NAME/metric": value}, and a line of text with the metrics.
  """
  results = evaluator.run(variables)
  shown = {k: v for k, v in results.items() if np.ndim(v)}
  results = {k: v for k, v in results.items() if k not in shown}
  if jax.process_index() == 0:
    draw(workdir, {f"{name}_{k}": v for k, v in shown.items()})
  text = "  ".join(f"{k} {v:.4g}" for k, v in results.items())
  return {f"{name}/{k}": v for k, v in results.items()}, f"{name}: {text}"


def save_images(workdir, prepared):
  """Draws the prepared images: train_images.png, train_image2s.png and so on.

  Only the images on this host's devices are drawn.
  """
  mine = lambda x: np.concatenate([s.data for s in x.addressable_shards])
  images = {
    f"train_{name}s": mine(x)
    for name, x in prepared.items()
    if x.ndim == 4 and x.shape[-1] in (1, 3)
  }
  draw(workdir, images)


def draw(workdir, images):
  """Draws each of {name: images [N, H, W, C]} as NAME.png."""
  for name, x in images.items():
    with outputs.writing(path := workdir / f"{name}.png"):
      pictures.save_image_grid(path, x)


def check_finite(logged, checkpoints):
  """Raises at the first (step, metrics) whose loss or update is not finite."""
  for step, metrics in logged:
    for key, what in FINITE.items():
      if not math.isfinite(value := metrics[key]):
        good = checkpoints.latest()
        where = "none yet" if good is None else checkpoints.path / str(good)
        raise UserError(
          f"{what} is {value} at step {step}; last good checkpoint: {where}"
        )


def summarise(workdir, facts):
  """Writes and prints summary.json; draws the curves."""
  logged = records.read_metrics(workdir)
  if facts["step"]:
    with outputs.writing(path := workdir / "curves.png"):
      pictures.save_curves(path, logged)
  final = {k: v for r in logged for k, v in r.items()}
  rates = [r["images_per_s"] for r in logged if "images_per_s" in r]
  summary = {
    **facts,
    "images_per_s": float(np.median(rates)) if rates else None,
    "metrics": {
      **{k: v for k, v in final.items() if k not in ("step", "images_per_s")},
      **records.best(logged),
    },
  }
  text = json.dumps(summary, indent=2)
  storage.write(workdir / "summary.json", text + "\n")
  print(text)
  return summary


def main():
  """Runs the command."""
  parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
  parser.add_argument("--workdir", required=True, help="where the run is kept")
  hosts.add_arguments(parser)
  config, args = configs.parse_command_line(parser)
  hosts.initialize(
    args.coordinator_address, args.num_processes, args.process_id
  )
  run(config, args.workdir)


if __name__ == "__main__":
  with hosts.failing_together(), commands.one_line():
    main()
