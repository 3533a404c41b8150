"""The train step: batch -> prepare -> loss -> gradients -> update.

This file has the parts that are the same for all objectives; an objective
(`big_crop.objectives.base`) defines `prepare` and the loss.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from big_crop import trees
from big_crop.models import cpu
from big_crop.objectives import Aux, Batch, Objective
from big_crop.runtime import sharding
from pp_ops.errors import UserError

Metrics = dict[str, jax.Array]
Specs = Mapping[str, jax.ShapeDtypeStruct]


@flax.struct.dataclass
class TrainState:
  """The state that a step reads and replaces.

  Attributes:
    step: int32 scalar, the number of updates so far.
    params: the trainable parameters.
    model_state: the model's other collections, e.g. `{"batch_stats": ...}`.
    opt_state: the optimiser's state.
    ema: averages of the parameters and the model state, as
      `{"params": ..., "batch_stats": ...}`, or None.
    extra: the objective's extra state, for example a queue, or None.
  """

  step: jax.Array
  params: Any
  model_state: dict[str, Any]
  opt_state: optax.OptState
  ema: dict[str, Any] | None
  extra: Any = None

  def variables(self) -> dict[str, Any]:
    """The variables to evaluate: the averages, if there are any."""
    return self.ema or {"params": self.params, **self.model_state}


def param_shapes(objective: Objective, specs: Specs) -> Any:
  """Returns the parameters as a tree of `jax.ShapeDtypeStruct`.

  Args:
    objective: the objective.
    specs: shape and dtype of each feature of an example, without a batch axis.
  """
  return jax.eval_shape(lambda: _init_variables(objective, specs, 0))["params"]


def renew_extra(
  objective: Objective, state: TrainState, seed: int
) -> TrainState:
  """Makes the extra state again, from the state's present variables.

  To be called after `config.model_init` has replaced the variables, of which a
  momentum encoder is a copy.

  Args:
    objective: the objective.
    state: a new state.
    seed: of the initialisation.

  Returns:
    The state; its extra state is sharded as before.
  """

  def make(variables):
    extra = _init_extra(objective, seed, variables)
    # Copied, because the train step cannot be given one buffer twice.
    return jax.tree.map(jnp.copy, extra)

  if not jax.tree.leaves(state.extra):
    return state
  shardings = jax.tree.map(lambda x: x.sharding, state.extra)
  variables = {"params": state.params, **state.model_state}
  return state.replace(extra=jax.jit(make, out_shardings=shardings)(variables))


def abstract_state(
  objective: Objective,
  tx: optax.GradientTransformation,
  mesh: Mesh,
  strategy: list[tuple[str, str]],
  specs: Specs,
  *,
  ema: bool = False,
) -> TrainState:
  """The train state as `jax.ShapeDtypeStruct`s with shardings.

  Args:
    objective: the objective.
    tx: the optimiser.
    mesh: the mesh.
    strategy: see `sharding.infer_sharding`.
    specs: shape and dtype of each feature of an example, without a batch axis.
    ema: whether the state holds averages.
  """
  shapes = jax.eval_shape(lambda: _init(objective, tx, specs, 0, ema))
  shardings = sharding.infer_sharding(
    shapes, mesh, strategy, _names_with_rules(shapes)
  )
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )


def _names_with_rules(shapes):
  """Names that sharding rules apply to: parameters, and some extra state.

  A leaf of the extra state whose name ends with a parameter's name is not among
  them, because it is sharded like that parameter.
  """
  params = [name for name, _ in trees.named_leaves(shapes.params)]
  extra = [name for name, _ in trees.named_leaves({"extra": shapes.extra})]
  follows = tuple(f"/{name}" for name in params)
  return [name for name in extra if not name.endswith(follows)] + params


def init_state(
  objective: Objective,
  tx: optax.GradientTransformation,
  mesh: Mesh,
  strategy: list[tuple[str, str]],
  specs: Specs,
  *,
  seed: int,
  ema: bool = False,
) -> TrainState:
  """Initialises the train state directly on the devices, sharded.

  The values depend on `seed` and the parameter's name, but not on the devices
  or the strategy. For the other arguments see `abstract_state`.
  """
  shapes = abstract_state(objective, tx, mesh, strategy, specs, ema=ema)
  init = jax.jit(
    lambda: _init(objective, tx, specs, seed, ema),
    out_shardings=shardings_of(shapes),
  )
  return init()


def shardings_of(tree: Any) -> Any:
  """Returns the sharding of every leaf."""
  return jax.tree.map(lambda leaf: leaf.sharding, tree)


def make_prepare(
  objective: Objective, seed: int
) -> Callable[[Batch, jax.Array], tuple[dict[str, jax.Array], jax.Array]]:
  """Returns the part of a step that comes before the loss.

  Returns:
    A function (batch, step) -> the prepared batch, and the key for the loss.
  """

  def prepare(batch, step):
    rng = jax.random.fold_in(_keys(seed)[1], step)
    prepare_rng, loss_rng = jax.random.split(rng)
    return objective.prepare(batch, prepare_rng), loss_rng

  return prepare


def make_step(
  objective: Objective,
  tx: optax.GradientTransformation,
  *,
  mesh: Mesh,
  state_sharding: TrainState,
  seed: int,
  grad_accum: int = 1,
  ema_decay: float | Callable[[jax.Array], jax.Array] | None = None,
  frozen: Any | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Builds the train step, not jitted.

  Random numbers are a function of the seed and the step, so that a restart
  needs no saved random state.

  With `grad_accum` = a > 1, microbatch i has the examples i, i + a, i + 2a, ...
  of the batch, so that examples need not move between devices. Gradients,
  losses and the objective's metrics are averaged over the microbatches, so that
  they equal those of the whole batch, except that batch norm normalises each
  microbatch by itself; its running statistics pass through the microbatches in
  order.

  Args:
    objective: the objective, whose loss is minimised.
    tx: the optimiser.
    mesh: the mesh.
    state_sharding: the shardings of the state, see `shardings_of`.
    seed: for mixing, dropout and stochastic depth; an int, or a traced int32
      scalar.
    grad_accum: number of microbatches in a batch.
    ema_decay: d of ema = d * ema + (1 - d) * new, for parameters and model
      state, after the update; or a function from the number of updates, this
      one included, to d. None if the state holds no averages.
    frozen: tree like the parameters, True for those that get no gradient.

  Returns:
    (state, batch) -> (state, metrics). The metrics are float32 scalars on the
    devices: `training_loss`, the global norms `l2_grads` (before clipping,
    without frozen parameters), `l2_params` (after the update) and `l2_updates`,
    and those of the objective.

  Raises:
    ValueError: for a decay without averages or averages without a decay; and,
      when the step is first called, for a batch that the objective rejects.
  """
  prepare = make_prepare(objective, seed)
  if (ema_decay is None) != (state_sharding.ema is None):
    raise UserError(
      f"ema_decay is {ema_decay}, but the state holds"
      f" {'no ' if state_sharding.ema is None else ''}averages."
    )

  def loss_and_grads(params, model_state, extra, batch, rng):
    def loss(params):
      if frozen is not None:
        params = jax.tree.map(
          lambda p, f: jax.lax.stop_gradient(p) if f else p, params, frozen
        )
      return objective.loss(params, model_state, extra, batch, rng)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    grads = jax.lax.with_sharding_constraint(grads, state_sharding.params)
    return value, grads, aux

  def accumulate(params, model_state, extra, batch, rng):
    def split(x):
      x = x.reshape(-1, grad_accum, *x.shape[1:]).swapaxes(0, 1)
      return jax.lax.with_sharding_constraint(
        x, sharding.batch_sharding(mesh, batch_dim=1)
      )

    def add(carry, micro):
      total, total_grads, model_state = carry
      value, grads, aux = loss_and_grads(params, model_state, extra, *micro)
      total_grads = jax.tree.map(jnp.add, total_grads, grads)
      carry = total + value, total_grads, aux.model_state
      return carry, (aux.metrics, aux.outputs)

    zeros = jax.tree.map(jnp.zeros_like, params)
    micros = jax.tree.map(split, batch), jax.random.split(rng, grad_accum)
    (total, grads, model_state), (metrics, outputs) = jax.lax.scan(
      add, (jnp.zeros(()), zeros, model_state), micros
    )
    mean = lambda x: x / grad_accum
    join = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
    metrics = {k: v.mean(0) for k, v in metrics.items()}
    aux = Aux(model_state, metrics, jax.tree.map(join, outputs))
    return mean(total), jax.tree.map(mean, grads), aux

  def train_step(state, batch):
    batch, rng = prepare(batch, state.step)
    sharding.check_batch_size(num_examples(batch), mesh, grad_accum)
    # The mixing mode "half" keeps the examples of half of the devices only;
    # spread them over all devices again.
    batch = jax.lax.with_sharding_constraint(
      batch, sharding.batch_sharding(mesh)
    )
    compute = accumulate if grad_accum > 1 else loss_and_grads
    value, grads, aux = compute(
      state.params, state.model_state, state.extra, batch, rng
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    variables = {"params": params, **aux.model_state}
    ema = state.ema
    if ema_decay is not None:
      decay = ema_decay(state.step + 1) if callable(ema_decay) else ema_decay
      ema = optax.incremental_update(variables, ema, 1.0 - decay)
    extra = objective.update_extra(state.extra, variables, aux.outputs)
    metrics = {
      **aux.metrics,
      "training_loss": value,
      "l2_grads": optax.tree.norm(grads),
      "l2_params": optax.tree.norm(params),
      "l2_updates": optax.tree.norm(updates),
    }
    state = TrainState(
      state.step + 1, params, aux.model_state, opt_state, ema, extra
    )
    return state, metrics

  return train_step


def make_train_step(
  *args, mesh: Mesh, state_sharding: TrainState, **kwargs
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """The jitted step of `make_step`; it donates (overwrites) its input state."""
  return jax.jit(
    make_step(*args, mesh=mesh, state_sharding=state_sharding, **kwargs),
    donate_argnums=0,
    in_shardings=(state_sharding, sharding.batch_sharding(mesh)),
    out_shardings=(state_sharding, sharding.replicated(mesh)),
    compiler_options=cpu.compiler_options(),
  )


def num_examples(batch: Batch) -> int:
  """How many examples a batch holds."""
  sizes = {k: len(v) for k, v in batch.items()}
  if len(set(sizes.values())) != 1:
    raise UserError(f"the arrays of a batch differ in their size: {sizes}")
  return next(iter(sizes.values()))


def _keys(seed: int) -> tuple[jax.Array, jax.Array]:
  """Returns the key for the initialisation and the key for the steps."""
  init, steps = jax.random.split(jax.random.key(seed))
  return init, steps


def _init_variables(objective, specs, seed):
  return objective.init(_keys(seed)[0], specs)


def _init_extra(objective, seed, variables):
  return objective.init_extra(jax.random.fold_in(_keys(seed)[0], 1), variables)


def _init(objective, tx, specs, seed, ema):
  variables = _init_variables(objective, specs, seed)
  extra = _init_extra(objective, seed, variables)
  model_state = {k: v for k, v in variables.items() if k != "params"}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables["params"],
    model_state=model_state,
    opt_state=tx.init(variables["params"]),
    ema=dict(variables) if ema else None,
    extra=extra,
  )
