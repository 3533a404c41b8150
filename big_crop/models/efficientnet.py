"""EfficientNet-B0 to B4, and timm's EfficientNetV2-rw-S and M.

Tan and Le, https://arxiv.org/abs/1905.11946, and "EfficientNetV2",
https://arxiv.org/abs/2104.00298, with PyTorch's paddings and batch norm. With
timm's weights they compute the same logits as timm does. Initial values are
timm's, which are those of the authors' code in TensorFlow.

timm made V2-rw-S and M from a figure of the second paper, before the authors
published code. V2-rw-S differs from timm's later V2-S in three ways: the blocks
of its first stage are like those of the next two instead of plain convolutions,
its last stage has 272 channels, and its head has 1792. The numbers of
parameters of both agree with Table 4 of "ResNet strikes back". For B2, B3 and
B4 that table has 9.2, 12.0 and 19.0 million; timm's models, and ours, have 9.1,
12.2 and 19.3.
"""

import functools
import math

import flax.linen as nn

from big_crop import names
from big_crop.models import common, convolution
from pp_ops.errors import UserError

# version: (block, kernel size, stride, expansion) of each stage.
STAGES = {
  "1": (
    ("separable", 3, 1, 1),
    ("inverted", 3, 2, 6),
    ("inverted", 5, 2, 6),
    ("inverted", 3, 2, 6),
    ("inverted", 5, 1, 6),
    ("inverted", 5, 2, 6),
    ("inverted", 3, 1, 6),
  ),
  "2": (
    ("fused", 3, 1, 1),
    ("fused", 3, 2, 4),
    ("fused", 3, 2, 4),
    ("inverted", 3, 2, 4),
    ("inverted", 3, 1, 6),
    ("inverted", 3, 2, 6),
  ),
}


def _scaled(base, width, *depths):
  """A variant with more channels, and more blocks in each stage.

  Channels are multiplied and rounded to a multiple of 8, but not down by more
  than a tenth; blocks are multiplied and rounded up.
  """

  def channels(n):
    scaled = width * n
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded

  pairs = zip(base["depths"], depths, strict=True)
  return dict(
    version=base["version"],
    widths=tuple(map(channels, base["widths"])),
    depths=tuple(math.ceil(n * factor) for n, factor in pairs),
    stem=channels(base["stem"]),
    head=channels(base["head"]),
  )


_B0 = dict(
  version="1",
  widths=(16, 24, 40, 80, 112, 192, 320),
  depths=(1, 2, 2, 3, 3, 4, 1),
  stem=32,
  head=1280,
)
_V2_RW_S = dict(
  version="2",
  widths=(24, 48, 64, 128, 160, 272),
  depths=(2, 4, 4, 6, 9, 15),
  stem=24,
  head=1792,
)
# Channels and blocks of each stage, channels of stem and head.
VARIANTS = {
  "B0": _B0,
  "B1": _scaled(_B0, 1.0, *[1.1] * 7),
  "B2": _scaled(_B0, 1.1, *[1.2] * 7),
  "B3": _scaled(_B0, 1.2, *[1.4] * 7),
  "B4": _scaled(_B0, 1.4, *[1.8] * 7),
  "V2-rw-S": _V2_RW_S,
  "V2-rw-M": _scaled(_V2_RW_S, 1.2, *[1.2] * 4, *[1.6] * 2),
}


class Block(nn.Module):
  """Convolutions, each with batch norm and, but for the last, SiLU; a shortcut.

  The convolutions of "separable" are depthwise, 1x1; of "inverted", 1x1,
  depthwise, 1x1; both have squeeze-and-excitation before the last. Those of
  "fused" are kernel x kernel, 1x1.
  """

  kind: str
  features: int
  kernel: int
  stride: int
  expansion: int
  drop_path: float
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    channels = x.shape[-1]
    inner = channels * self.expansion
    spatial = (inner, self.kernel, self.stride)
    # name, channels, kernel size, stride, groups
    layers = {
      "separable": [
        ("conv_dw", *spatial, inner),
        ("conv_pw", self.features, 1, 1, 1),
      ],
      "inverted": [
        ("conv_pw", inner, 1, 1, 1),
        ("conv_dw", *spatial, inner),
        ("conv_pwl", self.features, 1, 1, 1),
      ],
      "fused": [
        ("conv_exp", *spatial, 1),
        ("conv_pwl", self.features, 1, 1, 1),
      ],
    }[self.kind]
    y = x
    for i, (name, *shape, groups) in enumerate(layers, 1):
      last = i == len(layers)
      if last and self.kind != "fused":
        y = convolution.SqueezeExcite(
          channels // 4, self.dtype, nn.silu, name="se"
        )(y)
      y = convolution.Conv(
        *shape,
        groups=groups,
        dtype=self.dtype,
        kernel_init=convolution.he_grouped(groups),
        name=name,
      )(y)
      y = convolution.BatchNorm(self.dtype, name=f"bn{i}")(y, train=train)
      if not last:
        y = nn.silu(y)
    if self.stride == 1 and channels == self.features:
      y = x + convolution.drop_path(y, self.drop_path, train)
    return y


