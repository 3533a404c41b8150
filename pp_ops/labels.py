"""Ops on labels, and on which features an example keeps."""

import tensorflow as tf

from pp_ops.errors import UserError
from pp_ops.registry import register


@register("onehot", inkey="label", outkey="labels")
def get_onehot(depth: int, multi: bool = True, on: float = 1, off: float = 0):
  """One-hot float32 vectors.

  Args:
    depth: number of classes.
    multi: whether a vector of labels becomes one multi-hot [depth] vector, as
      ImageNet-ReaL's label sets need, rather than [n, depth].
    on: value of the labels that are there.
    off: value of the others.

  Returns:
    label (int, scalar or [n]) -> float32 [depth], or [n, depth].
  """
  if depth < 1:
    raise UserError(f"depth={depth}: need at least one class")

  def onehot(label):
    hot = tf.one_hot(label, depth)
    if multi and label.shape.rank == 1:
      hot = tf.reduce_any(hot > 0, 0)
    return tf.where(tf.cast(hot, tf.bool), float(on), float(off))

  return onehot


def _check_there(features, keys, op):
  missing = [k for k in keys if k not in features]
  if missing:
    raise UserError(
      f"op {op!r}: no feature {missing[0]!r}; there are "
      + ", ".join(map(repr, features))
    )


@register("keep", inkey=None)
def get_keep(*keys: str):
  """Keeps only the named features."""

  def keep(features):
    _check_there(features, keys, "keep")
    return {k: features[k] for k in keys}

  return keep


@register("drop", inkey=None)
def get_drop(*keys: str):
  """Drops the named features."""

  def drop(features):
    _check_there(features, keys, "drop")
    return {k: v for k, v in features.items() if k not in keys}

  return drop


@register("copy", inkey=None)
def get_copy(inkey: str, outkey: str):
  """Copies feature `inkey` to `outkey`."""

  def copy(features):
    _check_there(features, [inkey], "copy")
    return {**features, outkey: features[inkey]}

  return copy
