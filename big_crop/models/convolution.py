"""The layers that convolutional models share, as PyTorch and timm compute them.

Convolution, batch norm, pooling, channel attention, stochastic depth, the head.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_crop.models import common, cpu

# The initialiser of He et al., https://arxiv.org/abs/1502.01852, by fan-out, as
# in torchvision.
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def he_grouped(groups):
  """`HE` with the fan-out of one group, as in EfficientNet and RegNet."""
  return nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal")


class BatchNorm(nn.Module):
  """Batch norm with PyTorch's statistics; float32 inside.

  Ioffe and Szegedy, https://arxiv.org/abs/1502.03167, Algorithms 1 and 2. The
  batch is normalised by its biased variance, while the running variance
  averages the unbiased variance; Flax's averages the biased one. Under
  `jax.jit` the statistics are those of the whole batch over all devices.

  Attributes:
    dtype: of the output.
    momentum: weight of the old running statistics; 1 - PyTorch's momentum.
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
      # One pass over x computes both moments. They are taken about the running
      # mean, because the subtraction below then loses few digits if the running
      # mean is near the batch's mean.
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
  """Convolution as in PyTorch: symmetric padding; by default initialised by He.

  Attributes:
    features: output channels.
    kernel: height and width of the kernel.
    stride, groups, dtype, use_bias: as in PyTorch.
    kernel_init: initialiser of the kernel. The bias starts at zero, but with
      `common.torch_linear` as in `torch.nn.Conv2d`.
    same: use TensorFlow's "SAME" padding, which with a stride of 2 pads the end
      with the odd pixel.
    standardise: scale each filter's weights to mean 0 and deviation 1.
  """

  features: int
  kernel: int
  stride: int
  groups: int = 1
  dtype: str = "float32"
  use_bias: bool = False
  kernel_init: nn.initializers.Initializer = HE
  same: bool = False
  standardise: bool = False

  @nn.compact
  def __call__(self, x):
    shape = (self.kernel, self.kernel, x.shape[-1] // self.groups)
    kernel = self.param("kernel", self.kernel_init, (*shape, self.features))
    if self.standardise:  # epsilon is added to the deviation, as published
      kernel -= kernel.mean((0, 1, 2))
      kernel /= kernel.std((0, 1, 2)) + 1e-5
    y = self._convolve(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.use_bias:
      init = nn.initializers.zeros
      if self.kernel_init is common.torch_linear:
        init = common.torch_bias(math.prod(shape))
      y += self.param("bias", init, (self.features,)).astype(self.dtype)
    return y

  def _convolve(self, x, kernel):
    pad = self.kernel // 2
    conv = functools.partial(
      jax.lax.conv_general_dilated,
      window_strides=(self.stride, self.stride),
      padding="SAME" if self.same else [(pad, pad), (pad, pad)],
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    if jax.default_backend() != "cpu":
      return conv(x, kernel, feature_group_count=self.groups)
    depthwise = 1 < self.groups == x.shape[-1] == self.features
    if depthwise and not self.same:
      # Not wasteful, because XLA computes only the places that the slice keeps.
      return cpu.depthwise(x, kernel)[:, :: self.stride, :: self.stride]
    if self.kernel == 1:
      x = x[:, :: self.stride, :: self.stride]
      conv = lambda x, kernel: cpu.pointwise(x, kernel[0, 0])
    elif min(x.shape[1:3]) < self.kernel and not self.same:
      conv = functools.partial(cpu.by_patches, stride=self.stride)
    if self.groups > 1:
      return cpu.grouped(conv, x, kernel, self.groups)
    return conv(x, kernel)


def max_pool(x, stride=2):
  """3x3 maxima, padded by 1."""
  if jax.default_backend() == "cpu":
    return cpu.max_pool(x, stride)
  return nn.max_pool(x, (3, 3), (stride, stride), [(1, 1), (1, 1)])


class SqueezeExcite(nn.Module):
  """Scales each channel by a function of the means of all channels.

  Hu et al., https://arxiv.org/abs/1709.01507, equations 2 to 4, with biases.

  Attributes:
    hidden: width of the bottleneck.
    dtype: of the dense layers.
    act: activation of the bottleneck.
  """

  hidden: int
  dtype: str
  act: Callable = nn.relu

  @nn.compact
  def __call__(self, x):
    dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=HE)
    s = jnp.mean(x, (1, 2), dtype=common.accumulator(x.dtype))
    s = self.act(dense(self.hidden, name="fc1")(s))
    s = nn.sigmoid(dense(x.shape[-1], name="fc2")(s))
    return x * s[:, None, None]


class EfficientChannelAttention(nn.Module):
  """Scales each channel by a function of the means of neighbouring channels.

  Wang et al., https://arxiv.org/abs/1910.03151: a convolution over the
  channels. The kernel size is the one that timm uses for their number.
  """

  dtype: str

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    size = int((math.log2(channels) + 1) / 2)
    size = max(3, size + 1 - size % 2)  # odd
    kernel = self.param("kernel", common.torch_linear, (size, 1, 1))
    s = jnp.mean(x, (1, 2), dtype=common.accumulator(x.dtype))
    s = jnp.pad(s, [(0, 0), (size // 2, size // 2)])
    s = sum(s[:, i : i + channels] * kernel[i, 0, 0] for i in range(size))
    return x * nn.sigmoid(s)[:, None, None].astype(self.dtype)


def drop_path(x, rate, train):
  """Stochastic depth: drops all pixels and channels of an example, or none."""
  return nn.Dropout(rate, (1, 2, 3), deterministic=not train)(x)


def classify(x, num_classes, out, *, dropout=0.0, train=False, init=None):
  """Global average pooling, dropout, and the dense layer "head".

  To be called from a model's `__call__`.

  Args:
    x: [B, h, w, c].
    num_classes: size of the logits; 0 for no dense layer.
    out: dict of activations; gets "pre_logits" [B, c] and "logits".
    dropout: rate before the dense layer.
    train: whether dropout is active.
    init: initialiser of the dense layer's kernel, with biases of zero. None:
      PyTorch's initial values for both.

  Returns:
    float32 logits [B, num_classes], or "pre_logits" if there is no dense layer;
    and `out`.
  """
  x = jnp.mean(x, (1, 2), dtype=common.accumulator(x.dtype))
  out["pre_logits"] = x
  if num_classes:
    x = nn.Dropout(dropout, deterministic=not train)(x)
  if init:
    return common.head(x, num_classes, out, init)
  bias = common.torch_bias(x.shape[-1])
  return common.head(x, num_classes, out, common.torch_linear, bias)
