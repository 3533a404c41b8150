"""Mixes the examples of a batch on the device, inside the train step."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from big_crop import names
from big_crop.objectives import cutmix
from pp_ops.errors import UserError

Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def make(
  mixup: Mapping[str, Any] = {},
  mixing: Mapping[str, Any] = {},
  repeats: int = 1,
) -> Mix:
  """Returns the mixing that `config.mixup` or `config.mixing` describes.

  Args:
    mixup: for big_vision's mixup, the arguments `p` (0 mixes nothing) and `per`
      of the function `mixup`.
    mixing: for timm's mixup and CutMix, the arguments of `cutmix.make`.
    repeats: how many times in a row an image is in the batch.

  Returns:
    A function (rng, image, labels) -> mixed image and labels.

  Raises:
    ValueError: if either has a wrong value, or both are on.
  """
  mixes = [_make_mixup(repeats, **mixup), cutmix.make(**mixing)]
  if all(mixes):
    raise UserError("config.mixup and config.mixing are both on; keep one.")
  return mixes[0] or mixes[1] or (lambda rng, image, labels: (image, labels))


def _make_mixup(repeats, p=0.0, per="batch"):
  names.check("config.mixup.per", per, ("batch", "example"))
  if p < 0:
    raise UserError(f"config.mixup.p is {p}, but must be at least 0.")
  return functools.partial(mixup, p=p, per=per, shift=repeats) if p else None


def mixup(
  rng: jax.Array,
  image: jax.Array,
  labels: jax.Array,
  p: float,
  per: str = "batch",
  shift: int = 1,
) -> tuple[jax.Array, jax.Array]:
  """Mixes every example with one before it in the global batch.

  x~_i = l x_i + (1 - l) x_{i-shift} and the same for the labels, with
  l ~ Beta(p, p): mixup (Zhang et al., https://arxiv.org/abs/1710.09412,
  section 2) in big_vision's convention: one l for the whole batch, folded to
  max(l, 1 - l), so that every example keeps the larger weight in its own mix.
  Partners are taken from the global batch, not from a device's part of it, so
  that the result does not depend on the sharding.

  Args:
    rng: a key.
    image: [B, ...] float.
    labels: [B, C] float.
    p: both parameters of the Beta distribution, > 0.
    per: "batch" for one l for the global batch, or "example" for one l for each
      example (big_vision's `fold_in="sample"`).
    shift: how far before it; in big_vision 1. It must be the number of times
      that an image comes in a row, so that the partner is another image.

  Returns:
    The mixed images and labels, shapes and dtypes as given.
  """
  shape = {"batch": (), "example": (len(image),)}[per]
  weight = jax.random.beta(rng, p, p, shape)
  weight = jnp.maximum(weight, 1.0 - weight)

  def mix(x):
    w = weight.reshape(*shape, *(x.ndim - len(shape)) * (1,)).astype(x.dtype)
    return w * x + (1 - w) * jnp.roll(x, shift, axis=0)

  return mix(image), mix(labels)
