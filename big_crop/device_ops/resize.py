"""Crop and resize as two matrix products, equal to `tf.image.resize`.

A resize along one axis is a matrix: row i has the weights of the input's pixels
in output pixel i. With zeros outside the window the same matrix also crops, so
that one program of fixed shapes, without gathers, serves windows of any size.
The matrices are dense, which suits tensor cores and MXUs.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from big_crop.device_ops.canvas import Canvas


def _triangle(x):
  return jnp.maximum(0.0, 1.0 - x)


def _keys_cubic(x):
  """Keys (1981) with a = -0.5."""
  inner = (1.5 * x - 2.5) * x * x + 1.0
  outer = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
  return jnp.where(x < 1, inner, jnp.where(x < 2, outer, 0.0))


def _mitchell_cubic(x):
  inner = (7 / 6 * x - 2.0) * x * x + 8 / 9
  outer = ((-7 / 18 * x + 2.0) * x - 10 / 3) * x + 16 / 9
  return jnp.where(x < 1, inner, jnp.where(x < 2, outer, 0.0))


def _lanczos(radius):
  def kernel(x):
    near = x <= 1e-3
    safe = jnp.where(near, 1.0, x) * math.pi
    out = radius * jnp.sin(safe) * jnp.sin(safe / radius) / (safe * safe)
    return jnp.where(near, 1.0, jnp.where(x > radius, 0.0, out))

  return kernel


def _gaussian(x):
  return jnp.where(x >= 1.5, 0.0, jnp.exp(-2.0 * x * x))


_KERNELS: dict[str, tuple[Callable, float]] = {
  "bilinear": (_triangle, 1.0),
  "bicubic": (_keys_cubic, 2.0),
  "lanczos3": (_lanczos(3.0), 3.0),
  "lanczos5": (_lanczos(5.0), 5.0),
  "gaussian": (_gaussian, 1.5),
  "mitchellcubic": (_mitchell_cubic, 2.0),
}


def weights(
  place: tuple[jax.Array, jax.Array],
  length: int,
  target: jax.Array,
  part: tuple[jax.Array, int],
  method: str,
  antialias: bool,
) -> jax.Array:
  """The matrix that cuts a window out along one axis and resizes it.

  Args:
    place: (start, size) of the window, int32 scalars.
    length: length of the array's axis.
    target: int32 scalar, the number of pixels that the window is resized to.
    part: (first, count): which of the `target` pixels are wanted.
    method: one of `pp_ops.checks.METHODS`.
    antialias: widen the kernel where the image shrinks, as `tf.image.resize`
      does.

  Returns:
    float32 [count, length], whose rows sum to 1.
  """
  start, size = place
  first, count = part
  pixel = (jnp.arange(length) - start)[None, :]  # in the window
  there = (pixel >= 0) & (pixel < size)
  out = (first + jnp.arange(count)).astype(jnp.float32)[:, None]
  if method == "nearest":
    # In integers, because the last bit of a float would decide between pixels.
    middle = 2 * (first + jnp.arange(count))[:, None] + 1
    return (pixel == middle * size // (2 * target)).astype(jnp.float32)
  size, target = size.astype(jnp.float32), target.astype(jnp.float32)
  scale = size / target
  if method == "area":
    low, high = out * scale, (out + 1) * scale
    covered = jnp.minimum(pixel + 1, high) - jnp.maximum(pixel, low)
    return jnp.where(there, jnp.clip(covered, 0, 1), 0) / scale
  if method == "bilinear" and not antialias:
    at = jnp.clip((out + 0.5) * scale - 0.5, 0, size - 1)
    return jnp.where(there, _triangle(jnp.abs(pixel - at)), 0)
  kernel, radius = _KERNELS[method]
  if method == "bicubic" and not antialias:
    # TensorFlow looks the kernel up in a table of steps of 1/1024.
    at = (out + 0.5) * scale - 0.5
    whole = jnp.floor(at)
    at = whole + jnp.round((at - whole) * 1024) / 1024
    found = kernel(jnp.abs(pixel - at))
  else:
    scale = 1 / (target / size)
    at = (out + 0.5) * scale
    wide = jnp.maximum(scale, 1.0) if antialias else 1.0
    reach = radius * wide
    span = pixel >= jnp.ceil(at - reach - 0.5)
    span &= pixel <= jnp.floor(at + reach - 0.5)
    found = jnp.where(span, kernel(jnp.abs(pixel + 0.5 - at) / wide), 0)
  found = jnp.where(there, found, 0)
  total = found.sum(1, keepdims=True)
  return found / jnp.where(jnp.abs(total) < 1e-30, 1.0, total)


def resample(
  image: Canvas,
  target: tuple,
  part: tuple,
  method: str,
  antialias: bool,
  as_pillow: bool = False,
) -> jax.Array:
  """Resizes an image's window, and returns a part of the result.

  Args:
    image: the image; its own pending resize is ignored.
    target: (height, width) to resize to, ints or int32 scalars.
    part: (first row, rows, first column, columns) of the wanted part of the
      resized image, where rows and columns are ints.
    method: see `weights`.
    antialias: see `weights`.
    as_pillow: round to whole grey levels after resizing the width, as Pillow
      does.

  Returns:
    [rows, columns, C] of the image's dtype; integers are rounded and clipped.
  """
  pixels = image.pixels
  tall, wide = pixels.shape[:2]
  target = [jnp.asarray(t, jnp.int32) for t in target]
  rows = weights(
    (image.y, image.height), tall, target[0], part[:2], method, antialias
  )
  columns = weights(
    (image.x, image.width), wide, target[1], part[2:], method, antialias
  )
  return apply(pixels, rows, columns, as_pillow)


def apply(
  pixels: jax.Array,
  rows: jax.Array,
  columns: jax.Array,
  as_pillow: bool = False,
) -> jax.Array:
  """The two matrix products: [S, T, C] pixels to [H, W, C] of their dtype.

  `rows` is float32 [H, S] and `columns` [W, T]; for `as_pillow` see `resample`.
  """
  whole = jnp.issubdtype(pixels.dtype, jnp.integer)
  product = lambda spec, a, b: jnp.einsum(
    spec, a, b, precision=jax.lax.Precision.HIGHEST
  )
  out = product("wt,stc->swc", columns, pixels.astype(jnp.float32))
  if as_pillow and whole:
    out = jnp.clip(jnp.round(out), 0, 255)
  out = product("hs,swc->hwc", rows, out)
  return to_dtype(out, pixels.dtype)


def to_dtype(x: jax.Array, dtype) -> jax.Array:
  """Float values as `dtype`: integers are rounded half to even and clipped."""
  if not jnp.issubdtype(dtype, jnp.integer):
    return x.astype(dtype)
  info = jnp.iinfo(dtype)
  return jnp.clip(jnp.round(x), info.min, info.max).astype(dtype)
