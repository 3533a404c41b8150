"""Swin Transformer, and the simplified one that repositories for CIFAR use.

Liu et al., https://arxiv.org/abs/2103.14030: variant "T" is timm's
swin_tiny_patch4_window7_224 and torchvision's swin_t.

Variant "cifar" is for 32 pixels. The CropMix paper does not describe its Swin
for CIFAR, and its repository has only the compiled classes, not the arguments
they were called with. The classes are those of
github.com/berniwal/swin-transformer-pytorch. Repositories that train these on
CIFAR (kentaroy47/vision-transformers-cifar10 and its descendants) use windows
of 4x4 patches and grids of 16, 8, 4 and 4 patches a side, so we do the same.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from big_crop.models import common, transformer
from pp_ops.errors import UserError

VARIANTS = {
  "T": {},
  "cifar": dict(patch_size=2, window=4, merges=(2, 2, 1), simplified=True),
}


def _positions(window):
  """The bias table's row for each query and key: int [T, T], T = window**2.

  The rows are numbered as in timm.
  """
  places = np.stack(np.mgrid[:window, :window]).reshape(2, -1)
  y, x = places[:, :, None] - places[:, None] + window - 1
  return y * (2 * window - 1) + x


def _mask(h, w, window, shift):
  """The attention bias of shifted windows: float32 [windows, 1, T, T].

  It is -100 between patches that share a window only because the shift wraps
  around the image's border, and 0 elsewhere.
  """
  part = lambda n: np.digitize(np.arange(n), [n - window, n - shift])
  parts = _cut(3 * part(h)[:, None] + part(w)[None], window)
  apart = parts[:, None] != parts[:, :, None]
  return np.where(apart, np.float32(-100), np.float32(0))[:, None]


def _cut(x, window):
  """[..., h, w] -> [..., windows, T], the T = window**2 places of each."""
  *b, h, w = x.shape
  x = x.reshape(*b, h // window, window, w // window, window)
  return x.swapaxes(-3, -2).reshape(*b, -1, window * window)


class Attention(nn.Module):
  """Attention within windows, with a bias for each relative position."""

  num_heads: int
  window: int
  shift: int
  simplified: bool
  dtype: str

  @nn.compact
  def __call__(self, x):
    b, h, w, c = x.shape
    window = self.window
    grid = (b, h // window, window, w // window, window, c)
    x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
    x = x.reshape(grid).swapaxes(2, 3).reshape(-1, window * window, c)

    init = common.torch_linear if self.simplified else transformer.NORMAL
    dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=init)
    x = dense(3 * c, use_bias=not self.simplified, name="qkv")(x)
    x = x.reshape(b, -1, window**2, 3, self.num_heads, c // self.num_heads)
    q, k, v = jnp.moveaxis(x, (3, 4), (0, 3))

    rows, columns = (2 * window - 1) ** 2, self.num_heads
    init = transformer.NORMAL
    if self.simplified:  # one table for all heads
      columns, init = 1, nn.initializers.normal(1.0)
    table = self.param("relative_position_bias_table", init, (rows, columns))
    bias = jnp.moveaxis(table[_positions(window)], -1, 0)
    if self.shift:
      bias = bias + _mask(h, w, window, self.shift)
    x = transformer.attend(q * q.shape[-1] ** -0.5, k, v, bias)

    x = x.swapaxes(2, 3).reshape(-1, window * window, c)
    init = common.torch_bias(c) if self.simplified else nn.initializers.zeros
    x = dense(c, bias_init=init, name="proj")(x)
    x = x.reshape(b, h // window, w // window, window, window, c)
    x = x.swapaxes(2, 3).reshape(b, h, w, c)
    return jnp.roll(x, (self.shift, self.shift), (1, 2))


class Block(nn.Module):
  """Pre-norm attention and MLP, each a branch that can be dropped.

  Attributes:
    attention: called with `name=`, returns the attention module.
    layers: settings of the MLP; also the rate of dropout on both branches.
    drop_path: rate of stochastic depth.
  """

  attention: Callable[..., nn.Module]
  layers: transformer.Layers
  drop_path: float = 0.0

  @nn.compact
  def __call__(self, x, *, train):
    norm = functools.partial(
      nn.LayerNorm, epsilon=1e-5, dtype=self.layers.dtype
    )
    axes = tuple(range(1, x.ndim))

    def add(x, y):
      y = nn.Dropout(self.layers.dropout, deterministic=not train)(y)
      # One draw for all places and channels of an example.
      return x + nn.Dropout(self.drop_path, axes, deterministic=not train)(y)

    x = add(x, self.attention(name="attn")(norm(name="norm1")(x)))
    mlp = transformer.MlpBlock(self.layers, name="mlp")
    return add(x, mlp(norm(name="norm2")(x), train=train))


class Swin(nn.Module):
  """See `Model`."""

  num_classes: int
  width: int = 96
  depths: tuple[int, ...] = (2, 2, 6, 2)
  num_heads: tuple[int, ...] = (3, 6, 12, 24)
  patch_size: int = 4
  window: int = 7
  merges: tuple[int, ...] = (2, 2, 2)
  simplified: bool = False
  drop_path: float = 0.0
  dtype_mm: str = "float32"

  def __post_init__(self):
    if len(self.merges) < len(self.depths) - 1:
      raise UserError(
        f"merges={self.merges}: need a factor for each of the"
        f" {len(self.depths)} stages but the first"
      )
    super().__post_init__()

  def last_layer(self):
    missing = {}
    if self.simplified:
      missing["relevance"] = (
        "simplified=True has a layer norm after the pooling, which is not "
        "linear in the patches; use gradcam"
      )
    block = f"layers_{len(self.depths) - 1}_{self.depths[-1] - 1}"
    return common.LastLayer(block, "encoded", missing=missing)

  def torch_layers(self):
    block = "layers_*_*"
    table = "attn.relative_position_bias_table"
    return [
      ("patch_embed.proj", "patch_embed", "dense"),
      ("patch_embed.norm", "patch_norm", "layer_norm"),
      ("layers.*.downsample.norm", "downsample_norm_*", "layer_norm"),
      ("layers.*.downsample.reduction", "downsample_*", "dense"),
      ("layers.*.blocks.*.norm1", f"{block}/norm1", "layer_norm"),
      (
        f"layers.*.blocks.*.{table}",
        f"{block}/{table.replace('.', '/')}",
        "parameter",
      ),
      ("layers.*.blocks.*.attn.qkv", f"{block}/attn/qkv", "dense"),
      ("layers.*.blocks.*.attn.proj", f"{block}/attn/proj", "dense"),
      ("layers.*.blocks.*.norm2", f"{block}/norm2", "layer_norm"),
      ("layers.*.blocks.*.mlp.fc1", f"{block}/mlp/Dense_0", "dense"),
      ("layers.*.blocks.*.mlp.fc2", f"{block}/mlp/Dense_1", "dense"),
      ("norm", "norm", "layer_norm"),
      ("head.fc", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    rates = iter(common.drop_path_rates(self.drop_path, sum(self.depths)))
    norm = functools.partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype_mm)
    init = common.torch_linear if self.simplified else transformer.NORMAL
    bias = common.torch_bias if self.simplified else _zeros
    out = {}

    patch = (self.patch_size, self.patch_size)
    x = nn.Conv(
      self.width,
      patch,
      patch,
      "VALID",
      dtype=self.dtype_mm,
      kernel_init=common.torch_linear,
      bias_init=common.torch_bias(3 * self.patch_size**2),
      name="patch_embed",
    )(image)
    if not self.simplified:
      x = norm(name="patch_norm")(x)
    out["stem"] = x

    for i, depth in enumerate(self.depths):
      if i:
        x = self._merged(x, self.merges[i - 1])
        if not self.simplified:
          x = norm(name=f"downsample_norm_{i}")(x)
        x = nn.Dense(
          self.width * 2**i,
          use_bias=self.simplified,
          dtype=self.dtype_mm,
          kernel_init=init,
          bias_init=bias(x.shape[-1]),
          name=f"downsample_{i}",
        )(x)
      _, h, w, width = x.shape
      window = min(self.window, h, w)
      if h % window or w % window:
        raise UserError(
          f"Images of {image.shape[1]}x{image.shape[2]} pixels give stage "
          f"{i + 1} a grid of {h}x{w}, which windows of {window}x{window} "
          "can't tile: choose another image size, patch_size or window."
        )
      layers = transformer.Layers(
        mlp_dim=4 * width,
        num_heads=self.num_heads[i],
        dtype=self.dtype_mm,
        norm="layernorm",
        act="gelu_exact",
        weight_init="torch" if self.simplified else "timm",
        dropout=0.0,
      )
      for j in range(depth):
        # The simplified model shifts even if one window covers the grid.
        shifts = j % 2 and (self.simplified or window < min(h, w))
        attention = functools.partial(
          Attention,
          self.num_heads[i],
          window,
          window // 2 if shifts else 0,
          self.simplified,
          self.dtype_mm,
        )
        block = Block(attention, layers, next(rates), name=f"layers_{i}_{j}")
        x = block(x, train=train)
      out[f"stage{i + 1}"] = x

    norm = functools.partial(norm, dtype=common.accumulator(self.dtype_mm))
    if not self.simplified:
      x = norm(name="norm")(x)
    out["encoded"] = x
    x = jnp.mean(x, (1, 2), dtype=common.accumulator(x.dtype))
    if self.simplified:
      x = norm(name="norm")(x)
    out["pre_logits"] = x
    return common.head(x, self.num_classes, out, init, bias(x.shape[-1]))

  def _merged(self, x, factor):
    """Merges blocks of patches: [B, h, w, c] -> [B, h / f, w / f, f * f * c].

    In the f * f * c channels the column within the block varies slowest, then
    the row, then c, as in timm.
    """
    b, h, w, c = x.shape
    if h % factor or w % factor:
      raise UserError(
        f"A grid of {h}x{w} patches can't be merged {factor}x{factor}: choose "
        "another image size or patch_size."
      )
    x = x.reshape(b, h // factor, factor, w // factor, factor, c)
    x = x.transpose(0, 1, 3, 4, 2, 5)
    return x.reshape(b, h // factor, w // factor, -1)


def _zeros(fan_in):
  return nn.initializers.zeros


def Model(num_classes, *, variant="T", **kw):
  """Builds a Swin Transformer.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "stage1" to "stage4" [B, h, w, c]; "encoded",
  which is "stage4" after the final norm; "pre_logits" [B, c]; "logits".

  Args:
    num_classes: size of the logits; 0 for no head: "pre_logits" is returned.
    variant: "T" for 224 pixels or "cifar" for 32.
    **kw: these override the variant:
      width: channels of the first stage, 96; each further stage has twice as
        many;
      depths, num_heads: blocks, and attention heads, of each stage;
      patch_size: side of a patch in pixels, 4;
      window: side of a window in patches, 7; a smaller grid is one window;
      merges: the factor by which the grid shrinks before each stage but the
        first, (2, 2, 2);
      simplified: berniwal's architecture: no norm after the patch embedding
        and after merging, no biases of query, key and value, one table of
        position biases for all heads, the final norm after the pooling, and
        PyTorch's initial values;
      drop_path: stochastic depth rate of the last block, see
        `common.drop_path_rates`; examples and branches are drawn separately;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `Swin`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build_variant(Swin, num_classes, VARIANTS, variant, kw)
