"""Vision Transformer with the parameter tree of big_vision's checkpoints.

Dosovitskiy et al., https://arxiv.org/abs/2010.11929; the variants of Zhai et
al., https://arxiv.org/abs/2106.04560, Table 2; the plain recipe (sincos2d,
gap) of Beyer et al., https://arxiv.org/abs/2205.01580; DeiT as in timm, Touvron
et al., https://arxiv.org/abs/2012.12877; the encoder of MAE, He et al.,
https://arxiv.org/abs/2111.06377; and the models of AugReg with its hybrids,
Steiner et al., https://arxiv.org/abs/2106.10270.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from big_crop import names
from big_crop.models import common, hybrid, transformer
from pp_ops.checks import check_size
from pp_ops.errors import UserError

# name: (width, depth, mlp_dim, num_heads)
VARIANTS = {
  "mu": (32, 1, 128, 2),
  "Ti": (192, 12, 768, 3),
  "S": (384, 12, 1536, 6),
  "M": (512, 12, 2048, 8),
  "B": (768, 12, 3072, 12),
  "L": (1024, 24, 4096, 16),
  "So400m": (1152, 27, 4304, 16),
  "H": (1280, 32, 5120, 16),
  "g": (1408, 40, 6144, 16),
  "g-opt": (1536, 40, 6144, 16),
  "G": (1664, 48, 8192, 16),
  "G-opt": (1536, 48, 8192, 16),
  "e": (1792, 56, 15360, 16),
}

# Arguments that the prefix "DeiT-" of a variant adds.
DEIT = dict(
  pool_type="tok",
  posemb="learn",
  posemb_cls=True,
  act="gelu_exact",
  weight_init="timm",
  head_zeroinit=False,
)


# Arguments that the prefix "MAE-" of a variant adds: the encoder during
# pretraining. For finetuning set pool_type="fc_norm", posemb="learn" and
# posemb_cls=True.
MAE = dict(
  pool_type="tok",
  posemb="sincos2d_mae",
  act="gelu_exact",
  weight_init="mae",
  head_zeroinit=False,
)

# Arguments that the prefix "AugReg-" of a variant adds, as in
# "AugReg-R26+S/32": the published models of "How to train your ViT?".
AUGREG = dict(
  pool_type="tok", posemb="learn", posemb_cls=True, weight_init="augreg"
)

FAMILIES = {"DeiT": DEIT, "MAE": MAE, "AugReg": AUGREG}

POOLS = ("gap", "tok", "map", "fc_norm")


def sincos2d(h, w, width, to_end=True):
  """Fixed 2-d sine-cosine position embedding.

  The embedding of MoCo v3 (https://arxiv.org/abs/2104.02057): the channels are
  sin(x), cos(x), sin(y), cos(y), each for `width // 4` frequencies that fall
  geometrically from 1 to 1/10000.

  Args:
    h: rows of patches.
    w: columns of patches.
    width: channels, a multiple of 4 and at least 8.
    to_end: whether 1/10000 is the last frequency. If False, as in MAE, the
      frequencies stop one step before 1/10000.

  Returns:
    float32 NumPy array [1, h * w, width], row by row.
  """
  if width % 4 or width < 8:
    raise UserError(
      f"posemb='sincos2d' needs a width that is a multiple of 4 and at least "
      f"8, not {width}."
    )
  omega = 10_000.0 ** -np.linspace(0, 1, width // 4, endpoint=to_end)
  y, x = (grid.reshape(-1, 1) * omega for grid in np.mgrid[:h, :w])
  posemb = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
  return posemb[None].astype(np.float32)


def sincos2d_mae(h, w, width, cls):
  """MAE's fixed positions, float32 [1, h * w + cls, width].

  If `cls`, the first row is the class token's embedding, which is all zeros.
  """
  posemb = sincos2d(h, w, width, to_end=False)
  return np.pad(posemb, [(0, 0), (int(cls), 0), (0, 0)])


class ViT(nn.Module):
  """See `Model`."""

  num_classes: int
  width: int = 768
  depth: int = 12
  mlp_dim: int | None = None
  num_heads: int = 12
  patch_size: tuple[int, int] = (16, 16)
  stem: str = ""
  posemb: str = "learn"
  posemb_cls: bool = False
  pool_type: str = "gap"
  rep_size: int | bool = False
  norm: str = "layernorm"
  act: str = "gelu"
  weight_init: str = "big_vision"
  dropout: float = 0.0
  drop_path: float = 0.0
  head_zeroinit: bool = True
  head_bias: float = 0.0
  remat: bool = False
  scan: bool = False
  dtype_mm: str = "float32"

  def __post_init__(self):
    if self.stem:
      names.check("stem", self.stem, hybrid.STEMS)
    names.check("posemb", self.posemb, ("learn", "sincos2d", "sincos2d_mae"))
    names.check("pool_type", self.pool_type, POOLS)
    names.check("norm", self.norm, transformer.NORMS)
    names.check("act", self.act, transformer.ACTIVATIONS)
    names.check("weight_init", self.weight_init, transformer.INITS)
    if self.width % self.num_heads:
      raise UserError(
        f"width={self.width} is not a multiple of num_heads={self.num_heads}."
      )
    if self.posemb_cls and not (self.posemb == "learn" and self._has_cls()):
      raise UserError(
        "posemb_cls=True is for posemb='learn' with pool_type='tok' or "
        f"'fc_norm', not posemb={self.posemb!r} with "
        f"pool_type={self.pool_type!r}."
      )
    super().__post_init__()

  def _has_cls(self):
    return self.pool_type in ("tok", "fc_norm")

  def _pixels(self):
    """Height and width of a patch, in pixels of the image."""
    factor = hybrid.shrinks(self.stem) if self.stem else 1
    return tuple(factor * size for size in self.patch_size)

  def last_layer(self):
    missing = {}
    if self.remat or self.scan:
      missing = dict.fromkeys(
        ("gradcam", "relevance"),
        "remat and scan hide the last layer; set both to False",
      )
    elif self.pool_type == "tok":
      missing = dict.fromkeys(
        ("gradcam", "relevance"),
        "pool_type='tok' reads the class token alone, so that the last layer's "
        "patch tokens have no gradient and no relevance; use pool_type='gap'",
      )
    elif self.pool_type == "fc_norm":
      missing = dict.fromkeys(
        ("gradcam", "relevance"),
        "pool_type='fc_norm' has a class token, so the last layer's tokens "
        "are no grid; use pool_type='gap'",
      )
    elif self.pool_type != "gap":
      missing["relevance"] = (
        f"pool_type={self.pool_type!r} is not linear in the tokens; use "
        "pool_type='gap'"
      )
    elif self.rep_size:
      missing["relevance"] = (
        f"rep_size={self.rep_size} puts a tanh before the head; use "
        "rep_size=False"
      )
    block = f"Transformer/encoderblock_{self.depth - 1}"
    return common.LastLayer(block, "encoded", self._pixels(), missing)

  def torch_layers(self):
    block = "Transformer/encoderblock_*"
    attention = f"{block}/MultiHeadDotProductAttention_0"
    qkv = [f"{attention}/{name}" for name in ("query", "key", "value")]
    return [
      ("cls_token", "cls", "parameter"),
      ("pos_embed", "pos_embedding", "parameter"),
      ("patch_embed.proj", "embedding", "dense"),
      ("blocks.*.norm1", f"{block}/LayerNorm_0", "layer_norm"),
      ("blocks.*.attn.qkv", qkv, "to_heads", self.num_heads),
      ("blocks.*.attn.proj", f"{attention}/out", "from_heads", self.num_heads),
      ("blocks.*.norm2", f"{block}/LayerNorm_1", "layer_norm"),
      ("blocks.*.mlp.fc1", f"{block}/MlpBlock_0/Dense_0", "dense"),
      ("blocks.*.mlp.fc2", f"{block}/MlpBlock_0/Dense_1", "dense"),
      ("norm", "Transformer/encoder_norm", "layer_norm"),
      ("fc_norm", "fc_norm", "layer_norm"),
      ("head", "head", "dense"),
      *(hybrid.torch_layers(self.stem) if self.stem else ()),
    ]

  @nn.compact
  def __call__(self, image, *, train=False, keep=None):
    layers = transformer.Layers(
      mlp_dim=self.mlp_dim or 4 * self.width,
      num_heads=self.num_heads,
      dtype=self.dtype_mm,
      norm=self.norm,
      act=self.act,
      weight_init=self.weight_init,
      dropout=self.dropout,
    )
    patch = self.patch_size
    out = {}

    x = hybrid.stem(image, self.stem, self.dtype_mm) if self.stem else image
    if x.shape[1] % patch[0] or x.shape[2] % patch[1]:
      height, width = self._pixels()
      raise UserError(
        f"Images of {image.shape[1]}x{image.shape[2]} pixels can't be cut into "
        f"patches of {height}x{width}: choose multiples of the patch size."
      )
    start = transformer.INITS[self.weight_init]
    x = nn.Conv(
      self.width,
      patch,
      patch,
      "VALID",
      dtype=self.dtype_mm,
      kernel_init=start.embedding,
      name="embedding",
    )(x)
    b, h, w, _ = x.shape
    x = x.reshape(b, h * w, self.width)

    if self.posemb == "learn":
      init = {
        "timm": transformer.NORMAL,
        "augreg": transformer.NORMAL,
        "mae": lambda *_: sincos2d_mae(h, w, self.width, self.posemb_cls),
      }.get(self.weight_init, nn.initializers.normal(self.width**-0.5))
      shape = (1, h * w + self.posemb_cls, self.width)
      posemb = self.param("pos_embedding", init, shape)
    else:
      posemb = sincos2d(h, w, self.width, self.posemb == "sincos2d")
    patches = posemb[:, 1:] if self.posemb_cls else posemb
    x = out["with_posemb"] = (x + patches).astype(self.dtype_mm)
    if keep is not None:
      x = jnp.take_along_axis(x, keep[..., None], axis=1)

    if self._has_cls():
      cls = self.param("cls", start.cls, (1, 1, self.width))
      if self.posemb_cls:
        cls = cls + posemb[:, :1]
      cls = jnp.broadcast_to(cls.astype(x.dtype), (b, 1, self.width))
      x = jnp.concatenate([cls, x], axis=1)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)

    norm_last = self.pool_type == "fc_norm"
    encoder = transformer.Encoder(
      layers,
      self.depth,
      self.drop_path,
      not norm_last,
      remat=self.remat,
      scan=self.scan,
      name="Transformer",
    )
    x, out["encoder"] = encoder(x, train=train)
    out["encoded"] = x

    if self.pool_type == "gap":
      x = jnp.mean(x, axis=1)
    elif self.pool_type == "tok":
      x = x[:, 0]
    elif self.pool_type == "fc_norm":
      x = layers.norm_layer(x.dtype, "fc_norm")(jnp.mean(x[:, 1:], axis=1))
    else:
      x = transformer.MAPHead(layers)(x).astype(
        common.accumulator(self.dtype_mm)
      )
    out["head_input"] = x

    if self.rep_size:
      rep_size = self.width if self.rep_size is True else self.rep_size
      x = nn.tanh(nn.Dense(rep_size, name="pre_logits")(x))
    out["pre_logits"] = x

    init = nn.initializers.zeros if self.head_zeroinit else start.head
    bias = nn.initializers.constant(self.head_bias)
    return common.head(x, self.num_classes, out, init, bias)


def Model(num_classes, *, variant=None, **kw):
  """Builds a Vision Transformer.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations. There are N = H/ph * W/pw patches, and N + 1 tokens for
  pool_type "tok" and "fc_norm", the class token first. With `keep`, int [B, K],
  only the K patches of those indices enter the blocks, in this order; the
  tokens below are then K or K + 1. The activations are:
    with_posemb: [B, N, width] patch embeddings with positions.
    encoder: per block ("block00", ...) the branches "sa" and "mlp" and the
      residual stream after each, "+sa" and "+mlp"; and "pre_ln", the residual
      stream after the last block.
    encoded: [B, N or N + 1, width] float32 tokens after the final layer norm,
      which "fc_norm" does not have here.
    head_input: [B, width], the pooled vector.
    pre_logits: the same after the tanh layer of `rep_size`, if there is one.
    logits: [B, num_classes].

  Args:
    num_classes: size of the logits; 0 for no head: "pre_logits" is returned.
    variant: a name of `VARIANTS`, with or without a patch size: "S", "S/16";
      "DeiT-S/16" adds the arguments of `DEIT`, which make it timm's
      deit_small_patch16_224 (Ti: tiny, B: base), "MAE-B/16" those of `MAE`, and
      "AugReg-B/16" those of `AUGREG`. In "R26+S/32" the ResNet "R26", one of
      `hybrid.STEMS`, comes first, and its output is cut into patches.
    **kw: these override the variant:
      width, depth, mlp_dim (default 4 * width), num_heads;
      patch_size: int or (height, width), default 16;
      stem: a name of `hybrid.STEMS`, or "" for none;
      posemb: "learn", "sincos2d" or "sincos2d_mae", see `sincos2d`;
      posemb_cls: whether learnt positions include the class token's, first;
      pool_type: "gap" (mean of the tokens), "tok" (class token), "map"
        (attention pooling), or "fc_norm" (how MAE is finetuned: there is a
        class token, but the head reads the mean of the patch tokens, and the
        final layer norm comes after this mean instead of before);
      rep_size: True or an int adds a tanh layer of that width before the head;
      norm: "layernorm"; "rmsnorm"; or "rmsnorm_plain", without a learnt scale;
      act: "gelu", the tanh approximation; "gelu_exact"; or "sqrt2_gelu" and
        "sqrt2_gelu_exact", the same times sqrt(2);
      weight_init: the initial values. "big_vision"; "timm", where matrices and
        positions are normal with standard deviation 0.02, the class token with
        1e-6, biases are zero, and the patch embedding's kernel has PyTorch's
        default; "mae", where learnt positions start as "sincos2d_mae", matrices
        are Xavier uniform, the head is normal with 2e-5 and the class token
        with 0.02; or "augreg", which is "big_vision" but for positions, which
        are normal with 0.02;
      dropout: rate on embeddings, branches and MLP hidden layers: timm's
        pos_drop_rate and proj_drop_rate, not its drop_rate;
      drop_path: stochastic depth rate of the last block, see
        `common.drop_path_rates`; examples and branches are drawn separately;
      head_zeroinit: whether the head's kernel starts at zero;
      head_bias: initial value of the head's bias. big_vision and AugReg set
        about -10, so that a sigmoid loss over many classes starts small;
      remat, scan: save memory and compile time without changing the numbers,
        see `transformer.Encoder`;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `ViT`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  kw = {**decode_variant(variant), **kw}
  if "patch_size" in kw:
    kw["patch_size"] = check_size(kw["patch_size"], "config.model.patch_size")
  return common.build(ViT, num_classes, kw)


def decode_variant(variant):
  """Turns a variant such as "S/16" into keyword arguments, None into {}."""
  if variant is None:
    return {}
  name, slash, patch = str(variant).partition("/")
  family, dash, size = name.partition("-")
  if not dash or family not in FAMILIES:
    family, size = None, name
  stem, plus, size = size.rpartition("+")
  names.check("ViT variant", size, VARIANTS)
  sizes = ("width", "depth", "mlp_dim", "num_heads")
  kw = dict(zip(sizes, VARIANTS[size], strict=True))
  kw |= FAMILIES.get(family, {})
  shrunk = 1
  if plus:
    names.check(f"stem of ViT variant {variant!r}", stem, hybrid.STEMS)
    kw["stem"], shrunk = stem, hybrid.STEMS[stem][1]
  if slash:
    if not patch.isdecimal() or int(patch) == 0 or int(patch) % shrunk:
      what = f"multiple of {shrunk}" if plus else "positive integer"
      raise UserError(
        f"ViT variant {variant!r}: the patch size after '/' must be a {what}, "
        f"as in '{name}/{16 * max(1, shrunk // 16)}'."
      )
    kw["patch_size"] = int(patch) // shrunk
  return kw
