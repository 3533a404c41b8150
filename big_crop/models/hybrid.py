"""The ResNet stem of hybrid ViTs.

Dosovitskiy et al., https://arxiv.org/abs/2010.11929, "Hybrid Architecture", and
Steiner et al., https://arxiv.org/abs/2106.10270, Table 2. Convolutions have
standardised weights (Qiao et al., https://arxiv.org/abs/1903.10520) and are
followed by group norm (Wu and He, https://arxiv.org/abs/1803.08494), although
the text of Steiner et al. says batch norm. Parameters have the names of the
published checkpoints.
"""

import functools

import flax.linen as nn

from big_crop.models import convolution

# name: (bottlenecks of each stage, the factor by which the papers say that the
# stem shrinks an image). The papers' factor 2 for "R" leaves out the max
# pooling: the stem shrinks by 4, so a patch of R+Ti/16 is 32 pixels wide.
STEMS = {"R": ((), 2), "R26": ((2, 2, 2, 2), 32), "R50": ((3, 4, 6, 3), 32)}

_conv = functools.partial(
  convolution.Conv,
  kernel_init=nn.initializers.lecun_normal(),
  same=True,
  standardise=True,
)
_norm = functools.partial(nn.GroupNorm, num_groups=32)


def shrinks(name: str) -> int:
  """The factor by which a stem really shrinks an image, in each direction."""
  return 2 ** max(2, len(STEMS[name][0]) + 1)


class Unit(nn.Module):
  """Bottleneck: convolutions 1x1, 3x3, 1x1 beside a shortcut."""

  width: int
  stride: int
  dtype: str

  @nn.compact
  def __call__(self, x):
    conv = functools.partial(_conv, dtype=self.dtype)
    norm = functools.partial(_norm, dtype=self.dtype)
    y, out, stride = x, 4 * self.width, self.stride
    layers = [(self.width, 1, 1), (self.width, 3, stride), (out, 1, 1)]
    for i, layer in enumerate(layers, 1):
      y = conv(*layer, name=f"conv{i}")(y)
      init = nn.initializers.ones if i < 3 else nn.initializers.zeros
      y = norm(scale_init=init, name=f"gn{i}")(y)
      y = nn.relu(y) if i < 3 else y
    if stride != 1 or x.shape[-1] != out:
      x = norm(name="gn_proj")(conv(out, 1, stride, name="conv_proj")(x))
    return nn.relu(x + y)


class Stage(nn.Module):
  """`depth` bottleneck units; the first has the stride, the others stride 1."""

  depth: int
  width: int
  stride: int
  dtype: str

  @nn.compact
  def __call__(self, x):
    for i in range(self.depth):
      stride = self.stride if i == 0 else 1
      x = Unit(self.width, stride, self.dtype, name=f"unit{i + 1}")(x)
    return x


def stem(image, name: str, dtype: str):
  """Applies a stem of `STEMS`; to be called from a model's `__call__`.

  Args:
    image: [B, H, W, 3].
    name: a name of `STEMS`.
    dtype: dtype of convolutions and activations.

  Returns:
    [B, H / f, W / f, C], rounded up, with f = `shrinks(name)`.
  """
  x = _conv(64, 7, 2, dtype=dtype, name="conv_root")(image)
  x = nn.relu(_norm(dtype=dtype, name="gn_root")(x))
  x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
  for i, depth in enumerate(STEMS[name][0]):
    stride = 2 if i else 1
    x = Stage(depth, 64 * 2**i, stride, dtype, name=f"block{i + 1}")(x)
  return x


def torch_layers(name: str) -> list[tuple[str, str, str]]:
  """The stem's part of a model's `torch_layers()`, with timm's names."""
  depths, top = STEMS[name][0], "patch_embed.backbone"
  root = f"{top}.stem" if depths else top
  rows = [
    (f"{root}.conv", "conv_root", "conv"),
    (f"{root}.norm", "gn_root", "layer_norm"),
  ]
  for i, depth in enumerate(depths):
    for j in range(depth):
      theirs = f"{top}.stages.{i}.blocks.{j}"
      ours = f"block{i + 1}/unit{j + 1}"
      for k in (1, 2, 3):
        rows += [
          (f"{theirs}.conv{k}", f"{ours}/conv{k}", "conv"),
          (f"{theirs}.norm{k}", f"{ours}/gn{k}", "layer_norm"),
        ]
      rows += [
        (f"{theirs}.downsample.conv", f"{ours}/conv_proj", "conv"),
        (f"{theirs}.downsample.norm", f"{ours}/gn_proj", "layer_norm"),
      ]
  return rows
