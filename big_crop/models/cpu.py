"""Operations that XLA is slow at on CPUs, written so that they are fast.

The models take these where `jax.default_backend()` is "cpu". On TPUs and GPUs
they take XLA's own operations, because XLA is fast at them there.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from big_crop.models import common

# What YNNPACK, a library that jaxlib uses since 0.10, is still used for: its
# default uses but for convolutions. "ELTWISE" is none of them, and would make
# depthwise convolutions slow.
_YNNPACK = {
  "xla_cpu_experimental_ynn_fusion_type": ",".join(
    f"LIBRARY_FUSION_TYPE_{kind}" for kind in ("DOT", "REDUCE")
  )
}


@functools.cache
def compiler_options() -> dict[str, str] | None:
  """`jax.jit`'s `compiler_options` for train steps; None for the defaults.

  By default XLA hands convolutions on CPUs to YNNPACK. Without that, a step of
  ResNet-50 took 5.9 s of CPU time instead of 7.5 s (16 images of 224 pixels,
  two cores of an AMD EPYC). Versions of jaxlib that lack the option keep their
  defaults.
  """
  if jax.default_backend() != "cpu":
    return None
  try:
    jax.jit(lambda: 0, compiler_options=_YNNPACK).lower().compile()
  except jax.errors.JaxRuntimeError:
    return None
  return _YNNPACK


@jax.custom_vjp
def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 1x1 convolution or a dense layer, computed as x @ kernel.

  XLA's CPU convolution is two to ten times slower. The custom gradient only
  changes how the kernel's gradient is computed: it is a matrix product in which
  one operand must be transposed, and we transpose the operand with fewer
  channels, because copying it costs less. XLA's own choice is the wider one, or
  both. With this gradient, the forward and backward pass of an MLP of ViT-S/16
  took 0.94 of the time, and that of an MLP of width 96 took 0.73 (two cores).

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
    # Without the barrier XLA would swap the operands again, to save the `.T`.
    product = jax.lax.dot_general(b, a, over_rows)
    gradient = jax.lax.optimization_barrier(product).T
  return dy @ kernel.T, gradient


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def dot_general(
  x: jax.Array, kernel: jax.Array, dimension_numbers: tuple, precision=None
) -> jax.Array:
  """`jax.lax.dot_general` as `nn.Dense` calls it; `pointwise` on CPUs."""
  if jax.default_backend() == "cpu":
    return pointwise(x, kernel)
  return jax.lax.dot_general(x, kernel, dimension_numbers, precision)


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
  # Take as many dense convolutions as possible with at least 64 channels each,
  # because matrix products of fewer channels are too small to be fast.
  divisors = [n for n in range(1, groups + 1) if groups % n == 0]
  parts = max(n for n in divisors if n == 1 or x.shape[-1] >= 64 * n)
  size = groups // parts
  kh, kw, c, d = kernel.shape
  blocks = kernel.reshape(kh, kw, c, parts, size, d // groups)
  dense = jnp.einsum("hwcpgd,fg->phwfcgd", blocks, jnp.eye(size, dtype=x.dtype))
  dense = dense.reshape(parts, kh, kw, size * c, d // parts)
  inputs = jnp.split(x, parts, axis=-1)
  outputs = [conv(x, w) for x, w in zip(inputs, dense, strict=True)]
  return jnp.concatenate(outputs, axis=-1)


# Compiled apart, because its 49 products take long to trace.
@jax.custom_vjp
@jax.jit
def depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A convolution of each channel by itself, as a sum of shifted products.

  XLA fuses the sum into one loop, while the gradients of its own grouped
  convolution take ten times as long. The gradient of the kernel goes through
  the image row by row, because the rows that a row is multiplied with then stay
  in the processor's cache.

  Args:
    x: [B, H, W, c], padded by half of the kernel here.
    kernel: [h, w, 1, c], odd h and w.

  Returns:
    [B, H, W, c].
  """
  weights = kernel.reshape(-1, kernel.shape[-1])
  weights = weights.astype(common.accumulator(x.dtype))
  patches = _shifted(x, kernel.shape[:2], stride=1)
  y = sum(patch * w for patch, w in zip(patches, weights, strict=True))
  return y.astype(x.dtype)


def _depthwise_forward(x, kernel):
  return depthwise(x, kernel), (x, kernel)


@jax.jit
def _depthwise_backward(residuals, dy):
  x, kernel = residuals
  (_, height, width, channels), (kh, kw, _, _) = x.shape, kernel.shape
  padded = _padded(x, (kh, kw))

  def add_row(gradient, row):
    rows = jax.lax.dynamic_slice_in_dim(padded, row, kh, axis=1)
    d_row = dy[:, row, None].astype(gradient.dtype)

    def add_column(column, gradient):
      part = jax.lax.dynamic_slice_in_dim(rows, column, width, axis=2)
      return gradient.at[:, column].add((part * d_row).sum((0, 2)))

    return jax.lax.fori_loop(0, kw, add_column, gradient), None

  zeros = jnp.zeros((kh, kw, channels), common.accumulator(x.dtype))
  gradient, _ = jax.lax.scan(add_row, zeros, jnp.arange(height))
  dx = depthwise(dy, kernel[::-1, ::-1])
  return dx, gradient[:, :, None].astype(kernel.dtype)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


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
  """For each place of an odd (h, w) kernel, row by row, the pixels it meets."""
  (_, height, width, _), (kh, kw) = x.shape, kernel
  x = _padded(x, kernel, fill)
  return [
    x[:, i : i + height : stride, j : j + width : stride]
    for i in range(kh)
    for j in range(kw)
  ]


def _padded(x, kernel, fill=0):
  kh, kw = kernel
  padding = [(0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)]
  return jnp.pad(x, padding, constant_values=fill)
