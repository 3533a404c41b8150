"""Trains several runs as one program, because a small model leaves a GPU idle.

`python -m big_crop.study run --together k` trains k runs at a time that differ
in seed, learning rate or pp string. Each has its own workdir with the usual
files, and can be resumed alone. The data are packed and lie on the device, and
one call runs several steps, so that the host is not the bottleneck.
"""

import functools
import itertools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from big_crop import config as configs
from big_crop import train, trees
from big_crop.data import device_pipeline
from big_crop.models import cpu
from big_crop.parts import build
from big_crop.runtime import (
  checkpoint,
  progress,
  records,
  sharding,
  stop,
  storage,
)
from pp_ops.errors import UserError

MAY_DIFFER = ("seed", "lr", "input.pp")
# Numbers of steps that one call may run. A call of many steps spreads the cost
# of starting a program, but each number needs a program of its own to be
# compiled. On a CPU starting a program costs nothing, so 1 is enough.
_BLOCKS = {"cpu": (1,)}
_OTHERS = (16, 4, 1)


def difference(one, other) -> str | None:
  """Why two configs can't be trained together, or None if they can."""
  if one.total_steps == 0:
    return "they only evaluate"
  if one.swa:
    return "with config.swa a run ends in a pass of its own over the data"
  free = (*MAY_DIFFER, *configs.FREE_KEYS)
  as_json = configs.as_json
  return records.changed_key(as_json(one), as_json(other), free)


class ApartError(UserError):
  """Raised if runs whose configs fit still need a program for each."""


class _Run:
  """One of the runs: its files and its progress.

  Attributes:
    failure: the error that ended it before the others, or None.
  """

  def __init__(self, config, workdir):
    self.config, self.workdir = config, storage.path(workdir)
    self.failure = None
    as_json = configs.as_json(config)
    records.check_workdir(self.workdir, as_json, configs.FREE_KEYS)
    self.parts = build(config)

  def start(self, step):
    """Opens the run's files; returns its train state at `step`."""
    state, host, self.checkpoints = train.start_or_resume(
      self.config, self.workdir, self.parts, step
    )
    self.position = host["positions"][0]
    self.elapsed = host.get("elapsed_s", 0.0)
    self.metrics_file = records.Metrics(self.workdir, step)
    self.began = time.time()
    return state

  def save(self, step, state, position):
    """Saves a checkpoint as `train.run` does."""
    elapsed = self.elapsed + time.time() - self.began
    host = {"positions": [position], "skipped": 0, "elapsed_s": elapsed}
    self.checkpoints.save(step, state, host)


def _program(runs, store):
  """Compiles the runs' steps into one program.

  Returns:
    Two functions. (states, inputs) -> (states, metrics) trains for a block of
    steps: the first axis of states is the run; the first two axes of inputs and
    metrics are the step and the run. inputs -> batch preprocesses the inputs
    of one step, whose first axis is the run.
  """
  features = runs[0].parts.objective.features
  by_string = {}
  for i, run in enumerate(runs):
    by_string.setdefault(run.config.input.pp, []).append(i)
  # Runs with the same pp string are preprocessed as one batch.
  functions = [
    (indices, store.function(runs[indices[0]].parts.pp, features))
    for indices in by_string.values()
  ]
  order = np.argsort(list(itertools.chain(*by_string.values())))
  seeds = jnp.array([run.config.seed for run in runs])
  rates = jnp.array([run.config.lr for run in runs], jnp.float32)

  def preprocess(data, inputs):
    parts = []
    for indices, function in functions:
      mine = {k: v[np.array(indices)] for k, v in inputs.items()}
      flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in mine.items()}
      out = function(data, flat)
      parts.append(
        {k: v.reshape(len(indices), -1, *v.shape[1:]) for k, v in out.items()}
      )
    joined = {k: jnp.concatenate([p[k] for p in parts]) for k in parts[0]}
    return {k: v[order] for k, v in joined.items()}

  def one_run(args):
    seed, rate, state, batch = args
    return runs[0].parts.step_of(seed, rate)(state, batch)

  # On a CPU the runs go one after the other: larger products bring nothing
  # there, and convolutions with a kernel for each run, as vmap makes, are slow.
  every_run = jax.vmap(one_run)
  if jax.default_backend() == "cpu":
    every_run = functools.partial(jax.lax.map, one_run)

  def step(data, states, inputs):
    batch = preprocess(data, inputs)
    return every_run((seeds, rates, states, batch))

  options = cpu.compiler_options()

  @functools.partial(jax.jit, donate_argnums=0, compiler_options=options)
  def block(states, data, inputs):
    return jax.lax.scan(functools.partial(step, data), states, inputs)

  first = jax.jit(preprocess)
  return (
    lambda states, inputs: block(states, store.data, inputs),
    lambda inputs: first(store.data, inputs),
  )