class EfficientNet(nn.Module):
  """See `Model`."""

  num_classes: int
  version: str
  widths: tuple[int, ...]
  depths: tuple[int, ...]
  stem: int
  head: int
  dropout: float = 0.0
  drop_path: float = 0.0
  dtype_mm: str = "float32"

  def __post_init__(self):
    names.check("EfficientNet version", self.version, STAGES)
    stages = len(STAGES[self.version])
    if not len(self.widths) == len(self.depths) == stages:
      raise UserError(
        f"widths={self.widths}, depths={self.depths}: version {self.version} "
        f"needs {stages} numbers each."
      )
    super().__post_init__()

  def last_layer(self):
    last = f"blocks_{len(self.depths) - 1}_{self.depths[-1] - 1}"
    return common.LastLayer(last, pooled="encoded")

  def torch_layers(self):
    convs = ("conv_pw", "conv_dw", "conv_pwl", "conv_exp")
    block = [
      *((name, name, "conv") for name in convs),
      *((f"bn{i}", f"bn{i}", "batch_norm") for i in (1, 2, 3)),
      ("se.conv_reduce", "se/fc1", "pointwise"),
      ("se.conv_expand", "se/fc2", "pointwise"),
    ]
    return [
      ("conv_stem", "conv_stem", "conv"),
      ("bn1", "bn1", "batch_norm"),
      *((f"blocks.*.*.{a}", f"blocks_*_*/{b}", kind) for a, b, kind in block),
      ("conv_head", "conv_head", "conv"),
      ("bn2", "bn2", "batch_norm"),
      ("classifier", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    conv = functools.partial(convolution.Conv, dtype=self.dtype_mm)
    norm = functools.partial(convolution.BatchNorm, dtype=self.dtype_mm)
    x = conv(self.stem, 3, 2, name="conv_stem")(image)
    x = nn.silu(norm(name="bn1")(x, train=train))
    out = {"stem": x}
    # As in timm, the rate would reach `drop_path` one block after the last.
    blocks = sum(self.depths)
    rates = iter(common.drop_path_rates(self.drop_path, blocks + 1))
    for i, (kind, kernel, stride, expansion) in enumerate(STAGES[self.version]):
      for j in range(self.depths[i]):
        x = Block(
          kind,
          self.widths[i],
          kernel,
          stride=1 if j else stride,
          expansion=expansion,
          drop_path=next(rates),
          dtype=self.dtype_mm,
          name=f"blocks_{i}_{j}",
        )(x, train=train)
      out[f"stage{i + 1}"] = x
    x = conv(self.head, 1, 1, name="conv_head")(x)
    x = out["encoded"] = nn.silu(norm(name="bn2")(x, train=train))
    # Uniform in +- 1 / sqrt(num_classes).
    init = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
    return convolution.classify(
      x, self.num_classes, out, dropout=self.dropout, train=train, init=init
    )


def Model(num_classes, *, variant="B0", **kw):
  """Builds an EfficientNet.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "stage1" to "stage7" ("stage6" in V2),
  and "encoded", all [B, h, w, c]; "pre_logits" [B, c], the mean of "encoded";
  "logits". Running statistics are in "batch_stats". The parameters are named
  nearly as in timm: conv_stem, bn1, blocks_0_0/conv_dw, blocks_0_0/bn1, ...,
  blocks_0_0/se/fc1, blocks_0_0/se/fc2, ..., conv_head, bn2, and head for its
  classifier.

  Args:
    num_classes: size of the logits; 0 for no head: "pre_logits" is returned.
    variant: "B0" to "B4", "V2-rw-S", "V2-rw-M": timm's efficientnet_b0, ...,
      efficientnetv2_rw_s, ...
    **kw: these override the variant:
      version: of the blocks, a name of `STAGES`;
      widths, depths: channels and blocks of each stage;
      stem, head: channels of the first and the last convolution;
      dropout: rate before the head;
      drop_path: stochastic depth rate. It grows linearly over the blocks, and
        the last block's is just below drop_path; each example is drawn
        separately;
      dtype_mm: see `common.DTYPES`.

  Returns:
    An `EfficientNet`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build_variant(EfficientNet, num_classes, VARIANTS, variant, kw)
