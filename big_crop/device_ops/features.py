"""Ops on an example's features, as `pp_ops.features` and `pp_ops.labels`."""

import jax.numpy as jnp

from big_crop.device_ops.registry import register
from pp_ops import selection
from pp_ops.checks import check_onehot, check_shape, check_there

for _factory in (selection.get_keep, selection.get_drop, selection.get_copy):
  register(_factory.__name__.removeprefix("get_"), inkey=None)(_factory)


@register("reshape")
def get_reshape(new_shape):
  """Reshapes a feature, as `jnp.reshape` does."""
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
  check_onehot(depth, key, key_result, inkey, outkey)
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
