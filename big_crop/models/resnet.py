"""ResNet v1.5, torchvision's architecture, and its D, SE, ECA and X variants.

He et al., https://arxiv.org/abs/1512.03385, with the stride in the 3x3
convolution of the bottleneck (Goyal et al., https://arxiv.org/abs/1706.02677)
and PyTorch's paddings. With the weights of torchvision or timm it computes the
same logits as they do. The variants are timm's: ResNet-D (He et al.,
https://arxiv.org/abs/1812.01187), squeeze-and-excitation and SENet-154 (Hu et
al., https://arxiv.org/abs/1709.01507), efficient channel attention (Wang et
al., https://arxiv.org/abs/1910.03151) and ResNeXt (Xie et al.,
https://arxiv.org/abs/1611.05431).
"""

import functools

import flax.linen as nn

from big_crop import names
from big_crop.models import common, convolution
from pp_ops.errors import UserError

# variant: (blocks per stage, whether they are bottlenecks)
VARIANTS = {
  "10": ((1, 1, 1, 1), False),  # for smoke runs
  "18": ((2, 2, 2, 2), False),
  "34": ((3, 4, 6, 3), False),
  "50": ((3, 4, 6, 3), True),
  "101": ((3, 4, 23, 3), True),
  "152": ((3, 8, 36, 3), True),
  "200": ((3, 24, 36, 3), True),
  "269": ((3, 30, 48, 8), True),
}

# Further names of variants -> arguments of `ResNet`.
MODIFIED = {
  "50d": dict(variant="50", deep_stem=True, avg_down=True),
  "se50": dict(variant="50", se_ratio=1 / 16),
  "x50_32x4d": dict(variant="50", groups=32, base_width=4),
  "eca50t": dict(
    variant="50",
    deep_stem=True,
    stem_widths=(24, 32, 64),
    avg_down=True,
    eca=True,
  ),
  "eca269d": dict(variant="269", deep_stem=True, avg_down=True, eca=True),
  "senet154": dict(
    variant="152",
    deep_stem=True,
    stem_widths=(64, 64, 128),
    groups=64,
    base_width=4,
    reduce_first=2,
    down_kernel=3,
    se_ratio=1 / 16,
  ),
}


