"""Xception for images of 32 pixels, as CropMix's Table 1 has it.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions",
https://arxiv.org/abs/1610.02357, Figure 5, in the form of the PyTorch code that
CropMix used: https://github.com/weiaicunzai/pytorch-cifar100,
models/xception.py. Unlike in the paper, the stem and the third block of the
entry flow do not reduce the image, and the 1x1 convolutions of the shortcuts
have biases. All initial values are PyTorch's.
"""

import functools

import flax.linen as nn

from big_crop.models import common, convolution
from pp_ops.errors import UserError

# widths: channels of the stem's two convolutions, of the three blocks of the
# entry flow, and of the exit flow. The middle flow has as many channels as the
# last block of the entry flow. depth: number of blocks in the middle flow.
VARIANTS = {
  "cifar": dict(widths=(32, 64, 128, 256, 728, 1024, 1536, 2048), depth=8)
}


class Separable(nn.Module):
  """A 3x3 depthwise convolution, a 1x1 convolution, and batch norm."""

  features: int
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    conv = functools.partial(
      convolution.Conv, dtype=self.dtype, kernel_init=common.torch_linear
    )
    x = conv(x.shape[-1], 3, 1, groups=x.shape[-1], name="depthwise")(x)
    x = conv(self.features, 1, 1, name="pointwise")(x)
    return convolution.BatchNorm(self.dtype, name="bn")(x, train=train)


class Block(nn.Module):
  """Separable convolutions, each after a ReLU; max pooling; and a shortcut.

  Attributes:
    features: output channels of each separable convolution.
    stride: of the pooling. 0 means no pooling and an identity shortcut.
    relu_shortcut: whether the shortcut starts after the first ReLU. In the
      paper it does not. It does in the entry and middle flow of the PyTorch
      code, because the ReLU there is in-place and overwrites its input.
    dtype: of convolutions and activations.
  """

  features: tuple
  stride: int
  relu_shortcut: bool
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    y = nn.relu(x)
    if self.relu_shortcut:
      x = y
    for i, features in enumerate(self.features, 1):
      y = Separable(features, self.dtype, name=f"sep{i}")(y, train=train)
      if i < len(self.features):
        y = nn.relu(y)
    if not self.stride:
      return x + y
    x = convolution.Conv(
      self.features[-1],
      kernel=1,
      stride=self.stride,
      dtype=self.dtype,
      use_bias=True,
      kernel_init=common.torch_linear,
      name="shortcut_conv",
    )(x)
    x = convolution.BatchNorm(self.dtype, name="shortcut_bn")(x, train=train)
    return x + convolution.max_pool(y, self.stride)


class Tail(nn.Module):
  """The two separable convolutions at the end, each followed by a ReLU."""

  features: tuple
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    for i, features in enumerate(self.features, 1):
      x = Separable(features, self.dtype, name=f"sep{i}")(x, train=train)
      x = nn.relu(x)
    return x


class Xception(nn.Module):
  """See `Model`."""

  num_classes: int
  widths: tuple
  depth: int
  dropout: float = 0.0
  dtype_mm: str = "float32"

  def __post_init__(self):
    if len(self.widths) != 8:
      raise UserError(f"widths={self.widths}: need 8 numbers of channels.")
    super().__post_init__()

  def last_layer(self):
    return common.LastLayer("tail", pooled="tail")

  def torch_layers(self):
    def separable(torch, ours, first):
      """Names in an nn.Sequential of (separable, batch norm, ReLU or pool).

      `first` is the index of its first separable convolution.
      """
      for i in (1, 2):
        conv, sep = first + 3 * (i - 1), f"{ours}/sep{i}"
        for part in ("depthwise", "pointwise"):
          yield f"{torch}.{conv}.{part}", f"{sep}/{part}", "conv"
        yield f"{torch}.{conv + 1}", f"{sep}/bn", "batch_norm"

    def block(torch, ours, first):
      yield from separable(f"{torch}residual", ours, first)
      yield f"{torch}shortcut.0", f"{ours}/shortcut_conv", "dense"
      yield f"{torch}shortcut.1", f"{ours}/shortcut_bn", "batch_norm"

    rows = []
    for i in (1, 2):
      rows.append((f"entry_flow.conv{i}.0", f"conv{i}", "conv"))
      rows.append((f"entry_flow.conv{i}.1", f"bn{i}", "batch_norm"))
    for i in (1, 2, 3):
      rows += block(f"entry_flow.conv{i + 2}_", f"entry{i}", int(i > 1))
    middle = "middel_flow.middel_block.*.conv*"  # misspelt in the PyTorch code
    return [
      *rows,
      *(
        (f"{middle}.1.{part}", f"middle*/sep*/{part}", "conv")
        for part in ("depthwise", "pointwise")
      ),
      (f"{middle}.2", "middle*/sep*/bn", "batch_norm"),
      *block("exit_flow.", "exit", 1),
      *separable("exit_flow.conv", "tail", 0),
      ("fc", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    *stem, a, b, c, d, e, f = self.widths
    x, out = image, {}
    for i, features in enumerate(stem, 1):
      x = convolution.Conv(
        features,
        kernel=3,
        stride=1,
        dtype=self.dtype_mm,
        kernel_init=common.torch_linear,
        name=f"conv{i}",
      )(x)
      norm = convolution.BatchNorm(self.dtype_mm, name=f"bn{i}")
      x = nn.relu(norm(x, train=train))
    out["stem"] = x
    blocks = {
      "entry1": ((a, a), 2, True),
      "entry2": ((b, b), 2, True),
      "entry3": ((c, c), 1, True),
      **{f"middle{i}": ((c, c, c), 0, True) for i in range(self.depth)},
      "exit": ((c, d), 2, False),
    }
    for name, block in blocks.items():
      x = Block(*block, self.dtype_mm, name=name)(x, train=train)
      out[name] = x
    x = out["tail"] = Tail((e, f), self.dtype_mm, name="tail")(x, train=train)
    return convolution.classify(
      x, self.num_classes, out, dropout=self.dropout, train=train
    )


def Model(num_classes, *, variant="cifar", **kw):
  """Builds an Xception.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "entry1" to "entry3", "middle0" to "middle7",
  "exit" and "tail", all [B, h, w, c]; "pre_logits" [B, c], the mean of "tail";
  "logits". Running statistics are in "batch_stats". The parameters are conv1,
  bn1, conv2, bn2, entry1/sep1/depthwise, entry1/sep1/pointwise, entry1/sep1/bn,
  ..., entry1/shortcut_conv, entry1/shortcut_bn, ..., head.

  Args:
    num_classes: size of the logits.
    variant: "cifar".
    **kw: these override the variant:
      widths: channels of the stem's two convolutions, of the three blocks of
        the entry flow, of the last block, and of the last two convolutions;
        (32, 64, 128, 256, 728, 1024, 1536, 2048);
      depth: blocks of the middle flow, 8;
      dropout: rate before the head; the paper uses 0.5 for ImageNet;
      dtype_mm: see `common.DTYPES`.

  Returns:
    An `Xception`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build_variant(Xception, num_classes, VARIANTS, variant, kw)
