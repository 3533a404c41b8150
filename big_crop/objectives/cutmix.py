"""Mixup, CutMix, or a random choice of both, as in timm's recipes.

mixup: Zhang et al., https://arxiv.org/abs/1710.09412; CutMix: Yun et al.,
https://arxiv.org/abs/1905.04899; the modes: "ResNet strikes back", appendix A.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from big_crop import names
from pp_ops.errors import UserError
from pp_ops.laws.cropmix import cut_interval

MODES = ("batch", "pair", "elem", "half")


def make(
  mixup_alpha: float = 0.0,
  cutmix_alpha: float = 0.0,
  mode: str = "batch",
) -> Callable | None:
  """Returns `cutmix_mixup` with these arguments, or None if both alphas are 0.

  Raises:
    ValueError: in one line, for a wrong value.
  """
  names.check("config.mixing.mode", mode, MODES)
  alphas = {"mixup_alpha": mixup_alpha, "cutmix_alpha": cutmix_alpha}
  for key, value in alphas.items():
    if value < 0:
      raise UserError(f"config.mixing.{key} is {value}, but must be >= 0.")
  if not any(alphas.values()):
    return None
  return functools.partial(cutmix_mixup, **alphas, mode=mode)


def cutmix_mixup(
  rng: jax.Array,
  image: jax.Array,
  labels: jax.Array,
  *,
  mixup_alpha: float,
  cutmix_alpha: float,
  mode: str,
) -> tuple[jax.Array, jax.Array]:
  """Mixes example i with example B - 1 - i of the global batch.

  l ~ Beta(alpha, alpha), not folded to max(l, 1 - l), and j = B - 1 - i. Mixup
  returns l x_i + (1 - l) x_j. CutMix returns x_i with a box of x_j pasted in.
  The box has floor(H sqrt(1 - l)) by floor(W sqrt(1 - l)) pixels around a
  uniformly drawn centre and is clipped at the image's borders; l is then set to
  1 minus the fraction of the image that the box covers. Labels become
  l y_i + (1 - l) y_j. This is timm's `Mixup`, except that timm mixes within the
  part of the batch on each GPU.

  Args:
    rng: a key.
    image: [B, H, W, C] float.
    labels: [B, num_classes] float.
    mixup_alpha: alpha of mixup; 0 turns mixup off.
    cutmix_alpha: alpha of CutMix; 0 turns CutMix off. If both are on, each is
      chosen with probability one half.
    mode: which examples share the choice, the weight and the box. "batch": all;
      "pair": i and B - 1 - i; "elem": none; "half": none, and only the first
      half of the batch is returned, so that each example is used once.

  Returns:
    The mixed images and labels, dtypes as given; B / 2 of them for "half".

  Raises:
    ValueError: if B is odd and the mode is "pair" or "half".
  """
  size, height, width, _ = image.shape
  if size % 2 and mode in ("pair", "half"):
    raise UserError(
      f"config.mixing.mode {mode!r} needs an even batch, not {size} images."
    )
  num = {"batch": 1, "elem": size}.get(mode, size // 2)
  weight, rest, box = _draw(rng, num, height, width, mixup_alpha, cutmix_alpha)
  if mode == "pair":
    weight, rest, box = (
      jnp.concatenate([v, v[::-1]]) for v in (weight, rest, box)
    )

  partner, partner_labels = image[::-1], labels[::-1]
  if mode == "half":
    image, labels = image[:num], labels[:num]
    partner, partner_labels = partner[:num], partner_labels[:num]

  y, x = jnp.arange(height)[:, None], jnp.arange(width)
  top, left, bottom, right = (v[:, None, None] for v in box.T)
  inside = (top <= y) & (y < bottom) & (left <= x) & (x < right)
  is_cutmix = (bottom > top) & (right > left)
  of_pixel = lambda at, v: jnp.where(is_cutmix, at, v[:, None, None])[..., None]

  def mix(a, b, w, rest):
    return w.astype(a.dtype) * a + rest.astype(a.dtype) * b

  return (
    mix(image, partner, of_pixel(~inside, weight), of_pixel(inside, rest)),
    mix(labels, partner_labels, weight[:, None], rest[:, None]),
  )


def _beta(key, alpha, num):
  """l ~ Beta(alpha, alpha) and 1 - l: [num] float32 each.

  With alpha 0.1, one l in ten is so near to 1 that float32 rounds it to 1. Then
  1 - l would be 0, and the partner's class, which has a tiny weight in the
  image, would be lost. We therefore compute 1 - l from the logarithms of both
  gamma variates, which makes it as exact as l. Below 2^-54 we set 1 - l to 0,
  as in timm, where NumPy draws l in float64; l itself is never 0.
  """
  a, b = jax.random.loggamma(key, alpha, (2, num))
  weight, rest = jax.nn.sigmoid(a - b), jax.nn.sigmoid(b - a)
  weight = jnp.maximum(weight, jnp.finfo(weight.dtype).tiny)
  return weight, jnp.where(rest > 2.0**-54, rest, 0.0)


def _draw(rng, num, height, width, mixup_alpha, cutmix_alpha):
  """Weights l and 1 - l: [num] each; boxes [num, 4]: top, left, bottom, right.

  The box of an example that gets mixup is empty.
  """
  keys = jax.random.split(rng, 6)
  switch = 0.5 if mixup_alpha and cutmix_alpha else float(not mixup_alpha)
  is_cutmix = jax.random.uniform(keys[0], (num,)) < switch
  # Beta(0, 0) does not exist. What is drawn in its place is never used.
  of_cutmix = _beta(keys[1], cutmix_alpha or 1.0, num)
  of_mixup = _beta(keys[2], mixup_alpha or 1.0, num)
  weight, rest = (
    jnp.where(is_cutmix, *both)
    for both in zip(of_cutmix, of_mixup, strict=True)
  )
  (top, bottom), (left, right) = (
    cut_interval(
      jax.random.randint(key, (num,), 0, length).astype(rest.dtype),
      jnp.where(is_cutmix, rest, 0.0),
      length,
      jnp,
    )
    for key, length in zip(keys[4:], (height, width), strict=True)
  )
  covered = (bottom - top) * (right - left) / (height * width)
  weight = jnp.where(is_cutmix, 1.0 - covered, weight)
  rest = jnp.where(is_cutmix, covered, rest)
  return weight, rest, jnp.stack([top, left, bottom, right], axis=1)
