"""The interface of objectives: the parts of training that depend on the task.

The trainer and its step know no particular objective. They call the methods of
one object, in this order:

    variables = objective.init(key, specs)         once, for a new run
    extra = objective.init_extra(key, variables)   once, for a new run
    batch = objective.prepare(batch, key)          every step, on the devices
    loss, aux = objective.loss(...)                every microbatch
    extra = objective.update_extra(...)            every step, after the update
    outputs, activations = objective.predict(...)  for evaluators
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

Batch = Mapping[str, jax.Array]


class Aux(NamedTuple):
  """What `Objective.loss` returns besides the loss.

  Attributes:
    model_state: the new state of the model's collections other than "params",
      for example `{"batch_stats": ...}`. With gradient accumulation it passes
      through the microbatches in order.
    metrics: float scalars to log, by name. With gradient accumulation they are
      averaged over the microbatches.
    outputs: arrays [B, ...] that `update_extra` needs, for example the keys
      that enter a queue. With gradient accumulation those of the microbatches
      are concatenated, in the order of the batch.
  """

  model_state: dict[str, Any]
  metrics: dict[str, jax.Array] = {}
  outputs: Any = None


class Objective:
  """Base class of objectives; a subclass overrides what it needs.

  Attributes:
    features: the features of an example that reach the devices. The pp string
      must leave each of them. A tuple in place of a name lists alternatives, of
      which at least one must be there.
    config_keys: the keys of `big_crop.objectives.KEYS`, which only objectives
      read, that this objective reads.
    model: the Flax module whose weights are trained, or None if there is no
      such module. `config.model_init` takes PyTorch's names from it, and
      optimisers learn from it which kernels have several output axes.
  """

  features: tuple[str | tuple[str, ...], ...] = ("image",)
  config_keys: tuple[str, ...] = ()
  model: Any = None

  def __init__(self, config: Any, num_classes: int | None):
    """Builds models and checks the config.

    Args:
      config: the whole config; `config.objective` holds the arguments that
        belong to this objective alone.
      num_classes: number of classes of the training dataset, if it says.

    Raises:
      ValueError: one line, for whatever is wrong with the config.
    """
    del config, num_classes

  def init(
    self, rng: jax.Array, specs: Mapping[str, jax.ShapeDtypeStruct]
  ) -> dict[str, Any]:
    """Initialises the variables.

    Args:
      rng: a key.
      specs: shape and dtype of each feature of one example, without a batch
        axis.

    Returns:
      `{"params": ...}`, the trained parameters, and beside "params" the model's
      other collections.
    """
    raise NotImplementedError

  def init_extra(self, rng: jax.Array, variables: dict[str, Any]) -> Any:
    """Initialises untrained state, for example a queue or a momentum encoder.

    A leaf whose path ends with a parameter's name is sharded like that
    parameter. `config.sharding_strategy` sees any other leaf as "extra/"
    followed by its path.

    Args:
      rng: a key.
      variables: those of `init`.

    Returns:
      A tree of arrays, or None if there is no such state.
    """
    del rng, variables

  def prepare(self, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
    """Turns the input pipeline's batch into what `loss` wants: mixing, views.

    Args:
      batch: the features, [B, ...], on the devices.
      rng: a key for this step.

    Returns:
      Arrays whose first axis is the example. All have the same number of
      examples, which may differ from B. Arrays of images, [B, H, W, 3], are
      drawn in the workdir.

    Raises:
      ValueError: one line, for a batch that does not fit.
    """
    del rng
    return dict(batch)

  def loss(
    self,
    params: Any,
    model_state: dict[str, Any],
    extra: Any,
    batch: Batch,
    rng: jax.Array,
  ) -> tuple[jax.Array, Aux]:
    """The scalar to minimise; its gradient with respect to `params` is taken.

    Args:
      params: the trained parameters.
      model_state: the model's other collections.
      extra: the state of `init_extra`.
      batch: what `prepare` returned; with gradient accumulation, a microbatch
        of it.
      rng: a key for this step and microbatch, for dropout and the like.

    Returns:
      The mean loss over the examples, a scalar, and an `Aux`.
    """
    raise NotImplementedError

  def update_extra(
    self, extra: Any, variables: dict[str, Any], outputs: Any
  ) -> Any:
    """Returns the extra state after a step.

    Args:
      extra: the state before the step.
      variables: `{"params": ..., ...}` after the optimiser's update.
      outputs: `Aux.outputs` of the whole batch.

    Returns:
      A tree like `extra`.
    """
    del variables, outputs
    return extra

  def predict(
    self, variables: dict[str, Any], image: jax.Array
  ) -> tuple[jax.Array, dict[str, Any]]:
    """Applies the model in evaluation mode: no dropout, running averages.

    Args:
      variables: what `TrainState.variables()` returns.
      image: [B, H, W, C] float.

    Returns:
      The outputs [B, ...], and a dict of activations.
    """
    raise NotImplementedError

  def for_evaluators(self) -> dict[str, Any]:
    """Further keyword arguments that an evaluator's constructor may take."""
    return {}

  def warning(self, metrics: Mapping[str, float]) -> str | None:
    """One line for the user if the metrics logged at a step look wrong."""
    del metrics
    return None
