"""The op `random_apply`: applies a whole pp string to some of the examples."""

import tensorflow as tf

from pp_ops.checks import check_random_apply, check_same_features
from pp_ops.registry import build, register


def _tensors(features):
  return tf.nest.map_structure(
    lambda x: x if tf.is_tensor(x) else tf.convert_to_tensor(x), features
  )


def _kinds(features):
  """Describes each feature's dtype and rank in words; keeps the nesting."""
  return tf.nest.map_structure(
    lambda x: f"{x.dtype.name} of rank {x.shape.rank}", features
  )


@register("random_apply", inkey=None)
def get_random_apply(p: float, ops: str):
  """Applies a pp string with probability `p`; torchvision's `RandomApply`.

  The ops read and write the example's features as they would in the outer pp
  string, and may have a `key` of their own. They must not add or remove
  features, nor change a feature's dtype or rank.

  Args:
    p: the probability.
    ops: a pp string, such as "color_jitter(0.4, 0.4, 0.4, 0.1)|gaussian_blur".

  Returns:
    A random op on the features.
  """
  check_random_apply(p, ops)
  functions = build(ops)

  def random_apply(features, rng):
    features = _tensors(features)

    def with_ops():
      out = features
      for function in functions:
        # All inner ops draw from the outer op's Rng, one after the other.
        out = function(out, lambda position: rng)
      out = _tensors(out)
      check_same_features(ops, _kinds(features), _kinds(out))
      return out

    def either():
      return tf.cond(rng.uniform() < p, with_ops, lambda: features)

    if tf.executing_eagerly():
      # An eager `tf.cond` would run one branch, and count draws of that branch
      # alone. In a graph function both branches are traced and counted, so that
      # later draws are the same in either case.
      either = tf.function(either, autograph=False)
    return either()

  return random_apply
