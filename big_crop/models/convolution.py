"""Convolution, batch norm and pooling as PyTorch computes them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_crop.models import common, cpu

# He et al., https://arxiv.org/abs/1502.01852, as torchvision has it.
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BatchNorm(nn.Module):
  """Batch norm with PyTorch's statistics; float32 inside.

  Ioffe and Szegedy, https://arxiv.org/abs/1502.03167, Algorithms 1 and 2. The
  batch is normalised by its biased variance and the running variance averages
  the unbiased one (Flax's averages the biased one). Under `jax.jit` the batch
  is the global one, on however many devices it lies.

  Attributes:
    dtype: of the output.
    momentum: weight of the old running statistics; PyTorch's 1 - momentum.
    epsilon: added to the variance.
    scale_init, bias_init: initialisers.
  """

  dtype: str
  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  bias_init: nn.initializers.Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self, x, *, train):
    shape = x.shape[-1:]
    scale = self.param("scale", self.scale_init, shape)
    bias = self.param("bias", self.bias_init, shape)
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    running_var = self.variable("batch_stats", "var", jnp.ones, shape)
    mean, var = running_mean.value, running_var.value

    if train:
      # One pass over x for both moments, about the running mean: the nearer
      # that is to the mean, the less the difference below cancels.
      n = x.size // x.shape[-1]
      axes = tuple(range(x.ndim - 1))
      centred = x.astype(common.accumulator(x.dtype)) - mean
      shift = jnp.mean(centred, axes)
      var = jnp.mean(jnp.square(centred), axes) - jnp.square(shift)
      var = jnp.maximum(var, 0)
      mean = mean + shift
      if not self.is_initializing():
        decay = self.momentum
        unbiased = var * (n / max(n - 1, 1))
        running_mean.value = decay * running_mean.value + (1 - decay) * mean
        running_var.value = decay * running_var.value + (1 - decay) * unbiased

    y = (x - mean) * (scale * jax.lax.rsqrt(var + self.epsilon)) + bias
    return y.astype(self.dtype)


class Conv(nn.Module):
  """Convolution as in PyTorch: symmetric padding, He's fan-out initialiser."""

  features: int
  kernel: int
  stride: int
  groups: int = 1
  dtype: str = "float32"
  use_bias: bool = False
  kernel_init: nn.initializers.Initializer = HE

  @nn.compact
  def __call__(self, x):
    shape = (self.kernel, self.kernel, x.shape[-1] // self.groups)
    shape = (*shape, self.features)
    kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
    y = self._convolve(x.astype(self.dtype), kernel)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,))
      y += bias.astype(self.dtype)
    return y

  def _convolve(self, x, kernel):
    pad = self.kernel // 2
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and self.kernel == self.groups == 1:
      x = x[:, :: self.stride, :: self.stride]
      return cpu.pointwise(x, kernel[0, 0])
    if on_cpu and self.groups == 1 and min(x.shape[1:3]) < self.kernel:
      return cpu.by_patches(x, kernel, self.stride)
    depthwise = x.shape[-1] == self.groups == self.features
    if on_cpu and depthwise and self.stride == 1:
      return cpu.depthwise(x, kernel)
    conv = functools.partial(
      jax.lax.conv_general_dilated,
      window_strides=(self.stride, self.stride),
      padding=[(pad, pad), (pad, pad)],
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    if on_cpu and self.groups > 1:
      return cpu.grouped(conv, x, kernel, self.groups)
    return conv(x, kernel, feature_group_count=self.groups)


def max_pool(x):
  """3x3 maxima at stride 2, padded by 1."""
  if jax.default_backend() == "cpu":
    return cpu.max_pool(x)
  return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
