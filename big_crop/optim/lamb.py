"""LAMB: Adam with a trust ratio for each layer.

You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76
minutes" (https://arxiv.org/abs/1904.00962), Algorithm 2.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from big_crop.optim import moments, trust
from big_crop.optim.factories import register


@register("scale_by_lamb")
def scale_by_lamb(
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-6,
  trust_clip: bool = False,
  always_adapt: bool = False,
  weight_decay: Any = None,
) -> optax.GradientTransformation:
  """Adam's direction plus weight decay, made as long as the parameter.

  With Adam's bias-corrected direction r and weight decay lambda of a parameter
  x, the lines of Algorithm 2 that differ from Adam are, phi being the identity,

      u = r + lambda x
      x <- x - lr ||x|| / ||u|| u

  where a norm of zero makes the ratio 1. As in timm (and NVIDIA's LAMB), but
  not in the paper, parameters without weight decay are left to Adam. timm's
  class clips the gradients' global norm to 1 unless told otherwise: that is
  `config.grad_clip_norm = 1.0`. Weight decay apart from the rule, timm's
  `decoupled_decay`, is `config.wd_in = "update"` with `always_adapt`, but for
  wd, which is then not multiplied by lr.

  Args:
    b1: decay of the mean of gradients.
    b2: decay of the mean of their squares.
    eps: added to the root of the latter.
    trust_clip: whether the ratio is at most 1 (LAMBC, in timm).
    always_adapt: whether all parameters have a ratio, as in the paper.
    weight_decay: `optim.make`'s, by `config.wd_in = "rule"`: a tree like the
      parameters' of floats.

  Returns:
    The transformation.

  Raises:
    ValueError: if no parameter would have a ratio.
  """
  trust.check_some_adapt(
    "scale_by_lamb", weight_decay, always_adapt=always_adapt
  )

  def adapt(mean, square, param, decay, count):
    mean = mean / moments.correction(b1, count)
    root = jnp.sqrt(square / moments.correction(b2, count))
    direction = mean / (root + eps) + decay * param
    if not (decay or always_adapt):
      return direction
    ratio = trust.ratio(trust.norm(param), trust.norm(direction))
    return (jnp.minimum(ratio, 1) if trust_clip else ratio) * direction

  def update(gradients, state, params):
    state = moments.update(gradients, state, b1, b2)
    decays = trust.decays(weight_decay, params)
    directions = jax.tree.map(
      functools.partial(adapt, count=state.count),
      state.mu,
      state.nu,
      params,
      decays,
    )
    return directions, state

  return optax.GradientTransformation(optax.scale_by_adam().init, update)
