"""RegNetY-4GF to 32GF, as in timm.

Radosavovic et al., "Designing Network Design Spaces",
https://arxiv.org/abs/2003.13678, with timm's initial values. A block is a
ResNet's bottleneck whose convolutions all have as many channels as its output,
with squeeze-and-excitation after the 3x3 convolution.
"""

import functools

import flax.linen as nn

from big_crop.models import common, convolution
from pp_ops.errors import UserError

# Blocks and channels of each stage, and channels in a group of the 3x3
# convolutions, as timm computes them from the paper's parameters.
VARIANTS = {
  "Y-4GF": dict(
    depths=(2, 6, 12, 2), widths=(128, 192, 512, 1088), group_width=64
  ),
  "Y-8GF": dict(
    depths=(2, 4, 10, 1), widths=(168, 448, 896, 2016), group_width=56
  ),
  "Y-16GF": dict(
    depths=(2, 4, 11, 1), widths=(224, 448, 1232, 3024), group_width=112
  ),
  "Y-32GF": dict(
    depths=(2, 5, 12, 1), widths=(232, 696, 1392, 3712), group_width=232
  ),
}


class Block(nn.Module):
  """1x1, grouped 3x3, squeeze-and-excitation, 1x1; and a shortcut."""

  width: int
  stride: int
  group_width: int
  drop_path: float
  zero_init_last: bool
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    def conv_norm(x, kernel, stride, name, groups=1, scale=1.0):
      x = convolution.Conv(
        self.width,
        kernel,
        stride,
        groups,
        dtype=self.dtype,
        kernel_init=convolution.he_grouped(groups),
        name=f"{name}_conv",
      )(x)
      norm = convolution.BatchNorm(
        self.dtype,
        scale_init=nn.initializers.constant(scale),
        name=f"{name}_bn",
      )
      return norm(x, train=train)

    y = nn.relu(conv_norm(x, 1, 1, "conv1"))
    groups = self.width // self.group_width
    y = nn.relu(conv_norm(y, 3, self.stride, "conv2", groups))
    hidden = round(x.shape[-1] / 4)  # a quarter of the block's input channels
    y = convolution.SqueezeExcite(hidden, self.dtype, name="se")(y)
    y = conv_norm(y, 1, 1, "conv3", scale=0.0 if self.zero_init_last else 1.0)
    if self.stride != 1 or x.shape[-1] != self.width:
      x = conv_norm(x, 1, self.stride, "downsample")
    return nn.relu(x + convolution.drop_path(y, self.drop_path, train))


class RegNet(nn.Module):
  """See `Model`."""

  num_classes: int
  depths: tuple[int, ...]
  widths: tuple[int, ...]
  group_width: int
  stem: int = 32
  zero_init_last: bool = False
  dropout: float = 0.0
  drop_path: float = 0.0
  dtype_mm: str = "float32"

  def __post_init__(self):
    if any(width % self.group_width for width in self.widths):
      raise UserError(
        f"group_width={self.group_width} must divide all of "
        f"widths={self.widths}."
      )
    super().__post_init__()

  def last_layer(self):
    stage = len(self.depths)
    last = f"s{stage}_b{self.depths[-1]}"
    return common.LastLayer(last, pooled=f"stage{stage}")

  def torch_layers(self):
    parts = ("conv1", "conv2", "conv3", "downsample")
    kinds = {"conv": "conv", "bn": "batch_norm"}
    return [
      *((f"stem.{a}", f"stem_{a}", kind) for a, kind in kinds.items()),
      *(
        (f"s*.b*.{part}.{a}", f"s*_b*/{part}_{a}", kind)
        for part in parts
        for a, kind in kinds.items()
      ),
      *((f"s*.b*.se.fc{i}", f"s*_b*/se/fc{i}", "pointwise") for i in (1, 2)),
      ("head.fc", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    rates = iter(common.drop_path_rates(self.drop_path, sum(self.depths)))
    block = functools.partial(
      Block,
      group_width=self.group_width,
      zero_init_last=self.zero_init_last,
      dtype=self.dtype_mm,
    )
    dtype = self.dtype_mm
    x = convolution.Conv(self.stem, 3, 2, dtype=dtype, name="stem_conv")(image)
    norm = convolution.BatchNorm(dtype, name="stem_bn")
    x = nn.relu(norm(x, train=train))
    out = {"stem": x}
    for i, (depth, width) in enumerate(
      zip(self.depths, self.widths, strict=True), 1
    ):
      for j in range(1, depth + 1):
        stride = 2 if j == 1 else 1
        x = block(width, stride, drop_path=next(rates), name=f"s{i}_b{j}")(
          x, train=train
        )
      out[f"stage{i}"] = x
    init = nn.initializers.normal(0.01)
    return convolution.classify(
      x, self.num_classes, out, dropout=self.dropout, train=train, init=init
    )


def Model(num_classes, *, variant="Y-4GF", **kw):
  """Builds a RegNetY.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "stage1" to "stage4" [B, h, w, c],
  "pre_logits" [B, c], "logits". Running statistics are in "batch_stats". The
  parameters are stem_conv, stem_bn, s1_b1/conv1_conv, s1_b1/conv1_bn, ...,
  s1_b1/se/fc1, s1_b1/se/fc2, ..., s1_b1/downsample_conv, s1_b1/downsample_bn,
  ..., head.

  Args:
    num_classes: size of the logits; 0 for no head: "pre_logits" is returned.
    variant: "Y-4GF", "Y-8GF", "Y-16GF", "Y-32GF": timm's regnety_040,
      regnety_080, regnety_160 and regnety_320.
    **kw: these override the variant:
      depths, widths: blocks and channels of each stage;
      group_width: channels in a group of the 3x3 convolutions;
      stem: channels of the first convolution, 32;
      zero_init_last: start the last batch norm scale of each block at zero,
        timm's default;
      dropout: rate before the head;
      drop_path: stochastic depth rate of the last block, see
        `common.drop_path_rates`; each example is drawn separately;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `RegNet`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build_variant(RegNet, num_classes, VARIANTS, variant, kw)
