"""RMSProp as in TensorFlow 1, with which EfficientNet was trained.

Tieleman and Hinton, "Lecture 6.5 - RMSProp", COURSERA: Neural Networks for
Machine Learning, 2012; `tf.compat.v1.train.RMSPropOptimizer`.
"""

import optax

from big_crop.optim.factories import AroundLearningRate, register


@register("scale_by_rmsprop_tf")
def scale_by_rmsprop_tf(
  decay: float = 0.9,
  eps: float = 1e-10,
  momentum: float = 0.9,
  lr_in_momentum: bool = True,
) -> optax.GradientTransformation | AroundLearningRate:
  """Momentum of gradients that are divided by their root mean square.

      ms <- decay ms + (1 - decay) g^2, from ms = 1
      mom <- momentum mom + lr g / sqrt(ms + eps)
      x <- x - mom

  PyTorch's RMSProp starts from ms = 0 and adds eps outside of the root, which
  makes the size of its first steps very different.

  Args:
    decay: of the mean square; timm calls it alpha.
    eps: added inside the root.
    momentum: 0 for none.
    lr_in_momentum: whether the momentum contains the learning rate, as above,
      or is multiplied by it, as in PyTorch. This only makes a difference while
      the learning rate changes.

  Returns:
    The transformation, or its two parts if the learning rate comes between.
  """
  rms = optax.scale_by_rms(decay, eps, initial_scale=1.0, eps_in_sqrt=True)
  if not momentum:
    return rms
  trace = optax.trace(momentum)
  if lr_in_momentum:
    return AroundLearningRate(before=rms, after=trace)
  return optax.chain(rms, trace)
