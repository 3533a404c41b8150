"""Adaptive gradient clipping: a unit's gradient relative to its weights.

Brock et al., "High-Performance Large-Scale Image Recognition Without
Normalization" (https://arxiv.org/abs/2102.06171), equation 3.
"""

from collections.abc import Collection, Sequence

import jax.numpy as jnp
import optax

from big_crop import trees
from big_crop.optim import layout


def adaptive_grad_clip(
  clipping: float,
  exclude: Collection[str] = (),
  eps: float = 1e-3,
  split_outputs: Sequence[str] | None = None,
) -> optax.GradientTransformation:
  """Clips the gradient G_i of each unit i with weights W_i:

      G_i <- min(1, clipping max(||W_i||, eps) / ||G_i||) G_i

  optax's function of this name tells the units by the number of axes, which is
  wrong for attention's output [heads, head_dim, d] and for position embeddings.
  Here `layout` tells them by the parameter's name.

  Args:
    clipping: lambda, the largest ratio of the norms.
    exclude: names of parameters that are not clipped. The paper excludes the
      last layer.
    eps: the least ||W_i||, so that weights of zero get a gradient.
    split_outputs: see `layout.splits_output`.

  Returns:
    The transformation, without state.
  """

  def update(gradients, params):
    def clip(name, gradient, param):
      if name in exclude:
        return gradient
      axes = layout.input_axes(name, param.ndim, split_outputs)
      norm = lambda x: jnp.sqrt(jnp.sum(x * x, axes, keepdims=True))
      largest = clipping * jnp.maximum(norm(param), eps)
      return gradient * jnp.minimum(
        1, largest / jnp.maximum(norm(gradient), 1e-6)
      )

    return trees.map_with_names(clip, gradients, params)

  return optax.stateless(update)
