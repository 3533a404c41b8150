"""Averages of the weights over the steps of a run: EMA and SWA.

Stochastic weight averaging, Izmailov et al., https://arxiv.org/abs/1803.05407,
Algorithm 1, takes the mean of the weights after every c-th step of the last
part of the run. Batch norm's statistics are then estimated again, in a pass
over the training data, because the activations under the mean of the weights
are not the mean of the activations.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_crop import names
from big_crop.models.convolution import BatchNorm
from big_crop.optim.schedules import UNITS, to_steps
from big_crop.step import TrainState
from pp_ops.errors import UserError


def decay(config: Mapping[str, Any], **sizes: int) -> float | Callable | None:
  """Makes the argument `ema_decay` of `step.make_step`.

  Args:
    config: the run's. `swa` is empty, or has `start_UNIT`, the first step whose
      weights enter the mean, and `every_UNIT`, the distance between such steps.
      UNIT is one of `schedules.UNITS`. Before the first such step the averages
      equal the weights.
    **sizes: `batch_size`, `data_size`, `total_steps`, see `schedules.to_steps`.

  Returns:
    `config.ema_decay`; or, with `swa`, a function from the number of updates,
    the current one included, to the decay that makes the average a plain mean.

  Raises:
    ValueError: in one line, if `ema_decay` and `swa` are both set, or if `swa`
      has a wrong key, no `every_`, or no `start_` within the run.
  """
  if not config["swa"]:
    return config["ema_decay"]
  if config["ema_decay"] is not None:
    raise UserError("config.ema_decay and config.swa are set; keep one.")
  for key in config["swa"]:
    known = [f"{k}_{unit}" for k in ("start", "every") for unit in UNITS]
    names.check("key of config.swa", key, known)
  start, every = (
    to_steps(key, config["swa"], **sizes) for key in ("start", "every")
  )
  last = max(1, sizes["total_steps"])  # a run of no steps only evaluates
  if not every or start is None or start > last:
    raise UserError(
      f"config.swa={config['swa'].to_dict()}: need a start_ within the run and "
      "an every_ above 0, for example start_percent=0.75, every_epochs=1"
    )

  def share(step):
    """The weight of the old average in the new one, at this step."""
    num = (step - start) // every
    keep = jnp.where((step - start) % every == 0, num / (num + 1), 1.0)
    return jnp.where(step < start, 0.0, keep)

  return share


def estimate_statistics(
  state: TrainState, parts: Any, batches: Iterator, num: int
) -> TrainState:
  """Replaces the batch statistics that belong to the averaged weights.

  The new statistics are the means over `num` training batches, each with the
  same weight, as in torch.optim.swa_utils.update_bn.

  Args:
    state: the train state, with averaged weights in `state.ema`.
    parts: the run's `Parts`.
    batches: training batches, from `Parts.device_batches`.
    num: number of batches.

  Returns:
    The state with the new statistics in `state.ema`.
  """

  @jax.jit
  def add(model_state, params, extra, batch, rng, n):
    def count_alike(call, args, kwargs, context):
      if isinstance(context.module, BatchNorm):
        # Flax freezes modules. Setting the attribute does no harm, because this
        # instance lives only for this call.
        object.__setattr__(context.module, "momentum", n / (n + 1))
      return call(*args, **kwargs)

    with nn.intercept_methods(count_alike):
      _, aux = parts.objective.loss(params, model_state, extra, batch, rng)
    return aux.model_state

  params = state.ema["params"]
  found = {k: v for k, v in state.ema.items() if k != "params"}
  for n in range(num):
    batch, rng = parts.prepare(next(batches)[0], state.step + n)
    found = add(found, params, state.extra, batch, rng, jnp.float32(n))
  return state.replace(ema={"params": params, **found})