class Block(nn.Module):
  """Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1) residual block."""

  width: int
  stride: int
  bottleneck: bool
  avg_down: bool
  se_ratio: float
  groups: int
  base_width: int
  drop_path: float
  zero_init_last: bool
  dtype: str
  eca: bool = False
  reduce_first: int = 1
  down_kernel: int = 1
  grouped_reduce: bool = False
  kernel_init: nn.initializers.Initializer = convolution.HE

  @nn.compact
  def __call__(self, x, *, train):
    conv = functools.partial(
      convolution.Conv, dtype=self.dtype, kernel_init=self.kernel_init
    )
    norm = functools.partial(convolution.BatchNorm, dtype=self.dtype)
    last_init = nn.initializers.ones
    if self.zero_init_last:
      last_init = nn.initializers.zeros

    features, strides = self.width, self.stride
    if self.bottleneck:
      features = 4 * self.width
      reduce_groups = self.groups if self.grouped_reduce else 1
      inner = self.width * self.base_width // 64 * self.groups
      layers = [
        (inner // self.reduce_first, 1, 1, reduce_groups),
        (inner, 3, strides, self.groups),
        (features, 1, 1, 1),
      ]
    else:
      layers = [(self.width, 3, strides, 1), (self.width, 3, 1, 1)]

    y = x
    for i, (f, kernel, stride, groups) in enumerate(layers, 1):
      last = i == len(layers)
      y = conv(f, kernel, stride, groups, name=f"conv{i}")(y)
      init = last_init if last else nn.initializers.ones
      y = norm(scale_init=init, name=f"bn{i}")(y, train=train)
      if not last:
        y = nn.relu(y)
    if self.se_ratio:
      # Rounded to a multiple of 8, as in timm.
      hidden = max(8, int(features * self.se_ratio + 4) // 8 * 8)
      y = convolution.SqueezeExcite(hidden, self.dtype, name="se")(y)
    if self.eca:
      y = convolution.EfficientChannelAttention(self.dtype, name="se")(y)

    if strides != 1 or x.shape[-1] != features:
      if self.avg_down and strides != 1:
        # A window that reaches over the edge averages only pixels of the image.
        window = (strides, strides)
        x = nn.avg_pool(x, window, window, "SAME", count_include_pad=False)
        strides = 1
      kernel = self.down_kernel if strides != 1 else 1
      x = conv(features, kernel, strides, name="downsample_conv")(x)
      x = norm(name="downsample_bn")(x, train=train)
    return nn.relu(x + convolution.drop_path(y, self.drop_path, train))


class ResNet(nn.Module):
  """See `Model`."""

  num_classes: int
  variant: int | str = 50
  width: int = 64
  small_stem: bool = False
  deep_stem: bool = False
  stem_widths: tuple[int, ...] = ()
  avg_down: bool = False
  down_kernel: int = 1
  se_ratio: float = 0.0
  eca: bool = False
  reduce_first: int = 1
  groups: int = 1
  base_width: int = 64
  grouped_reduce: bool = False
  zero_init_last: bool = False
  dropout: float = 0.0
  drop_path: float = 0.0
  dtype_mm: str = "float32"

  def __post_init__(self):
    names.check("ResNet variant", str(self.variant), VARIANTS)
    if self.small_stem and self.deep_stem:
      raise UserError("small_stem and deep_stem exclude each other.")
    if self.stem_widths and (not self.deep_stem or len(self.stem_widths) != 3):
      raise UserError(
        f"stem_widths={self.stem_widths}: need deep_stem and 3 numbers."
      )
    if self.se_ratio and self.eca:
      raise UserError("se_ratio and eca exclude each other.")
    if (self.groups, self.base_width) != (1, 64):
      if not VARIANTS[str(self.variant)][1]:
        raise UserError(
          "groups and base_width are for bottlenecks: variant 50 or deeper, "
          f"not {self.variant}."
        )
      if min(self.groups, self.width * self.base_width // 64) < 1:
        raise UserError(
          f"groups={self.groups} of base_width={self.base_width} leave no "
          f"channels at width={self.width}: need groups >= 1 and "
          "width * base_width >= 64."
        )
    if self.grouped_reduce and (self.groups == 1 or self.width % self.groups):
      raise UserError(
        f"grouped_reduce: groups={self.groups} must be above 1 and divide "
        f"width={self.width}, as those of x50_32x4d do."
      )
    super().__post_init__()

  def last_layer(self):
    depths, _ = VARIANTS[str(self.variant)]
    return common.LastLayer(f"layer4_{depths[-1] - 1}", pooled="layer4")

  def torch_layers(self):
    stem = [("conv1", "conv1", "conv")]
    if self.deep_stem:  # an nn.Sequential in timm, where ReLUs count as layers
      stem = [
        ("conv1.0", "stem_conv1", "conv"),
        ("conv1.1", "stem_bn1", "batch_norm"),
        ("conv1.3", "stem_conv2", "conv"),
        ("conv1.4", "stem_bn2", "batch_norm"),
        ("conv1.6", "conv1", "conv"),
      ]
    # timm counts the average pooling as layer 0 of the shortcut.
    conv, norm = (1, 2) if self.avg_down else (0, 1)
    block = [
      *((f"conv{i}", f"conv{i}", "conv") for i in (1, 2, 3)),
      *((f"bn{i}", f"bn{i}", "batch_norm") for i in (1, 2, 3)),
      *((f"se.fc{i}", f"se/fc{i}", "pointwise") for i in (1, 2)),
      ("se.conv", "se", "conv"),
      (f"downsample.{conv}", "downsample_conv", "conv"),
      (f"downsample.{norm}", "downsample_bn", "batch_norm"),
    ]
    return [
      *stem,
      ("bn1", "bn1", "batch_norm"),
      *((f"layer*.*.{a}", f"layer*_*/{b}", kind) for a, b, kind in block),
      ("fc", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    depths, bottleneck = VARIANTS[str(self.variant)]
    rates = iter(common.drop_path_rates(self.drop_path, sum(depths)))
    out = {}

    init = common.torch_linear if self.grouped_reduce else convolution.HE
    conv = functools.partial(
      convolution.Conv, dtype=self.dtype_mm, kernel_init=init
    )
    norm = functools.partial(convolution.BatchNorm, dtype=self.dtype_mm)
    x = image
    stem = self.stem_widths or (self.width // 2, self.width // 2, self.width)
    if self.deep_stem:
      for i in (1, 2):
        x = conv(stem[i - 1], 3, 3 - i, name=f"stem_conv{i}")(x)
        x = nn.relu(norm(name=f"stem_bn{i}")(x, train=train))
    if self.deep_stem or self.small_stem:
      x = conv(stem[2], 3, 1, name="conv1")(x)
    else:
      x = conv(self.width, 7, 2, name="conv1")(x)
    x = nn.relu(norm(name="bn1")(x, train=train))
    if not self.small_stem:
      x = convolution.max_pool(x)
    out["stem"] = x

    for i, depth in enumerate(depths):
      for j in range(depth):
        x = Block(
          width=self.width * 2**i,
          stride=2 if i > 0 and j == 0 else 1,
          bottleneck=bottleneck,
          avg_down=self.avg_down,
          down_kernel=self.down_kernel,
          se_ratio=self.se_ratio,
          eca=self.eca,
          reduce_first=self.reduce_first,
          groups=self.groups,
          base_width=self.base_width,
          grouped_reduce=self.grouped_reduce,
          drop_path=next(rates),
          zero_init_last=self.zero_init_last,
          kernel_init=init,
          dtype=self.dtype_mm,
          name=f"layer{i + 1}_{j}",
        )(x, train=train)
      out[f"layer{i + 1}"] = x

    return convolution.classify(
      x, self.num_classes, out, dropout=self.dropout, train=train
    )


def Model(num_classes, *, variant=50, **kw):
  """Builds a ResNet v1.5 or a variant of it.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "layer1" to "layer4" [B, h, w, c],
  "pre_logits" [B, c], "logits". Running statistics are in "batch_stats". The
  parameters are named nearly as in torchvision: conv1, bn1, layer1_0/conv1,
  ..., layer1_0/downsample_conv, layer1_0/downsample_bn, ..., and head for its
  fc. With deep_stem, stem_conv1, stem_bn1, stem_conv2 and stem_bn2 come before
  conv1. With se_ratio there are layer1_0/se/fc1, layer1_0/se/fc2, ..., with eca
  layer1_0/se, ....

  Args:
    num_classes: size of the logits; 0 for no head: "pre_logits" is returned.
    variant: 10, 18, 34, 50, 101, 152, 200, 269; or "50d", "se50", "x50_32x4d",
      "eca50t", "eca269d", "senet154", which are timm's resnet50d, seresnet50,
      resnext50_32x4d, ecaresnet50t, ecaresnet269d and senet154.
    **kw: these override the variant:
      width: channels of the stem and the first stage, 64;
      small_stem: a 3x3 stride 1 stem without pooling, for images of 32 to 64
        pixels;
      deep_stem: three 3x3 convolutions of width / 2, width / 2 and width
        channels instead of the 7x7 one;
      stem_widths: the channels of these three, if others;
      avg_down: where the stride is 2, a shortcut is averaged over 2x2 pixels
        before its 1x1 convolution;
      down_kernel: kernel size of a shortcut's convolution of stride 2, 1;
      se_ratio: squeeze-and-excitation after the last batch norm of each block,
        with a bottleneck of se_ratio times the block's output channels; 0 for
        none;
      eca: efficient channel attention in the same place;
      reduce_first: the first 1x1 convolution of a bottleneck has this many
        times fewer channels than the 3x3 one, 1;
      groups, base_width: the 3x3 convolution of a bottleneck has `groups`
        groups, each of `base_width` channels in the first stage, 1 and 64;
      grouped_reduce: the first 1x1 convolution of a bottleneck has `groups`
        groups, too, and initial values are PyTorch's. With small_stem and
        x50_32x4d this is the ResNeXt-50 for CIFAR of
        https://github.com/weiaicunzai/pytorch-cifar100;
      zero_init_last: start the last batch norm scale of each block at zero
        (Goyal et al., section 5.1), timm's default;
      dropout: rate before the head;
      drop_path: stochastic depth rate of the last block, see
        `common.drop_path_rates`; each example is drawn separately;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `ResNet`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  names.check("ResNet variant", str(variant), [*VARIANTS, *MODIFIED])
  kw = {"variant": variant, **MODIFIED.get(str(variant), {}), **kw}
  return common.build(ResNet, num_classes, kw)
