"""Ops that choose among an example's features, for every engine.

They work on names alone, so this module does not import TensorFlow.
"""

from pp_ops.checks import check_names, check_there
from pp_ops.registry import register


@register("keep", inkey=None)
def get_keep(*keys: str):
  """Keeps only the named features."""
  check_names(keys, "keys")

  def keep(features):
    check_there(features, keys, "keep")
    return {k: features[k] for k in keys}

  return keep


@register("drop", inkey=None)
def get_drop(*keys: str):
  """Drops the named features."""
  check_names(keys, "keys")

  def drop(features):
    check_there(features, keys, "drop")
    return {k: v for k, v in features.items() if k not in keys}

  return drop


@register("copy", inkey=None)
def get_copy(inkey: str, outkey: str):
  """Copies feature `inkey` to `outkey`."""
  check_names([inkey, outkey], "[inkey, outkey]")

  def copy(features):
    check_there(features, [inkey], "copy")
    return {**features, outkey: features[inkey]}

  return copy
