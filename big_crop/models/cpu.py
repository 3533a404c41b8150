"""Operations that XLA is slow at on CPUs, written so that they are fast.

`convolution` takes these where `jax.default_backend()` is "cpu". On TPUs and
GPUs it takes XLA's own operations, because XLA is fast at them there.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from big_crop.models import common


@jax.custom_vjp
def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 1x1 convolution, computed as x @ kernel.

  XLA's CPU convolution is two to ten times slower. The custom gradient only
  changes how the kernel's gradient is computed: it is a matrix product in which
  one operand must be transposed, and we transpose the operand with fewer
  channels, because copying it costs less.

  Args:
    x: [..., c].
    kernel: [c, d].

  Returns:
    [..., d].
  """
  return x @ kernel


def _pointwise_forward(x, kernel):
  return x @ kernel, (x, kernel)


def _pointwise_backward(residuals, dy):
  x, kernel = residuals
  c, d = kernel.shape
  a, b = x.reshape(-1, c), dy.reshape(-1, d)
  over_rows = (((0,), (0,)), ((), ()))
  if c <= d:
    gradient = jax.lax.dot_general(a, b, over_rows)
  else:
    gradient = jax.lax.dot_general(b, a, over_rows).T
  return dy @ kernel.T, gradient


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def by_patches(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """A convolution of images smaller than the kernel, as one matrix product.

  When the image is smaller than the kernel, XLA swaps their roles and becomes a
  hundred times slower.

  Args:
    x: [B, H, W, c], padded by half of the kernel here.
    kernel: [h, w, c, d], odd h and w.
    stride: in both directions.

  Returns:
    [B, ceil(H / stride), ceil(W / stride), d].
  """
  patches = _shifted(x, kernel.shape[:2], stride)
  return jnp.concatenate(patches, -1) @ kernel.reshape(-1, kernel.shape[-1])


def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """A depthwise convolution, as a sum of shifted images.

  XLA's takes ten times as long, and its gradients do, too.

  Args:
    x: [B, H, W, c], padded by half of the kernel here.
    kernel: [h, w, 1, c], odd h and w.
    stride: in both directions.

  Returns:
    [B, ceil(H / stride), ceil(W / stride), c].
  """
  weights = kernel.reshape(-1, kernel.shape[-1])
  weights = weights.astype(common.accumulator(x.dtype))
  patches = _shifted(x, kernel.shape[:2], stride)
  y = sum(patch * w for patch, w in zip(patches, weights, strict=True))
  return y.astype(x.dtype)


def grouped(
  conv: Callable, x: jax.Array, kernel: jax.Array, groups: int
) -> jax.Array:
  """A grouped convolution as a few dense ones whose kernels are mostly zero.

  The gradients of XLA's grouped convolution take a hundred times as long as the
  multiplications by zero that the dense ones add.

  Args:
    conv: (x, kernel) -> output, a convolution without groups.
    x: [B, H, W, groups * c].
    kernel: [h, w, c, features].
    groups: how many.

  Returns:
    [B, H', W', features].
  """
  # Each dense convolution gets at least 64 channels, because the matrix
  # products of fewer are too small to be fast.
  parts = math.gcd(groups, max(1, x.shape[-1] // 64))
  size = groups // parts
  kh, kw, c, d = kernel.shape
  blocks = kernel.reshape(kh, kw, c, parts, size, d // groups)
  dense = jnp.einsum("hwcpgd,fg->phwfcgd", blocks, jnp.eye(size, dtype=x.dtype))
  dense = dense.reshape(parts, kh, kw, size * c, d // parts)
  inputs = jnp.split(x, parts, axis=-1)
  outputs = [conv(x, w) for x, w in zip(inputs, dense, strict=True)]
  return jnp.concatenate(outputs, axis=-1)


def max_pool(x: jax.Array, stride: int) -> jax.Array:
  """3x3 maxima, padded by 1, as a maximum of nine slices.

  The gradient of XLA's pooling takes four times as long. Both pass the gradient
  of a maximum on to the first of equal values.

  Args:
    x: [B, H, W, C] float.
    stride: in both directions.

  Returns:
    [B, ceil(H / stride), ceil(W / stride), C].
  """
  larger = lambda best, found: jnp.where(found > best, found, best)
  return functools.reduce(larger, _shifted(x, (3, 3), stride, -jnp.inf))


def _shifted(x, kernel, stride, fill=0):
  """What each place of an odd (h, w) kernel sees, row by row."""
  (_, height, width, _), (kh, kw) = x.shape, kernel
  padding = [(0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)]
  x = jnp.pad(x, padding, constant_values=fill)
  return [
    x[:, i : i + height : stride, j : j + width : stride]
    for i in range(kh)
    for j in range(kw)
  ]
