"""LAMB and LARS: updates of each layer scaled by a trust ratio.

LAMB: You et al., "Large Batch Optimization for Deep Learning: Training BERT in
76 minutes" (https://arxiv.org/abs/1904.00962), Algorithm 2. LARS: You, Gitman,
Ginsburg, "Large Batch Training of Convolutional Networks"
(https://arxiv.org/abs/1708.03888), Algorithm 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from big_crop.optim.factories import add_decay, decays, register
from pp_ops.errors import UserError


@register("scale_by_lamb")
def scale_by_lamb(
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-6,
  always_adapt: bool = False,
  weight_decay: Any = None,
) -> optax.GradientTransformation:
  """Adam's direction plus weight decay, made as long as the parameter.

  With Adam's bias-corrected direction r and weight decay lambda of a parameter
  x, the lines of Algorithm 2 that differ from Adam are, phi being the identity,

      u = r + lambda x
      x <- x - lr ||x|| / ||u|| u

  where a norm of zero makes the ratio 1. As in timm (and NVIDIA's LAMB), but
  not in the paper, parameters without weight decay get Adam's direction. timm's
  LAMB clips the gradients' global norm to 1 by default; here this is
  `config.grad_clip_norm = 1.0`. timm's `decoupled_decay` with `always_adapt` is
  `config.wd_in = "update"` with `always_adapt` here, except that timm
  multiplies the weight decay by the learning rate.

  Args:
    b1: decay of the mean of gradients.
    b2: decay of the mean of squared gradients.
    eps: added to the root of the mean square.
    always_adapt: whether all parameters have a ratio, as in the paper.
    weight_decay: given by `optim.make` if `config.wd_in = "rule"`: a tree of
      floats like the parameters.

  Returns:
    The transformation.
  """
  _check_some_adapt("scale_by_lamb", weight_decay, always_adapt)
  direction = [optax.scale_by_adam(b1, b2, eps)]
  if weight_decay is not None:
    direction.append(add_decay(weight_decay))
  adapted = always_adapt or jax.tree.map(bool, weight_decay)
  return optax.chain(
    *direction, optax.masked(optax.scale_by_trust_ratio(), adapted)
  )


@register("scale_by_lars")
def scale_by_lars(
  momentum: float = 0.9,
  nesterov: bool = False,
  trust_coefficient: float = 1e-3,
  eps: float = 1e-8,
  always_adapt: bool = False,
  weight_decay: Any = None,
) -> optax.GradientTransformation:
  """Momentum of layer-wise scaled gradients.

  With weight decay beta, coefficient eta and momentum m, a parameter w with
  gradient g has

      ratio = eta ||w|| / (||g|| + beta ||w|| + eps)
      v <- m v + ratio (g + beta w)
      w <- w - lr v

  where a norm of zero makes the ratio 1. As in timm, parameters without weight
  decay have a ratio of 1, and the learning rate multiplies the momentum. In the
  paper the momentum contains the learning rate, which only makes a difference
  while the learning rate changes.

  Args:
    momentum: m.
    nesterov: whether the step is ratio (g + beta w) + m v instead of v.
    trust_coefficient: eta.
    eps: keeps the denominator from zero.
    always_adapt: whether all parameters have a ratio, as in the paper.
    weight_decay: given by `optim.make` if `config.wd_in = "rule"`: a tree of
      floats like the parameters.

  Returns:
    The transformation.
  """
  _check_some_adapt("scale_by_lars", weight_decay, always_adapt)

  # Not optax.scale_by_trust_ratio, because that divides by ||g + beta w||.
  def adapt(gradient, param, decay):
    if not (decay or always_adapt):
      return gradient
    size, length = jnp.linalg.norm(param), jnp.linalg.norm(gradient)
    ratio = trust_coefficient * size / (length + decay * size + eps)
    ratio = jnp.where((size > 0) & (length > 0), ratio, 1)
    return ratio * (gradient + decay * param)

  scale = optax.stateless(
    lambda gradients, params: jax.tree.map(
      adapt, gradients, params, decays(weight_decay, params)
    )
  )
  return optax.chain(scale, optax.trace(momentum, nesterov))


def _check_some_adapt(rule: str, weight_decay: Any, always_adapt: bool) -> None:
  """Raises an error if no parameter would have a trust ratio."""
  if not (always_adapt or any(jax.tree.leaves(weight_decay))):
    raise UserError(
      f"{rule} adapts parameters with weight decay, and none has any: set"
      " config.wd and config.wd_in='rule', or config.optax.always_adapt."
    )
