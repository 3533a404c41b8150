"""Ops that mix the examples of a batch, on device, inside the train step."""

import jax
import jax.numpy as jnp


def mixup(
  rng: jax.Array, image: jax.Array, labels: jax.Array, p: float
) -> tuple[jax.Array, jax.Array]:
  """Mixes every example with the one before it in the global batch.

  x~_i = l x_i + (1 - l) x_{i-1} and the same for the labels, with
  l ~ Beta(p, p): mixup (Zhang et al., https://arxiv.org/abs/1710.09412,
  section 2) in big_vision's convention: one l for the whole batch, folded to
  max(l, 1 - l), so that an example always keeps the larger part of itself.
  Unlike big_vision, which rolls within each device, the partner is taken from
  the global batch, so that the numbers do not depend on the sharding.

  Args:
    rng: a key.
    image: [B, ...] float.
    labels: [B, C] float.
    p: both parameters of the Beta distribution, > 0.

  Returns:
    The mixed images and labels, shapes and dtypes as given.
  """
  weight = jax.random.beta(rng, p, p)
  weight = jnp.maximum(weight, 1.0 - weight)

  def mix(x):
    w = weight.astype(x.dtype)
    return w * x + (1 - w) * jnp.roll(x, 1, axis=0)

  return mix(image), mix(labels)
