"""Adam's two moments, and their bias correction to float32's last digits."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax


def update(
  gradients: Any, state: optax.ScaleByAdamState, b1: float, b2: float
) -> optax.ScaleByAdamState:
  """Returns the state after a step (https://arxiv.org/abs/1412.6980, Alg. 1).

  Args:
    gradients: g.
    state: the step count, and the means mu of g and nu of g^2.
    b1: decay of mu.
    b2: decay of nu.
  """
  return optax.ScaleByAdamState(
    optax.safe_increment(state.count),
    optax.tree.update_moment(gradients, state.mu, b1, 1),
    optax.tree.update_moment(gradients, state.nu, b2, 2),
  )


def correction(decay: float, count: jax.Array) -> jax.Array:
  """Returns 1 - decay^count, by which a mean is to be divided.

  Computed as it is written, in float32, it is 3e-5 off at the first step for a
  decay of 0.999, and so would be the step.
  """
  return -jnp.expm1(count * math.log(decay)) if decay else jnp.float32(1)
