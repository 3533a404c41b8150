"""DenseNet-121, torchvision's architecture, and the one for CIFAR.

Huang et al., "Densely Connected Convolutional Networks",
https://arxiv.org/abs/1608.06993: DenseNet-BC, with bottlenecks of 4 times the
growth rate and transitions that halve the channels. With the weights of
torchvision or timm it computes the same logits as they do. With
`small_stem=True` it is the network of the PyTorch code that CropMix used:
https://github.com/weiaicunzai/pytorch-cifar100, models/densenet.py.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from big_crop.models import common, convolution

VARIANTS = {"121": dict(depths=(6, 12, 24, 16), growth=32)}

# The initialisation of He et al., https://arxiv.org/abs/1502.01852, by fan-in.
_HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class DenseLayer(nn.Module):
  """Appends `growth` channels to its input."""

  growth: int
  dropout: float
  kernel_init: nn.initializers.Initializer
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    norm = functools.partial(convolution.BatchNorm, dtype=self.dtype)
    conv = functools.partial(
      convolution.Conv, dtype=self.dtype, kernel_init=self.kernel_init
    )
    y = nn.relu(norm(name="norm1")(x, train=train))
    y = conv(4 * self.growth, 1, 1, name="conv1")(y)
    y = nn.relu(norm(name="norm2")(y, train=train))
    y = conv(self.growth, 3, 1, name="conv2")(y)
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    return jnp.concatenate([x, y], -1)


class DenseNet(nn.Module):
  """See `Model`."""

  num_classes: int
  depths: tuple
  growth: int
  small_stem: bool = False
  dropout: float = 0.0
  dtype_mm: str = "float32"

  def last_layer(self):
    last = f"denseblock{len(self.depths)}_{self.depths[-1]}"
    return common.LastLayer(last, pooled="encoded")

  def torch_layers(self):
    layer = [("norm1", "batch_norm"), ("conv1", "conv")]
    layer += [("norm2", "batch_norm"), ("conv2", "conv")]
    transition = [("norm", "batch_norm"), ("conv", "conv")]
    if not self.small_stem:
      block = "features.denseblock*.denselayer*"
      return [
        ("features.conv0", "conv0", "conv"),
        ("features.norm0", "norm0", "batch_norm"),
        *((f"{block}.{a}", f"denseblock*_*/{a}", kind) for a, kind in layer),
        *(
          (f"features.transition*.{a}", f"transition*_{a}", kind)
          for a, kind in transition
        ),
        ("features.norm5", "norm5", "batch_norm"),
        ("classifier", "head", "dense"),
      ]
    # The PyTorch code for CIFAR counts blocks and layers from 0.
    rows = [("conv1", "conv0", "conv"), ("features.bn", "norm5", "batch_norm")]
    for i, depth in enumerate(self.depths, 1):
      last = i == len(self.depths)
      block = f"features.dense_block{'' if last else '_layer_'}{i - 1}"
      for j in range(1, depth + 1):
        torch = f"{block}.bottle_neck_layer_{j - 1}.bottle_neck"
        for place, (a, kind) in zip((0, 2, 3, 5), layer, strict=True):
          rows.append((f"{torch}.{place}", f"denseblock{i}_{j}/{a}", kind))
      torch = f"features.transition_layer_{i - 1}.down_sample"
      for place, (a, kind) in enumerate(transition):
        rows.append((f"{torch}.{place}", f"transition{i}_{a}", kind))
    return [*rows, ("linear", "head", "dense")]

  @nn.compact
  def __call__(self, image, *, train=False):
    init = common.torch_linear if self.small_stem else _HE
    norm = functools.partial(convolution.BatchNorm, dtype=self.dtype_mm)
    conv = functools.partial(
      convolution.Conv, dtype=self.dtype_mm, kernel_init=init
    )
    if self.small_stem:
      x = conv(2 * self.growth, 3, 1, name="conv0")(image)
    else:
      x = conv(2 * self.growth, 7, 2, name="conv0")(image)
      x = nn.relu(norm(name="norm0")(x, train=train))
      x = convolution.max_pool(x)
    out = {"stem": x}
    for i, depth in enumerate(self.depths, 1):
      if i > 1:
        x = norm(name=f"transition{i - 1}_norm")(x, train=train)
        if not self.small_stem:
          x = nn.relu(x)
        # PyTorch pools after the 1x1 convolution. Both are linear, so they
        # commute, and the convolution takes a quarter of the time on pooled
        # images.
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = conv(x.shape[-1] // 2, 1, 1, name=f"transition{i - 1}_conv")(x)
      for j in range(1, depth + 1):
        x = DenseLayer(
          self.growth,
          dropout=self.dropout,
          kernel_init=init,
          dtype=self.dtype_mm,
          name=f"denseblock{i}_{j}",
        )(x, train=train)
      out[f"denseblock{i}"] = x
    x = out["encoded"] = nn.relu(norm(name="norm5")(x, train=train))
    return convolution.classify(x, self.num_classes, out)


def Model(num_classes, *, variant="121", **kw):
  """Builds a DenseNet.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "denseblock1" to "denseblock4" and "encoded",
  all [B, h, w, c]; "pre_logits" [B, c], the mean of "encoded"; "logits".
  Running statistics are in "batch_stats". The parameters are named nearly as in
  torchvision: conv0, norm0, denseblock1_1/norm1, denseblock1_1/conv1, ...,
  transition1_norm, transition1_conv, ..., norm5, and head for its classifier.

  Args:
    num_classes: size of the logits.
    variant: "121".
    **kw: these override the variant:
      depths: layers of each dense block, (6, 12, 24, 16);
      growth: channels that a layer appends, 32; the stem has twice as many;
      small_stem: the network for images of 32 pixels. Its stem is a 3x3
        convolution of stride 1 without norm and pooling, its transitions have
        no ReLU, and its initial values are PyTorch's;
      dropout: rate after each dense layer. The paper uses 0.2 where images are
        not augmented;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `DenseNet`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build_variant(DenseNet, num_classes, VARIANTS, variant, kw)
