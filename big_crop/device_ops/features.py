"""Ops on an example's features, as `pp_ops.features` and `pp_ops.labels`."""

import jax.numpy as jnp

from big_crop.device_ops.registry import register
from pp_ops.checks import check_names, check_shape, check_there
from pp_ops.errors import UserError


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


@register("reshape")
def get_reshape(new_shape):
  """`jnp.reshape`."""
  check_shape(new_shape, "new_shape")
  return lambda x: x.reshape(new_shape)


@register("onehot", inkey=None)
def get_onehot(
  depth: int,
  key: str | None = None,
  key_result: str | None = None,
  multi: bool = True,
  on: float = 1,
  off: float = 0,
  inkey: str | None = None,
  outkey: str | None = None,
):
  """One-hot float32 vectors; see `pp_ops.labels.get_onehot`."""
  if type(depth) is not int or depth < 1:
    raise UserError(f"depth={depth}: need a number of classes, at least one")
  if (key or key_result) and (inkey or outkey):
    raise UserError("give key and key_result, or inkey and outkey, not both")
  if not isinstance(key, str | None):
    raise UserError(f"key={key!r}: need the name of a feature")
  given = key or inkey

  def onehot(features):
    read = given or ("labels" if "labels" in features else "label")
    check_there(features, [read], "onehot")
    label = features[read]
    hot = label[..., None] == jnp.arange(depth)
    if multi and label.ndim == 1:
      hot = hot.any(0)
    hot = jnp.where(hot, jnp.float32(on), jnp.float32(off))
    return {**features, key_result or key or outkey or "labels": hot}

  return onehot
