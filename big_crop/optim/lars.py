"""LARS: momentum of gradients that are scaled by a trust ratio for each layer.

You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks"
(https://arxiv.org/abs/1708.03888), Algorithm 1.
"""

from typing import Any

import jax
import optax

from big_crop.optim import trust
from big_crop.optim.factories import register


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
  decay have a ratio of 1, and the learning rate is outside of the momentum; the
  paper has it inside, which differs only where it changes.

  Args:
    momentum: m.
    nesterov: whether the step is ratio (g + beta w) + m v instead of v.
    trust_coefficient: eta.
    eps: keeps the denominator from zero.
    always_adapt: whether all parameters have a ratio, as in the paper.
    weight_decay: `optim.make`'s, by `config.wd_in = "rule"`: a tree like the
      parameters' of floats.

  Returns:
    The transformation.

  Raises:
    ValueError: if no parameter would have a ratio.
  """
  trust.check_some_adapt(
    "scale_by_lars", weight_decay, always_adapt=always_adapt
  )
  trace = optax.trace(momentum, nesterov)

  def adapt(gradient, param, decay):
    if not (decay or always_adapt):
      return gradient
    size, length = trust.norm(param), trust.norm(gradient)
    # The ratio is 1 where the gradient, not the denominator, is zero.
    ratio = trust.ratio(
      trust_coefficient * size,
      (length + decay * size + eps) * (length > 0),
    )
    return ratio * (gradient + decay * param)

  def update(gradients, state, params):
    decays = trust.decays(weight_decay, params)
    scaled = jax.tree.map(adapt, gradients, params, decays)
    return trace.update(scaled, state, params)

  return optax.GradientTransformation(trace.init, update)