def run(all_configs: Sequence, workdirs: Sequence[str]) -> list:
  """Trains runs together to the end, or to a SIGTERM or Ctrl-C.

  A run whose loss is not finite ends at that step; the others continue.

  Args:
    all_configs: configs that differ in `MAY_DIFFER` alone. Evaluators that use
      random numbers take the first config's seed for all runs.
    workdirs: a folder for each run.

  Returns:
    For each run the contents of its summary.json, the `UserError` that ended
    it, or None after a stop.

  Raises:
    ApartError: if the pp strings leave different features or shapes.
    ValueError: for anything wrong with the configs, the data or the workdirs.
  """
  for other in all_configs:
    if change := difference(all_configs[0], other):
      raise UserError(f"runs cannot be trained together: {change}")
  runs = [_Run(*pair) for pair in zip(all_configs, workdirs, strict=True)]
  config, parts = runs[0].config, runs[0].parts
  if config.input.engine != "device":
    raise UserError(
      'runs are trained together on config.input.engine = "device" alone'
    )
  if parts.mesh.size > 1 or jax.process_count() > 1:
    raise UserError(
      f"runs are trained together on one device, not {parts.mesh.size}: train "
      "them apart, or give a process one device"
    )
  specs = [
    device_pipeline.feature_specs(p.source, p.pp, p.objective.features)
    for p in (run.parts for run in runs)
  ]
  if any(other != specs[0] for other in specs):
    raise ApartError(
      "runs cannot be trained together: their pp strings leave other features "
      "or shapes"
    )
  num, total_steps = len(runs), parts.total_steps
  # Each run keeps its last two checkpoints, so that after a kill during a save
  # there is still a step that all runs have.
  start = checkpoint.latest_step(*workdirs, tidy=True) or 0
  states = [run.start(start) for run in runs]
  state_bytes = sharding.bytes_per_device(states[0])
  states = jax.tree.map(lambda *x: jnp.stack(x), *states)

  store = device_pipeline.store_of(parts.source, parts.mesh, config.input.hold)
  streams = [
    device_pipeline.host_inputs(
      parts.source,
      store,
      config.input.batch_size,
      run.config.seed,
      run.position,
      config.input.repeats,
    )
    for run in runs
  ]
  train_block, preprocess = _program(runs, store)

  def next_inputs():
    each = [next(stream) for stream in streams]
    return {k: np.stack([x[k] for x in each]) for k in each[0]}

  line = progress.Progress(total_steps, num * config.input.batch_size, start)
  line.show(
    f"{num} runs on 1 device, {num * state_bytes / 1e6:.1f} MB of train state, "
    + parts.describe_data()
  )
  at = lambda i: jax.tree.map(lambda x: x[i], states)
  alive = lambda: [(i, run) for i, run in enumerate(runs) if not run.failure]
  every = [config.log_training_steps, config.ckpt_steps]
  every += [steps for _, steps in parts.evals.values()]
  blocks = _BLOCKS.get(jax.default_backend(), _OTHERS)
  step, stopping, losses, shown = start, False, [], not start
  compiled = set()  # sizes of blocks

  while step < total_steps and not stopping and alive():
    ahead = min(total_steps - step, *(e - step % e for e in every))
    size = next(b for b in blocks if b <= ahead)
    if size not in compiled:
      jax.block_until_ready(losses)
      line.pause(compiling=step)
    inputs = [next_inputs() for _ in range(size)]
    if not start and shown:
      shown = False
      batch = preprocess(inputs[0])
      for i, run_ in enumerate(runs):
        mine = {k: v[i] for k, v in batch.items()}
        train.save_images(run_.workdir, run_.parts.prepare(mine, 0)[0])
    inputs = {k: np.stack([x[k] for x in inputs]) for k in inputs[0]}
    states, metrics = train_block(states, inputs)
    stop.hold()
    losses.append((step, {k: metrics[k] for k in train.FINITE}))
    if size not in compiled:
      jax.block_until_ready(metrics)
      line.resume(size)
      compiled.add(size)
    if len(losses) > 1:  # the host runs ahead by one block
      jax.block_until_ready(losses[-2][1])
    step += size

    stopping = stop.requested()
    last = step == total_steps
    log = last or step % config.log_training_steps == 0
    due = [
      name
      for name, (_, steps) in parts.evals.items()
      if last or step % steps == 0
    ]
    save = last or stopping or step % config.ckpt_steps == 0
    if not (log or due or save):
      continue
    for before, values in jax.device_get(losses):
      for i, run_ in alive():
        try:
          train.check_finite(
            [
              (before + 1 + j, {k: v[j][i] for k, v in values.items()})
              for j in range(len(values["training_loss"]))
            ],
            run_.checkpoints,
          )
        except UserError as e:
          run_.failure = e
    losses = []
    metrics = jax.device_get(metrics)
    if log:
      mean = float(np.mean(metrics["training_loss"][-1]))
      rate = line.update(step, mean, parts.lr(step - 1))
    line.pause()
    for i, run_ in alive():
      state = at(i) if due or save else None
      measured = {}
      if log:
        measured = {k: float(v[-1][i]) for k, v in metrics.items()}
        measured["lr"] = run_.parts.lr(step - 1)
        measured["epoch"] = (
          step * config.input.batch_size / parts.source.total_examples
        )
        if rate:
          measured["images_per_s"] = rate / num
      for name in due:
        found, text = train.run_evaluator(
          name, parts.evals[name][0], state.variables(), run_.workdir
        )
        measured |= found
        line.show(f"step {step}  {run_.workdir.name}  {text}")
      if measured:
        run_.metrics_file.write(step, measured)
      if save:
        position = run_.position + (step - start) * config.input.batch_size
        run_.save(step, state, position)
    line.resume()

  results = []
  for i, run_ in enumerate(runs):
    run_.checkpoints.close()
    if run_.failure or step < total_steps:
      results.append(run_.failure)
      continue
    params = at(i).params
    facts = {
      "step": total_steps,
      "num_params": sum(x.size for x in jax.tree.leaves(params)),
      "params_sha256": trees.params_sha256(params),
      "skipped_corrupt": 0,
      "state_bytes_per_device": state_bytes,
      "wall_time_s": run_.elapsed + time.time() - run_.began,
      "trained_together": num,
    }
    results.append(train.summarise(run_.workdir, facts))
  if stopping and step < total_steps:
    stop.tell(f"saved checkpoints of step {step}")
  return results
