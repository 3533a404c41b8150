"""The ViT for small data sets: shifted patch tokens and locality attention.

Lee et al., https://arxiv.org/abs/2112.13492. Shifted patch tokenization (SPT)
embeds the patches of an image and of four shifted copies together. Locality
self-attention (LSA) keeps a token from attending to itself and learns the
softmax temperature. The defaults are the ViT that CropMix and YOCO train on
CIFAR; they use lucidrains' vit_for_small_dataset. That code shifts by one pixel
along the axes, the paper by half a patch along the diagonals.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from big_crop import names
from big_crop.models import common, swin, transformer
from pp_ops.errors import UserError

# (y, x) offsets of the four copies' windows, in units of the shift.
SHIFTS = {
  "one_pixel": ((0, -1), (0, 1), (-1, 0), (1, 0)),
  "half_patch": ((-1, -1), (-1, 1), (1, -1), (1, 1)),
}


class Attention(nn.Module):
  """Attention of tokens to all others, with a learnt temperature (LSA)."""

  num_heads: int
  head_dim: int
  dtype: str

  @nn.compact
  def __call__(self, x):
    b, n, c = x.shape
    dense = functools.partial(
      nn.Dense, dtype=self.dtype, kernel_init=common.torch_linear
    )
    inner = self.num_heads * self.head_dim
    qkv = dense(3 * inner, use_bias=False, name="qkv")(x)
    qkv = qkv.reshape(b, n, 3, self.num_heads, self.head_dim)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    init = lambda key: jnp.log(self.head_dim**-0.5)
    temperature = jnp.exp(self.param("temperature", init))
    x = transformer.attend(
      q * temperature.astype(q.dtype),
      k,
      v,
      jnp.where(jnp.eye(n), -jnp.inf, 0.0),
    )
    x = x.swapaxes(1, 2).reshape(b, n, inner)
    return dense(c, bias_init=common.torch_bias(inner), name="out")(x)


class SmallViT(nn.Module):
  """See `Model`."""

  num_classes: int
  width: int = 512
  depth: int = 6
  num_heads: int = 8
  head_dim: int = 64
  mlp_dim: int = 512
  patch_size: int = 4
  shifts: str = "one_pixel"
  dropout: float = 0.1
  dtype_mm: str = "float32"

  def __post_init__(self):
    names.check("shifts", self.shifts, SHIFTS)
    super().__post_init__()

  def last_layer(self):
    missing = dict.fromkeys(
      ("gradcam", "relevance"),
      "this ViT reads the class token alone, so that the last layer's patch "
      "tokens have no gradient and no relevance",
    )
    return common.LastLayer(
      f"layers_{self.depth - 1}", "encoded", None, missing
    )

  def torch_layers(self):
    """The names in lucidrains' and CropMix's code."""
    layer = "transformer.layers.*"
    return [
      ("to_patch_embedding.to_patch_tokens.1", "patch_norm", "layer_norm"),
      ("to_patch_embedding.to_patch_tokens.2", "embedding", "dense"),
      ("cls_token", "cls", "parameter"),
      ("pos_embedding", "pos_embedding", "parameter"),
      (f"{layer}.0.norm", "layers_*/norm1", "layer_norm"),
      (f"{layer}.0.fn.temperature", "layers_*/attn/temperature", "parameter"),
      (f"{layer}.0.fn.to_qkv", "layers_*/attn/qkv", "dense"),
      (f"{layer}.0.fn.to_out.0", "layers_*/attn/out", "dense"),
      (f"{layer}.1.norm", "layers_*/norm2", "layer_norm"),
      (f"{layer}.1.fn.net.0", "layers_*/mlp/Dense_0", "dense"),
      (f"{layer}.1.fn.net.3", "layers_*/mlp/Dense_1", "dense"),
      ("mlp_head.0", "norm", "layer_norm"),
      ("mlp_head.1", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
    dense = lambda features, inputs, **kw: nn.Dense(
      features,
      kernel_init=common.torch_linear,
      bias_init=common.torch_bias(inputs),
      **kw,
    )
    x = self._patches(image).astype(self.dtype_mm)
    b, n, inputs = x.shape
    x = norm(dtype=self.dtype_mm, name="patch_norm")(x)
    x = dense(self.width, inputs, dtype=self.dtype_mm, name="embedding")(x)
    init = nn.initializers.normal(1.0)
    cls = self.param("cls", init, (1, 1, self.width))
    posemb = self.param("pos_embedding", init, (1, n + 1, self.width))
    cls = jnp.broadcast_to(cls.astype(x.dtype), (b, 1, self.width))
    x = jnp.concatenate([cls, x], 1) + posemb.astype(x.dtype)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)

    layers = transformer.Layers(
      mlp_dim=self.mlp_dim,
      num_heads=self.num_heads,
      dtype=self.dtype_mm,
      norm="layernorm",
      act="gelu_exact",
      weight_init="torch",
      dropout=self.dropout,
    )
    attention = functools.partial(
      Attention, self.num_heads, self.head_dim, self.dtype_mm
    )
    for i in range(self.depth):
      x = swin.Block(attention, layers, name=f"layers_{i}")(x, train=train)
    out = {"encoded": x}
    x = x[:, 0].astype(common.accumulator(x.dtype))
    x = out["pre_logits"] = norm(name="norm")(x)
    bias = common.torch_bias(self.width)
    return common.head(x, self.num_classes, out, common.torch_linear, bias)

  def _patches(self, image):
    """[B, H, W, 3] -> [B, N, patch_size**2 * 15]: five copies of 3 channels."""
    b, h, w, _ = image.shape
    size = self.patch_size
    if h % size or w % size:
      raise UserError(
        f"Images of {h}x{w} pixels can't be cut into patches of {size}x{size}: "
        "choose multiples of the patch size."
      )
    by = 1 if self.shifts == "one_pixel" else size // 2
    padded = jnp.pad(image, [(0, 0), (by, by), (by, by), (0, 0)])
    copies = [
      padded[:, by + by * y : by + by * y + h, by + by * x : by + by * x + w]
      for y, x in ((0, 0), *SHIFTS[self.shifts])
    ]
    x = jnp.concatenate(copies, -1)
    x = x.reshape(b, h // size, size, w // size, size, -1).swapaxes(2, 3)
    return x.reshape(b, (h // size) * (w // size), -1)


def Model(num_classes, **kw):
  """Builds a ViT for small data sets.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "encoded" [B, N + 1, width], the class token first;
  "pre_logits" [B, width]; "logits".

  Args:
    num_classes: size of the logits; 0 for no head: "pre_logits" is returned.
    **kw:
      width: channels of the tokens, 512;
      depth: number of blocks, 6;
      mlp_dim: hidden width of the MLPs, 512;
      num_heads: attention heads, 8;
      head_dim: channels of each head, 64;
      patch_size: side of a patch in pixels, 4;
      shifts: "one_pixel", as in lucidrains' code; or "half_patch", as in the
        paper by Lee et al.;
      dropout: rate on embeddings, branches and MLP hidden layers, 0.1;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `SmallViT`.

  Raises:
    ValueError: an unknown argument or choice.
  """
  return common.build(SmallViT, num_classes, kw)
