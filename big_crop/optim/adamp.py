"""AdamP: Adam whose steps do not lengthen scale-invariant weights.

Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on
Scale-invariant Weights" (https://arxiv.org/abs/2006.08217), Algorithm 2.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax

from big_crop import trees
from big_crop.optim import layout
from big_crop.optim.factories import decays, register


@register("scale_by_adamp")
def scale_by_adamp(
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  delta: float = 0.1,
  wd_ratio: float = 0.1,
  nesterov: bool = False,
  weight_decay: Any = None,
  split_outputs: Sequence[str] | None = None,
) -> optax.GradientTransformation:
  """Adam's direction, without its part along a scale-invariant parameter.

  A parameter w counts as scale-invariant if its gradient g is nearly orthogonal
  to w: |cos(w, g)| < delta / sqrt(dim(w)). Then the direction p is projected,
  to p - (w / ||w||) (w / ||w||) . p. As in the authors' code, the test is made
  first unit by unit: each unit has its own norm, cosine and dimension, and all
  units are projected if the largest cosine passes. Otherwise the parameter as a
  whole is tested. Biases and scales get Adam's direction.

  Args:
    b1: decay of the mean of gradients.
    b2: decay of the mean of squared gradients.
    eps: added to the root of the mean square, and to norms.
    delta: how orthogonal a gradient must be.
    wd_ratio: factor of the weight decay of parameters that were projected.
    nesterov: whether b1 m + (1 - b1) g takes the place of the mean m. timm's
      `--opt adamp` is this, with a `wd_ratio` of 0.01.
    weight_decay: given by `optim.make` if `config.wd_in = "rule"`: a tree of
      floats like the parameters. The decay is added to the direction and
      therefore multiplied by the learning rate.
    split_outputs: given by `optim.make`.

  Returns:
    The transformation.
  """

  def update(gradients, state, params):
    count = optax.safe_increment(state.count)
    mu = optax.tree.update_moment(gradients, state.mu, b1, 1)
    nu = optax.tree.update_moment(gradients, state.nu, b2, 2)
    means = optax.tree.update_moment(gradients, mu, b1, 1) if nesterov else mu
    means = optax.tree.bias_correction(means, b1, count)
    squares = optax.tree.bias_correction(nu, b2, count)

    def direction(name, gradient, mean, square, param, decay):
      step = mean / (jnp.sqrt(square) + eps)
      if layout.is_vector(name, param.ndim):
        return step + decay * param
      axes = layout.input_axes(name, param.ndim, split_outputs)
      step, projected = _project(step, gradient, param, axes, delta, eps)
      return step + decay * jnp.where(projected, wd_ratio, 1) * param

    directions = trees.map_with_names(
      direction,
      gradients,
      means,
      squares,
      params,
      decays(weight_decay, params),
    )
    return directions, optax.ScaleByAdamState(count, mu, nu)

  return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _project(step, gradient, param, axes, delta, eps):
  """Returns the step, projected if scale-invariant, and whether it is that."""
  result, projected = step, False
  # The units come last, because their projection replaces that of the whole.
  for over in (tuple(range(param.ndim)), axes):
    dot = lambda x, y, over=over: jnp.sum(x * y, over, keepdims=True)
    size = lambda x, dot=dot: jnp.sqrt(dot(x, x))
    norm = size(param)
    cosine = dot(gradient, param) / (
      jnp.maximum(size(gradient), eps) * jnp.maximum(norm, eps)
    )
    dim = math.prod(param.shape[axis] for axis in over)
    orthogonal = jnp.abs(cosine).max() < delta / dim**0.5
    unit = param / (norm + eps)
    result = jnp.where(orthogonal, step - unit * dot(unit, step), result)
    projected |= orthogonal
  return result, projected
