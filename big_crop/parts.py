"""Builds what a config describes: data, objective, optimiser, evaluators.

The trainer starts with `build`; commands on finished runs start with
`open_run`.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict

from big_crop import averages, evaluators, objectives, optim
from big_crop import config as configs
from big_crop import step as steps
from big_crop.config import checks
from big_crop.data import batches, sources
from big_crop.optim.schedules import to_steps
from big_crop.runtime import checkpoint, memory, records, sharding, storage
from pp_ops import registry
from pp_ops.checks import check_number
from pp_ops.errors import UserError


class Parts(NamedTuple):
  """All parts of a run, before anything is written or trained.

  Attributes:
    config: the run's config.
    mesh: the devices.
    source: this host's share of the training data.
    pp: the function of the pp string `config.input.pp`.
    objective: the objective.
    total_steps: number of steps of the whole run.
    abstract: the train state as shapes with shardings.
    init: () -> a new train state.
    prepare: (batch, step) -> the batch as the loss gets it, and a key; see
      `step.make_prepare`.
    train_step: (state, batch) -> (state, metrics), jitted.
    step_of: (seed, lr) -> a train step, not jitted, for another seed and
      learning rate, which may be traced.
    lr: step -> learning rate.
    evals: {name: (evaluator, number of steps between evaluations)}.
  """

  config: ConfigDict
  mesh: jax.sharding.Mesh
  source: sources.Source
  pp: Callable
  objective: objectives.Objective
  total_steps: int
  abstract: steps.TrainState
  init: Callable[[], steps.TrainState]
  prepare: Callable
  train_step: Callable
  step_of: Callable
  lr: Callable[[int], float]
  evals: dict[str, tuple[Any, int]]

  def device_batches(
    self, start: int = 0
  ) -> Iterator[tuple[dict[str, jax.Array], batches.Batch]]:
    """Yields training batches without end, put on the devices ahead of use.

    They begin at position `start` in the host's stream of examples. Each item
    is a dict of global arrays, and the `batches.Batch` of this host that they
    came from, without its data.
    """
    options = self.config.input
    engine = batches.engine(options.engine)
    return engine.device_batches(
      self.source,
      self.pp,
      self.objective.features,
      options.batch_size // jax.process_count(),
      mesh=self.mesh,
      seed=self.config.seed,
      start=start,
      repeats=options.repeats,
      **{k: options[k] for k in engine.OPTIONS},
    )

  def describe_data(self) -> str:
    """A line on how much of the training data the run sees, and where it is."""
    options = self.config.input
    engine = batches.engine(options.engine)
    chosen = {k: options[k] for k in engine.OPTIONS}
    seen, num = (
      self.total_steps * options.batch_size,
      self.source.total_examples,
    )
    facts = [
      f"{seen:,} examples are {seen / num:,.1f} epochs of {num:,}",
      engine.describe(self.source, self.mesh, **chosen),
      getattr(self.source, "notes", ""),
    ]
    return ", ".join(filter(None, facts))


def build(config: ConfigDict) -> Parts:
  """Builds all parts of a run, so that mistakes show before it starts.

  Raises:
    ValueError: for anything wrong with the config or the data, in one line.
  """
  checks.check(config, configs.default_config())
  num_hosts = jax.process_count()
  mesh = sharding.make_mesh(config.mesh)
  batch_size = config.input.batch_size
  sharding.check_batch_size(
    batch_size, mesh, config.grad_accum, "config.input.batch_size"
  )

  registry.import_modules(config.pp_modules)
  if not config.input.pp:
    raise UserError("config.input.pp is not set")
  engine = batches.engine(config.input.engine)
  pp = engine.get_preprocess_fn(config.input.pp)
  source = sources.get_source(
    **config.input.data,
    shard=(jax.process_index(), num_hosts),
    shuffle_buffer_size=config.input.shuffle_buffer_size,
  )
  if source.total_examples < batch_size:
    raise UserError(
      f"config.input.batch_size is {batch_size}, but split "
      f"{config.input.data.split!r} of config.input.data has "
      f"{source.total_examples} examples"
    )
  objective = objectives.make(config, source.num_classes)
  durations = {"batch_size": batch_size, "data_size": source.total_examples}
  total_steps = to_steps("total", config, **durations)
  if total_steps is None or (total_steps == 0 and config.total_steps != 0):
    raise UserError(
      "set config.total_epochs, total_steps or total_examples; total_steps = 0 "
      "evaluates config.model_init"
    )
  if total_steps > checks.MOST_STEPS:
    raise UserError(
      f"the run would have {total_steps:.3g} steps; at most "
      f"{checks.MOST_STEPS:,} can be counted"
    )
  durations["total_steps"] = total_steps

  specs = engine.feature_specs(source, pp, objective.features)
  batch = sharding.batch_of(specs, batch_size, mesh)
  memory.check({"a batch of config.input": batch}, mesh)
  prepare = jax.jit(steps.make_prepare(objective, config.seed))
  prepared, _ = jax.eval_shape(prepare, batch, 0)
  sharding.check_batch_size(
    steps.num_examples(prepared),
    mesh,
    config.grad_accum,
    "config.input.batch_size, prepared by the objective,",
  )
  shapes = steps.param_shapes(objective, specs)
  split_outputs = getattr(objective.model, "split_outputs", None)
  optimiser = functools.partial(
    optim.make, params=shapes, split_outputs=split_outputs, **durations
  )
  tx, schedules = optimiser(config)
  state_args = (objective, tx, mesh, config.sharding_strategy, specs)
  ema_decay = averages.decay(config, **durations)
  ema = ema_decay is not None
  abstract = steps.abstract_state(*state_args, ema=ema)
  memory.check({"the train state": abstract, "a batch": batch}, mesh)
  step_options = dict(
    mesh=mesh,
    state_sharding=steps.shardings_of(abstract),
    grad_accum=config.grad_accum,
    ema_decay=ema_decay,
    frozen=optim.frozen_mask(config, shapes),
  )

  def step_of(seed, lr):
    tx, _ = optimiser(config.to_dict() | {"lr": lr})
    return steps.make_step(objective, tx, seed=seed, **step_options)

  train_step = steps.make_train_step(
    objective, tx, seed=config.seed, **step_options
  )
  context = {
    "predict": jax.jit(objective.predict),
    "mesh": mesh,
    "seed": config.seed,
    "engine": config.input.engine,
    **objective.for_evaluators(),
  }
  evals = {}
  for name, args in config.evals.items():
    evaluator = evaluators.make(name, args.to_dict(), **context)
    try:
      every = to_steps("log", args, default=max(total_steps, 1), **durations)
      check_number("its steps between evaluations", every, 1)
    except UserError as e:
      raise UserError(f"config.evals.{name}: {e}") from e
    evals[name] = evaluator, every
  return Parts(
    config=config,
    mesh=mesh,
    source=source,
    pp=pp,
    objective=objective,
    total_steps=total_steps,
    abstract=abstract,
    init=lambda: steps.init_state(*state_args, seed=config.seed, ema=ema),
    prepare=prepare,
    train_step=train_step,
    step_of=step_of,
    lr=lambda step: config.lr * float(schedules[0](step)),
    evals=evals,
  )


class FinishedRun(NamedTuple):
  """A finished run, opened by a command that evaluates it.

  Attributes:
    path: path of its config.json, for errors.
    config: the config.
    objective: the objective that it was trained with.
    mesh: all devices, on one axis.
    variables: those of its last checkpoint, replicated on all devices.
  """

  path: epath.Path
  config: ConfigDict
  objective: objectives.Objective
  mesh: jax.sharding.Mesh
  variables: dict[str, Any]

  def classification(self) -> tuple[str, dict[str, Any]]:
    """The first classification evaluator of the config: name and arguments.

    Its batch size is rounded up to a multiple of the number of devices, because
    the run may have had another number.

    Raises:
      ValueError: if there is none.
    """
    for name, args in self.config.evals.to_dict().items():
      if args.get("type", "classification") == "classification":
        size = -(-args.get("batch_size", 128) // self.mesh.size)
        return name, args | {"batch_size": size * self.mesh.size}
    raise UserError(
      f"{self.path}: config.evals has no classification evaluator to take "
      "images of"
    )


def open_run(workdir: str) -> FinishedRun:
  """Rebuilds a run's objective and loads its variables.

  Args:
    workdir: the run's folder.
  """
  path = storage.path(workdir) / "config.json"
  if not path.exists():
    raise UserError(f"{workdir} has no config.json: give a run's workdir")
  # The config of an older version lacks keys that were added since, so they get
  # their defaults.
  config = configs.default_config().to_dict() | records.read_json(path)
  for gone in (
    "prob",
    "switch_prob",
  ):  # keys of older versions; only training read them
    config["mixing"].pop(gone, None)
  config = ConfigDict(config)
  registry.import_modules(config.pp_modules)
  variables = checkpoint.load_variables(workdir)
  num_classes = config.num_classes
  if not num_classes:
    # One example is enough to learn the number of classes, and the embedded
    # dataset draws every example of the split that is opened.
    first = re.match(r"[\w-]*", config.input.data.split)[0]
    data = config.input.data.to_dict()
    if first != "all":
      data["split"] = f"{first}[:1]"
    num_classes = sources.get_source(**data).num_classes
  mesh = sharding.make_mesh([("data", -1)])
  return FinishedRun(
    path=path,
    config=config,
    objective=objectives.make(config, num_classes),
    mesh=mesh,
    variables=jax.device_put(variables, sharding.replicated(mesh)),
  )


def run_names(workdirs: Sequence[str]) -> dict[str, str]:
  """Names runs: {name: workdir}.

  The name is that of the folder, preceded by as many parent folders as are
  needed to tell the runs apart.

  Raises:
    ValueError: if a run is given twice, or if no number of folders will do.
  """
  paths = [storage.path(w) for w in workdirs]
  if len(set(paths)) < len(paths):
    raise UserError("--workdir: the same run is given twice")
  for depth in range(1, 1 + max(len(p.parts) for p in paths)):
    names = ["_".join(p.parts[-depth:]) for p in paths]
    if len(set(names)) == len(names):
      return dict(zip(names, workdirs, strict=True))
  raise UserError("--workdir: two runs would have the same name; rename one")
