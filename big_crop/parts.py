"""What a config amounts to: its data, objective, optimiser and evaluators.

`build` is what the trainer starts with; `open_run` is where every command
starts that looks at a finished run.
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
  """What a run needs, before anything is written or trained.

  Attributes:
    config: the run's config.
    mesh: the devices.
    source: this host's share of the training data.
    pp: its pp function.
    objective: what is minimised.
    total_steps: steps of the whole run.
    abstract: the train state as shapes with shardings.
    init: () -> a new train state.
    prepare: (batch, step) -> the batch as the model sees it, and a key; see
      `step.make_prepare`.
    train_step: (state, batch) -> (state, metrics).
    step_of: (seed, lr) -> such a step, not jitted, for another seed and
      learning rate; these may be arrays.
    lr: step -> learning rate.
    evals: {name: (evaluator, every how many steps)}.
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
    """The endless training batches, on the devices ahead of their use.

    They begin at position `start` in the host's stream of examples. Yields
    global arrays, and this host's batch that they came from, without its data.
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
    """How much of the training data the run sees, and where they are."""
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
  """Builds what a run needs, so that mistakes show before it starts.

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
  """A run that is looked at.

  Attributes:
    path: of its config.json, for errors.
    config: the config.
    objective: what it was trained for.
    mesh: all devices, on one axis.
    variables: of its last checkpoint, on every device.
  """

  path: epath.Path
  config: ConfigDict
  objective: objectives.Objective
  mesh: jax.sharding.Mesh
  variables: dict[str, Any]

  def classification(self) -> tuple[str, dict[str, Any]]:
    """The first classification evaluator of the config: name and arguments.

    Its batch size is made to fit, because the run may have had other devices.

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
  # A run of an older version lacks the keys that have come since.
  config = configs.default_config().to_dict() | records.read_json(path)
  for gone in (
    "prob",
    "switch_prob",
  ):  # and has these, which training alone read
    config["mixing"].pop(gone, None)
  config = ConfigDict(config)
  registry.import_modules(config.pp_modules)
  variables = checkpoint.load_variables(workdir)
  num_classes = config.num_classes
  if not num_classes:
    # One example says as much, and the embedded dataset draws what is opened.
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
  """{what to call a run: its workdir}: the folder, with parents if need be.

  Raises:
    ValueError: if a run is given twice.
  """
  paths = [storage.path(w) for w in workdirs]
  if len(set(paths)) < len(paths):
    raise UserError("--workdir: the same run is given twice")
  depth = 1
  while len({p.parts[-depth:] for p in paths}) < len(paths):
    depth += 1
  names = ["_".join(p.parts[-depth:]) for p in paths]
  return dict(zip(names, workdirs, strict=True))
