"""The trust ratio of layer-wise adaptive rates (LARS, LAMB)."""

from typing import Any

import jax
import jax.numpy as jnp


def norm(x: jax.Array) -> jax.Array:
  """Returns the Euclidean norm of all elements, a scalar."""
  return jnp.sqrt(jnp.sum(jnp.square(x)))


def ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
  """Returns their quotient; 1 where either is zero, so that zeros can move."""
  usable = (numerator > 0) & (denominator > 0)
  return jnp.where(usable, numerator / jnp.where(usable, denominator, 1), 1)


def decays(weight_decay: Any, params: Any) -> Any:
  """Returns the tree of weight decays, zeros where none are given."""
  if weight_decay is None:
    return jax.tree.map(lambda _: 0.0, params)
  return weight_decay


def check_some_adapt(
  rule: str, weight_decay: Any, *, always_adapt: bool
) -> None:
  """Raises where no parameter would have a trust ratio.

  Args:
    rule: what the config calls the rule.
    weight_decay: None, or the tree of floats.
    always_adapt: whether parameters without weight decay have one.

  Raises:
    ValueError: one line.
  """
  if not (always_adapt or any(jax.tree.leaves(weight_decay))):
    raise ValueError(
      f"{rule} adapts parameters with weight decay, and none has any: set"
      " config.wd and config.wd_in='rule', or config.optax.always_adapt."
    )
