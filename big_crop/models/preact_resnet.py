"""PreActResNet-18 for images of 32 pixels, as CropMix's Table 1 has it.

He et al., "Identity Mappings in Deep Residual Networks",
https://arxiv.org/abs/1603.05027, in the form of the PyTorch code that CropMix
used: https://github.com/weiaicunzai/pytorch-cifar100, models/preactresnet.py.
Unlike in the paper, the convolutions have biases, and batch norm and ReLU
follow the stem instead of preceding the pooling. All initial values are
PyTorch's.
"""

import functools

import flax.linen as nn

from big_crop.models import common, convolution

VARIANTS = {"18": dict(depths=(2, 2, 2, 2), stem=64, width=64)}


class Block(nn.Module):
  """Two 3x3 convolutions, each after batch norm and ReLU, and a shortcut."""

  features: int
  stride: int
  dropout: float
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    norm = functools.partial(convolution.BatchNorm, dtype=self.dtype)
    conv = functools.partial(
      convolution.Conv,
      self.features,
      dtype=self.dtype,
      use_bias=True,
      kernel_init=common.torch_linear,
    )
    y = nn.relu(norm(name="bn1")(x, train=train))
    y = conv(3, self.stride, name="conv1")(y)
    y = nn.relu(norm(name="bn2")(y, train=train))
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    y = conv(3, 1, name="conv2")(y)
    if self.stride != 1 or x.shape[-1] != self.features:
      x = conv(1, self.stride, name="shortcut")(x)
    return x + y


class PreActResNet(nn.Module):
  """See `Model`, and `wide_resnet.Model`, which has `norm_last`."""

  num_classes: int
  depths: tuple
  stem: int
  width: int
  norm_last: bool = False
  dropout: float = 0.0
  dtype_mm: str = "float32"

  def last_layer(self):
    last = f"layer{len(self.depths)}_{self.depths[-1] - 1}"
    return common.LastLayer(last, pooled="encoded")

  def torch_layers(self):
    return [
      ("pre.0", "conv1", "dense"),
      ("pre.1", "bn", "batch_norm"),
      *block_names("stage*.*", "layer*_*", conv2=5, shortcut="shortcut"),
      ("linear", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    def norm(x):
      norm = convolution.BatchNorm(self.dtype_mm, name="bn")
      return nn.relu(norm(x, train=train))

    x = convolution.Conv(
      self.stem,
      kernel=3,
      stride=1,
      dtype=self.dtype_mm,
      use_bias=True,
      kernel_init=common.torch_linear,
      name="conv1",
    )(image)
    if not self.norm_last:
      x = norm(x)
    out = {"stem": x}
    for i, depth in enumerate(self.depths):
      for j in range(depth):
        x = Block(
          self.width * 2**i,
          stride=2 if i > 0 and j == 0 else 1,
          dropout=self.dropout,
          dtype=self.dtype_mm,
          name=f"layer{i + 1}_{j}",
        )(x, train=train)
      out[f"layer{i + 1}"] = x
    if self.norm_last:
      x = norm(x)
    out["encoded"] = x
    return convolution.classify(x, self.num_classes, out)


def block_names(torch, ours, *, conv2, shortcut):
  """Rows of `torch_layers()` for a block that is an nn.Sequential in PyTorch.

  Args:
    torch: the block's name in PyTorch.
    ours: its path in our parameters.
    conv2: index of the second convolution in the nn.Sequential. It is 6 with a
      dropout layer before, 5 without.
    shortcut: the shortcut's name in PyTorch.
  """
  residual = [
    (0, "bn1", "batch_norm"),
    (2, "conv1", "dense"),
    (3, "bn2", "batch_norm"),
    (conv2, "conv2", "dense"),
  ]
  return [
    *(
      (f"{torch}.residual.{i}", f"{ours}/{b}", kind) for i, b, kind in residual
    ),
    (f"{torch}.{shortcut}", f"{ours}/shortcut", "dense"),
  ]


def Model(num_classes, *, variant="18", **kw):
  """Builds a PreActResNet.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "layer1" to "layer4" and "encoded", all
  [B, h, w, c]; "pre_logits" [B, c], the mean of "encoded"; "logits". Running
  statistics are in "batch_stats". The parameters are conv1, bn, layer1_0/bn1,
  layer1_0/conv1, layer1_0/bn2, layer1_0/conv2, ..., layer2_0/shortcut, ...,
  head.

  Args:
    num_classes: size of the logits.
    variant: "18".
    **kw: these override the variant:
      depths: blocks of each stage, (2, 2, 2, 2);
      stem, width: channels of the stem and of the first stage, 64 and 64; each
        stage has twice the channels of the one before;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `PreActResNet`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build_variant(PreActResNet, num_classes, VARIANTS, variant, kw)
