"""The train step: batch -> mix -> model -> loss -> gradients -> update."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from big_crop.objectives import losses
from big_crop.objectives import mixing as mixes
from big_crop.objectives import targets as target_kinds
from big_crop.runtime import sharding

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
  """Everything that a step reads and replaces.

  Attributes:
    step: int32 scalar, the updates made so far.
    params: the trainable parameters.
    model_state: the model's other collections, e.g. `{"batch_stats": ...}`.
    opt_state: the optimiser's.
    ema: averages of the parameters and the model state, laid out as
      `{"params": ..., "batch_stats": ...}`, or None.
  """

  step: jax.Array
  params: Any
  model_state: dict[str, Any]
  opt_state: optax.OptState
  ema: dict[str, Any] | None

  def variables(self) -> dict[str, Any]:
    """Returns what to evaluate with: the averages where there are any."""
    return self.ema or {"params": self.params, **self.model_state}


def param_shapes(model: nn.Module, input_shape: tuple[int, ...]) -> Any:
  """Returns the model's parameters as a tree of `jax.ShapeDtypeStruct`.

  Args:
    model: called as `model(image, train=False)`.
    input_shape: (height, width, channels) of an image.
  """
  variables = jax.eval_shape(lambda: _init_variables(model, input_shape, 0))
  return variables["params"]


def abstract_state(
  model: nn.Module,
  tx: optax.GradientTransformation,
  mesh: Mesh,
  strategy: list[tuple[str, str]],
  input_shape: tuple[int, ...],
  *,
  ema: bool = False,
) -> TrainState:
  """Returns the train state as shapes with shardings, e.g. to restore into.

  Args:
    model: called as `model(image, train=False)`.
    tx: the optimiser.
    mesh: the mesh.
    strategy: see `sharding.infer_sharding`.
    input_shape: (height, width, channels) of an image.
    ema: whether the state holds averages.

  Returns:
    A `TrainState` of `jax.ShapeDtypeStruct`.
  """
  shapes = jax.eval_shape(lambda: _init(model, tx, input_shape, 0, ema))
  shardings = sharding.infer_sharding(shapes, mesh, strategy, shapes.params)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )


def init_state(
  model: nn.Module,
  tx: optax.GradientTransformation,
  mesh: Mesh,
  strategy: list[tuple[str, str]],
  input_shape: tuple[int, ...],
  *,
  seed: int,
  ema: bool = False,
) -> TrainState:
  """Initialises the train state, sharded from the start.

  The values depend on `seed` and the parameter's name, but not on the devices
  or the strategy. For the arguments see `abstract_state`.
  """
  shapes = abstract_state(model, tx, mesh, strategy, input_shape, ema=ema)
  init = jax.jit(
    lambda: _init(model, tx, input_shape, seed, ema),
    out_shardings=shardings_of(shapes),
  )
  return init()


def shardings_of(tree: Any) -> Any:
  """Returns the sharding of every leaf."""
  return jax.tree.map(lambda leaf: leaf.sharding, tree)


def make_mix(
  num_classes: int,
  *,
  seed: int,
  mixup: Mapping[str, Any] = {},
  mixing: Mapping[str, Any] = {},
  targets: Mapping[str, Any] = {},
) -> Callable[[Batch, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
  """Returns the part of a step that comes before the model.

  For the arguments see `make_train_step`.

  Returns:
    (batch, step) -> the images that the model sees, the targets [B,
    num_classes] of the loss, and the key of the model's own randomness.
  """
  mix_examples = mixes.make(mixup, mixing)
  make_targets = target_kinds.make(**targets)

  def mix(batch, step):
    image, labels = _read_batch(batch, num_classes)
    rng = jax.random.fold_in(_keys(seed)[1], step)
    mix_rng, model_rng = jax.random.split(rng)
    image, labels = mix_examples(mix_rng, image, labels)
    return image, make_targets(labels), model_rng

  return mix


def make_train_step(
  model: nn.Module,
  tx: optax.GradientTransformation,
  *,
  loss: str,
  num_classes: int,
  mesh: Mesh,
  state_sharding: TrainState,
  seed: int,
  mixup: Mapping[str, Any] = {},
  mixing: Mapping[str, Any] = {},
  targets: Mapping[str, Any] = {},
  grad_accum: int = 1,
  ema_decay: float | None = None,
  frozen: Any | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Builds the jitted train step.

  A batch holds `image` [B, H, W, C] float, and either `label` [B] int or
  `labels` [B, num_classes] float; other arrays are ignored. Randomness is a
  function of the seed and the step, so a restart needs no random state.

  With `grad_accum` = a > 1, microbatch i is every a-th example from the i-th
  on, which leaves it on the devices that hold it. Gradients and losses are
  averaged over the microbatches, so that they equal those of the whole batch,
  except that batch norm normalises each microbatch by itself; its running
  statistics pass through the microbatches in order.

  Args:
    model: `model.apply(variables, image, train=True, rngs=..., mutable=...)`
      gives (logits [B, num_classes], dict).
    tx: the optimiser.
    loss: a name for `losses.get`; the mean over the global batch is minimised.
    num_classes: the width of the labels.
    mesh: the mesh.
    state_sharding: the shardings of the state, see `shardings_of`.
    seed: for mixing, dropout and stochastic depth.
    mixup: see `mixing.make`.
    mixing: see `mixing.make`; its mode "half" trains on B / 2 examples.
    targets: arguments of `targets.make`.
    grad_accum: microbatches in a batch.
    ema_decay: d of ema = d * ema + (1 - d) * new, for parameters and model
      state, after the update. None where the state holds no averages.
    frozen: tree of the parameters with True for those that get no gradient.

  Returns:
    (state, batch) -> (state, metrics). The state passed in is consumed. The
    metrics are float32 scalars on the devices: `training_loss`, and the global
    norms `l2_grads` (before clipping, without frozen parameters), `l2_params`
    (after the update) and `l2_updates`.

  Raises:
    ValueError: for an unknown loss, a decay without averages or the reverse,
      and, at the first call, a batch that does not fit the description.
  """
  loss_fn = losses.get(loss)
  mix = make_mix(
    num_classes, seed=seed, mixup=mixup, mixing=mixing, targets=targets
  )
  if (ema_decay is None) != (state_sharding.ema is None):
    raise ValueError(
      f"ema_decay is {ema_decay}, but the state holds"
      f" {'no ' if state_sharding.ema is None else ''}averages."
    )

  def loss_and_grads(params, model_state, image, labels, rng):
    def objective(params):
      if frozen is not None:
        params = jax.tree.map(
          lambda p, f: jax.lax.stop_gradient(p) if f else p, params, frozen
        )
      (logits, _), new_model_state = model.apply(
        {"params": params, **model_state},
        image,
        train=True,
        rngs={"dropout": rng},
        mutable=list(model_state),
      )
      return loss_fn(logits, labels).mean(), new_model_state

    (value, model_state), grads = jax.value_and_grad(objective, has_aux=True)(
      params
    )
    grads = jax.lax.with_sharding_constraint(grads, state_sharding.params)
    return value, grads, model_state

  def accumulate(params, model_state, image, labels, rng):
    def split(x):
      x = x.reshape(-1, grad_accum, *x.shape[1:]).swapaxes(0, 1)
      return jax.lax.with_sharding_constraint(
        x, sharding.batch_sharding(mesh, batch_dim=1)
      )

    def add(carry, micro):
      total, total_grads, model_state = carry
      value, grads, model_state = loss_and_grads(params, model_state, *micro)
      total_grads = jax.tree.map(jnp.add, total_grads, grads)
      return (total + value, total_grads, model_state), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    micros = split(image), split(labels), jax.random.split(rng, grad_accum)
    (total, grads, model_state), _ = jax.lax.scan(
      add, (jnp.zeros(()), zeros, model_state), micros
    )
    mean = lambda x: x / grad_accum
    return mean(total), jax.tree.map(mean, grads), model_state

  def train_step(state, batch):
    image, labels, model_rng = mix(batch, state.step)
    sharding.check_batch_size(len(image), mesh, grad_accum)
    # What mixing has cut in half lies on half of the devices.
    image, labels = jax.lax.with_sharding_constraint(
      (image, labels), sharding.batch_sharding(mesh)
    )
    compute = accumulate if grad_accum > 1 else loss_and_grads
    value, grads, model_state = compute(
      state.params, state.model_state, image, labels, model_rng
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema_decay is not None:
      ema = optax.incremental_update(
        {"params": params, **model_state}, ema, 1.0 - ema_decay
      )
    metrics = {
      "training_loss": value,
      "l2_grads": optax.tree.norm(grads),
      "l2_params": optax.tree.norm(params),
      "l2_updates": optax.tree.norm(updates),
    }
    state = TrainState(state.step + 1, params, model_state, opt_state, ema)
    return state, metrics

  return jax.jit(
    train_step,
    donate_argnums=0,
    in_shardings=(state_sharding, sharding.batch_sharding(mesh)),
    out_shardings=(state_sharding, sharding.replicated(mesh)),
  )


def make_predict(
  model: nn.Module,
) -> Callable[[Mapping[str, Any], jax.Array], jax.Array]:
  """Returns the jitted (variables, image [B, H, W, C]) -> logits [B, classes].

  The variables are those of `TrainState.variables()`.
  """
  return jax.jit(
    lambda variables, image: model.apply(variables, image, train=False)[0]
  )


def _keys(seed: int) -> tuple[jax.Array, jax.Array]:
  """Returns the key of the initialisation and the key of the steps."""
  init, steps = jax.random.split(jax.random.key(seed))
  return init, steps


def _init_variables(model, input_shape, seed):
  image = jnp.zeros((1, *input_shape))
  return dict(model.init(_keys(seed)[0], image, train=False))


def _init(model, tx, input_shape, seed, ema):
  model_state = _init_variables(model, input_shape, seed)
  averages = dict(model_state) if ema else None
  params = model_state.pop("params")
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=tx.init(params),
    ema=averages,
  )


def _read_batch(batch: Batch, num_classes: int) -> tuple[jax.Array, jax.Array]:
  image = batch["image"]
  if not jnp.issubdtype(image.dtype, jnp.floating):
    raise ValueError(
      f"The images are {image.dtype}; end input.pp with a float op such as"
      " value_range(-1, 1)."
    )
  if "labels" not in batch:
    return image, jax.nn.one_hot(batch["label"], num_classes)
  labels = batch["labels"]
  if labels.shape != (len(image), num_classes):
    raise ValueError(
      f"labels have shape {labels.shape}; {(len(image), num_classes)} is"
      " (batch, num_classes)."
    )
  return image, labels
