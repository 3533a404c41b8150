"""Trains: `python -m big_crop.train --config FILE[:arg=value] --workdir DIR`.

This file wires the parts together. An example goes record -> seed -> pp string
-> batch -> sharded array -> mix -> model -> loss -> update. The same command
goes on from the last checkpoint; SIGTERM saves one and ends with status 0.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from big_crop.runtime import stop

if __name__ == "__main__":
  stop.on_sigterm()  # before the slow imports, in which one may come

import jax
import numpy as np
from clu import parameter_overview
from etils import epath

from big_crop import config as configs
from big_crop import errors, evaluators, models, optim, trees
from big_crop import step as steps
from big_crop.data import input_pipeline, sources
from big_crop.optim.schedules import to_steps
from big_crop.runtime import checkpoint, hosts, pictures, records, sharding
from big_crop.runtime import progress as progress_line
from big_crop.weights import model_init
from pp_ops import registry

# How far the host may run ahead of the devices.
STEPS_IN_FLIGHT = 3


class Parts(NamedTuple):
  """What a config amounts to, before anything is written or trained.

  Attributes:
    mesh: the devices.
    source: this host's share of the training data.
    pp: its pp function.
    total_steps: steps of the whole run.
    abstract: the train state as shapes with shardings.
    init: () -> a new train state.
    mix: (batch, step) -> images, labels and a key, see `step.make_mix`.
    train_step: (state, batch) -> (state, metrics).
    lr: step -> learning rate.
    evals: {name: (evaluator, every how many steps)}.
  """

  mesh: jax.sharding.Mesh
  source: sources.Source
  pp: Callable
  total_steps: int
  abstract: steps.TrainState
  init: Callable[[], steps.TrainState]
  mix: Callable
  train_step: Callable
  lr: Callable[[int], float]
  evals: dict[str, tuple[Any, int]]


def build(config) -> Parts:
  """Builds what a run needs, so that mistakes show before it starts.

  Raises:
    ValueError: for anything wrong with the config or the data, in one line.
  """
  num_hosts = jax.process_count()
  mesh = sharding.make_mesh(config.mesh)
  batch_size = config.input.batch_size
  sharding.check_batch_size(
    batch_size, mesh, config.grad_accum, "config.input.batch_size"
  )
  for key in ("log_training_steps", "ckpt_steps"):
    if config[key] < 1:
      raise ValueError(f"config.{key} is {config[key]}: need at least 1")

  registry.import_modules(config.pp_modules)
  if not config.input.pp:
    raise ValueError("config.input.pp is not set")
  pp = registry.get_preprocess_fn(config.input.pp)
  source = sources.get_source(
    **config.input.data,
    shard=(jax.process_index(), num_hosts),
    shuffle_buffer_size=config.input.shuffle_buffer_size,
  )
  if source.total_examples < num_hosts:
    raise ValueError(
      f"config.input.data.split {config.input.data.split!r} has "
      f"{source.total_examples} examples for {num_hosts} hosts"
    )
  num_classes = config.num_classes or source.num_classes
  if not num_classes:
    raise ValueError("the dataset does not say; set config.num_classes")
  if num_classes < (source.num_classes or 0):
    raise ValueError(
      f"config.num_classes is {num_classes}, but the dataset has "
      f"{source.num_classes} classes"
    )
  durations = {"batch_size": batch_size, "data_size": source.total_examples}
  total_steps = to_steps("total", config, **durations)
  if not total_steps:
    raise ValueError("set config.total_epochs, total_steps or total_examples")
  durations["total_steps"] = total_steps

  model = models.get_model(config.model_name, num_classes, **config.model)
  specs = input_pipeline.feature_specs(source, pp)
  input_shape = tuple(specs["image"].shape)
  shapes = steps.param_shapes(model, input_shape)
  tx, schedules = optim.make(config, shapes, **durations)
  state_args = (model, tx, mesh, config.sharding_strategy, input_shape)
  ema = config.ema_decay is not None
  abstract = steps.abstract_state(*state_args, ema=ema)
  mixing = {
    "seed": config.seed,
    "mixup": config.mixup.to_dict(),
    "mixing": config.mixing.to_dict(),
    "targets": config.targets.to_dict(),
  }
  mix = jax.jit(steps.make_mix(num_classes, **mixing))
  mixed, *_ = jax.eval_shape(
    mix,
    {
      k: jax.ShapeDtypeStruct((batch_size, *v.shape), v.dtype.as_numpy_dtype)
      for k, v in specs.items()
    },
    0,
  )
  sharding.check_batch_size(
    len(mixed), mesh, config.grad_accum, "config.input.batch_size, mixed,"
  )
  train_step = steps.make_train_step(
    model,
    tx,
    loss=config.loss,
    num_classes=num_classes,
    mesh=mesh,
    state_sharding=steps.shardings_of(abstract),
    grad_accum=config.grad_accum,
    ema_decay=config.ema_decay,
    frozen=optim.frozen_mask(config, shapes),
    **mixing,
  )
  context = {
    "model": model,
    "predict": steps.make_predict(model),
    "mesh": mesh,
    "num_classes": num_classes,
    "seed": config.seed,
  }
  evals = {
    name: (
      evaluators.make(name, args.to_dict(), **context),
      to_steps("log", args, default=total_steps, **durations),
    )
    for name, args in config.evals.items()
  }
  return Parts(
    mesh=mesh,
    source=source,
    pp=pp,
    total_steps=total_steps,
    abstract=abstract,
    init=lambda: steps.init_state(*state_args, seed=config.seed, ema=ema),
    mix=mix,
    train_step=train_step,
    lr=lambda step: config.lr * float(schedules[0](step)),
    evals=evals,
  )


def start_or_resume(config, workdir: epath.Path, parts: Parts) -> tuple:
  """The state to train on, from the last checkpoint or new.

  Args:
    config: the config.
    workdir: the run's folder; made and given its config.json here.
    parts: of `build`.

  Returns:
    The state, its step, what the host remembers (`checkpoint`), and the open
    checkpoints.
  """
  latest, host = checkpoint.latest_step(workdir), {}
  # Disks of several hosts may differ for a moment.
  start = hosts.agree_on_first(0 if latest is None else latest)
  if not start:
    state = parts.init()
    if config.model_init:
      state = model_init.initialise(
        state, config.model_init, **config.model_load
      )
  if jax.process_index() == 0:
    records.write_config(workdir, configs.as_json(config))
  checkpoints = checkpoint.Checkpoints(workdir, config.keep_ckpt_steps)
  if start:
    state, host = checkpoints.restore(start, parts.abstract)
    if jax.process_index() == 0:
      print(f"going on from checkpoint {checkpoints.path / str(start)}")
  elif jax.process_index() == 0:
    print(
      parameter_overview.get_parameter_overview(
        state.params, include_stats=False
      )
    )
  num_hosts = jax.process_count()
  if len(host.get("positions", [])) != num_hosts:
    # Another number of hosts has other streams: enter them at the same epoch.
    position = start * config.input.batch_size // num_hosts
    host["positions"] = [position] * num_hosts
  return state, start, host, checkpoints


def run(config, workdir: str) -> dict | None:
  """Trains to the end, or to a SIGTERM.

  Args:
    config: as `big_crop.config.default_config`.
    workdir: the run's folder, local or remote.

  Returns:
    The contents of summary.json, or None after a SIGTERM and on all hosts but
    the first.

  Raises:
    ValueError: for anything wrong with the config, the data or the workdir; and
      when the loss is not finite.
  """
  began = time.time()
  workdir = epath.Path(workdir)
  first_process = jax.process_index() == 0
  hosts.agree(json.dumps(configs.as_json(config)), "the config")
  records.check_workdir(workdir, configs.as_json(config), configs.FREE_KEYS)
  parts = build(config)
  state, start, host, checkpoints = start_or_resume(config, workdir, parts)
  position = host["positions"][jax.process_index()]
  skipped, elapsed = 0, host.get("elapsed_s", 0.0)
  skipped_before = all_skipped = host.get("skipped", 0)
  state_bytes = sharding.bytes_per_device(state)
  batch_size, total_steps = config.input.batch_size, parts.total_steps

  batches = input_pipeline.prefetch_to_device(
    input_pipeline.train_batches(
      parts.source,
      parts.pp,
      batch_size // jax.process_count(),
      seed=config.seed,
      start=position,
      repeats=config.input.repeats,
      num_parallel_calls=config.input.num_parallel_calls,
      prefetch=config.input.prefetch,
      skip_corrupt=config.input.skip_corrupt,
    ),
    lambda data: sharding.make_global_batch(data, parts.mesh),
  )
  metrics_file = records.Metrics(workdir, start) if first_process else None
  progress = progress_line.Progress(
    total_steps, batch_size, start, silent=not first_process
  )
  progress.show(
    f"{jax.process_count()} hosts, {parts.mesh.size} devices, "
    f"{state_bytes / 1e6:.1f} MB of train state on each"
  )
  unchecked = []  # (step, metrics on the devices)

  for step in range(start + 1, total_steps + 1):
    batch, origin = next(batches)
    if step == 1:
      images = parts.mix(batch, 0)[0].addressable_shards
      if first_process:
        pictures.save_image_grid(
          workdir / "train_images.png", np.concatenate([s.data for s in images])
        )
    state, metrics = parts.train_step(state, batch)
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
    _check_finite(unchecked, checkpoints)
    all_skipped = skipped_before + sum(hosts.gather(skipped))
    measured = {}
    if log:
      measured = {k: float(v) for k, v in unchecked[-1][1].items()}
      measured["lr"] = parts.lr(step - 1)
      measured["epoch"] = step * batch_size / parts.source.total_examples
      measured["images_per_s"] = progress.update(
        step, measured["training_loss"], measured["lr"]
      )
      if all_skipped:
        measured["skipped_corrupt"] = all_skipped
    unchecked = []
    for name in due:
      results = parts.evals[name][0].run(state.variables())
      measured |= {f"{name}/{k}": v for k, v in results.items()}
      text = "  ".join(f"{k} {v:.4g}" for k, v in results.items())
      progress.show(f"step {step}  {name}: {text}")
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
    if due or save:
      progress.resume(step)
    if stopping and not last:
      checkpoints.close()
      progress.show(f"SIGTERM: saved checkpoint {checkpoints.path / str(step)}")
      return None

  checkpoints.close()
  digest = trees.params_sha256(state.params)
  if not first_process:
    return None
  metrics_file.close()
  return _summarise(
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


def _check_finite(logged, checkpoints):
  """Raises at the first step whose loss is not finite."""
  for step, metrics in logged:
    loss = float(metrics["training_loss"])
    if not math.isfinite(loss):
      good = checkpoints.latest()
      where = "none yet" if good is None else checkpoints.path / str(good)
      raise ValueError(
        f"the loss is {loss} at step {step}; last good checkpoint: {where}"
      )


def _summarise(workdir, facts):
  logged = records.read_metrics(workdir)
  pictures.save_curves(workdir / "curves.png", logged)
  final = {k: v for r in logged for k, v in r.items()}
  rates = [r["images_per_s"] for r in logged if "images_per_s" in r]
  summary = {
    **facts,
    "images_per_s": float(np.median(rates)),
    "metrics": {
      k: v for k, v in final.items() if k not in ("step", "images_per_s")
    },
  }
  records.write_atomically(
    workdir / "summary.json", json.dumps(summary, indent=2) + "\n"
  )
  print(json.dumps(summary, indent=2))
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
  with hosts.failing_together(), errors.one_line():
    main()
