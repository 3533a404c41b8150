"""ResNet v1.5, torchvision's architecture.

He et al., https://arxiv.org/abs/1512.03385, with the stride in the 3x3
convolution of the bottleneck (Goyal et al., https://arxiv.org/abs/1706.02677)
and PyTorch's paddings, so that torchvision's weights give its logits
(`big_crop.model_init.from_torchvision`).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_crop import names
from big_crop.models import common

# variant: (blocks per stage, whether they are bottlenecks)
VARIANTS = {
  "18": ((2, 2, 2, 2), False),
  "34": ((3, 4, 6, 3), False),
  "50": ((3, 4, 6, 3), True),
  "101": ((3, 4, 23, 3), True),
  "152": ((3, 8, 36, 3), True),
}


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
    scale_init: initialiser of the scale.
  """

  dtype: str
  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x, *, train):
    shape = x.shape[-1:]
    scale = self.param("scale", self.scale_init, shape)
    bias = self.param("bias", nn.initializers.zeros, shape)
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


class Block(nn.Module):
  """Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1) residual block."""

  width: int
  stride: int
  bottleneck: bool
  drop_path: float
  zero_init_last: bool
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    conv = functools.partial(_conv, dtype=self.dtype)
    norm = functools.partial(BatchNorm, dtype=self.dtype)
    last_init = nn.initializers.ones
    if self.zero_init_last:
      last_init = nn.initializers.zeros

    features, strides = self.width, self.stride
    if self.bottleneck:
      features = 4 * self.width
      layers = [(self.width, 1, 1), (self.width, 3, strides), (features, 1, 1)]
    else:
      layers = [(self.width, 3, strides), (self.width, 3, 1)]

    y = x
    for i, (f, kernel, stride) in enumerate(layers, 1):
      last = i == len(layers)
      y = conv(f, kernel, stride, name=f"conv{i}")(y)
      init = last_init if last else nn.initializers.ones
      y = norm(scale_init=init, name=f"bn{i}")(y, train=train)
      if not last:
        y = nn.relu(y)

    if strides != 1 or x.shape[-1] != features:
      x = conv(features, 1, strides, name="downsample_conv")(x)
      x = norm(name="downsample_bn")(x, train=train)
    # One draw for all pixels and channels of an example.
    drop = nn.Dropout(self.drop_path, (1, 2, 3), deterministic=not train)
    return nn.relu(x + drop(y))


def _conv(features, kernel, stride, dtype, name):
  """Convolution as in PyTorch: symmetric padding, He's fan-out initialiser."""
  pad = kernel // 2
  return nn.Conv(
    features,
    (kernel, kernel),
    (stride, stride),
    [(pad, pad), (pad, pad)],
    use_bias=False,
    dtype=dtype,
    kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    name=name,
  )


class ResNet(nn.Module):
  """See `Model`."""

  num_classes: int
  variant: int | str = 50
  width: int = 64
  small_stem: bool = False
  zero_init_last: bool = False
  dropout: float = 0.0
  drop_path: float = 0.0
  dtype_mm: str = "float32"

  def __post_init__(self):
    names.check("ResNet variant", str(self.variant), VARIANTS)
    names.check("dtype_mm", self.dtype_mm, common.DTYPES)
    common.check_rates(dropout=self.dropout, drop_path=self.drop_path)
    super().__post_init__()

  @nn.compact
  def __call__(self, image, *, train=False):
    depths, bottleneck = VARIANTS[str(self.variant)]
    rates = iter(common.drop_path_rates(self.drop_path, sum(depths)))
    out = {}

    kernel, stride = (3, 1) if self.small_stem else (7, 2)
    x = _conv(self.width, kernel, stride, self.dtype_mm, "conv1")(image)
    x = nn.relu(BatchNorm(self.dtype_mm, name="bn1")(x, train=train))
    if not self.small_stem:
      x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
    out["stem"] = x

    for i, depth in enumerate(depths):
      for j in range(depth):
        x = Block(
          width=self.width * 2**i,
          stride=2 if i > 0 and j == 0 else 1,
          bottleneck=bottleneck,
          drop_path=next(rates),
          zero_init_last=self.zero_init_last,
          dtype=self.dtype_mm,
          name=f"layer{i + 1}_{j}",
        )(x, train=train)
      out[f"layer{i + 1}"] = x

    x = out["pre_logits"] = jnp.mean(
      x, (1, 2), dtype=common.accumulator(x.dtype)
    )
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    # The distribution of torch.nn.Linear's weights.
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    head = nn.Dense(self.num_classes, kernel_init=init, name="head")
    x = out["logits"] = head(x)
    return x, out


def Model(num_classes, **kw):
  """Builds a ResNet v1.5.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "layer1" to "layer4" [B, h, w, c],
  "pre_logits" [B, c], "logits". Running statistics are in "batch_stats". The
  parameters are named as in torchvision: conv1, bn1, layer1_0/conv1, ...,
  layer1_0/downsample_conv, layer1_0/downsample_bn, ..., and head for its fc.

  Args:
    num_classes: size of the logits.
    **kw:
      variant: 18, 34, 50 (default), 101 or 152, int or str;
      width: channels of the stem and the first stage, 64;
      small_stem: a 3x3 stride 1 stem without pooling, for images of 32 to 64
        pixels;
      zero_init_last: start the last batch norm scale of each block at zero
        (Goyal et al., section 5.1);
      dropout: rate before the head;
      drop_path: stochastic depth rate of the last block, see
        `common.drop_path_rates`; each example draws its own;
      dtype_mm: "float32" or "bfloat16" for convolutions and activations;
        "float64" for checks.
        Parameters, batch statistics and logits are float32 with either of the
        first two.

  Returns:
    A `ResNet`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build(ResNet, num_classes, kw)
