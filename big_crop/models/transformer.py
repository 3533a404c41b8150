"""Transformer layers: attention, MLP, encoder blocks and attention pooling.

The parameters are named as in big_vision's checkpoints.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from big_crop.models import common, cpu

NORMS = {
  "layernorm": nn.LayerNorm,
  "rmsnorm": nn.RMSNorm,
  "rmsnorm_plain": functools.partial(nn.RMSNorm, use_scale=False),
}

# "gelu" is the tanh approximation. The variants times sqrt(2) keep the variance
# of a normal input near one; Scion's recipe uses them (Pethick et al.,
# https://arxiv.org/abs/2502.07529).
ACTIVATIONS = {
  "gelu": nn.gelu,
  "gelu_exact": functools.partial(nn.gelu, approximate=False),
  "sqrt2_gelu": lambda x: 2**0.5 * nn.gelu(x),
  "sqrt2_gelu_exact": lambda x: 2**0.5 * nn.gelu(x, approximate=False),
}

_xavier = nn.initializers.xavier_uniform()
_lecun = nn.initializers.lecun_normal()
# timm's truncated normal is cut off at an absolute value of 2. With a standard
# deviation of 0.02 that never happens, so a plain normal is the same.
NORMAL = nn.initializers.normal(0.02)


def _flat(init):
  """Initialises a convolution's kernel as the matrix [all inputs, outputs]."""

  def flat(key, shape, dtype):
    return init(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)

  return flat


class Init(NamedTuple):
  """Initialisers of the parameters. Biases outside of the MLP start at zero.

  Attributes:
    matrix: kernels of the MLP and of attention's output projection, and the
      probe of `MAPHead`.
    mlp_bias: biases of the MLP, as a function of a layer's number of inputs.
    qkv: kernels of queries, keys and values.
    embedding: the kernel of the patch embedding.
    cls: the class token.
    head: the head's kernel.
  """

  matrix: nn.initializers.Initializer
  mlp_bias: Callable[[int], nn.initializers.Initializer]
  qkv: nn.initializers.Initializer
  embedding: nn.initializers.Initializer
  cls: nn.initializers.Initializer
  head: nn.initializers.Initializer


_zeros = nn.initializers.zeros
_BIG_VISION = Init(
  _xavier,
  lambda fan_in: nn.initializers.normal(1e-6),
  _xavier,
  _lecun,
  _zeros,
  _lecun,
)
INITS = {
  "big_vision": _BIG_VISION,
  "augreg": _BIG_VISION,  # the positions differ, see `vit`
  "timm": Init(
    NORMAL,
    lambda fan_in: _zeros,
    NORMAL,
    common.torch_linear,  # timm leaves PyTorch's default here
    nn.initializers.normal(1e-6),
    NORMAL,
  ),
  # MAE initialises queries, keys and values as one matrix [d, 3 d], whose
  # Xavier variance is half that of a matrix [d, d].
  "mae": Init(
    _xavier,
    lambda fan_in: _zeros,
    nn.initializers.variance_scaling(0.5, "fan_avg", "uniform"),
    _flat(_xavier),
    NORMAL,
    nn.initializers.normal(2e-5),
  ),
  "torch": Init(
    *(common.torch_linear, common.torch_bias, common.torch_linear),
    *(common.torch_linear, NORMAL, common.torch_linear),
  ),
}


@dataclasses.dataclass(frozen=True)
class Layers:
  """Settings that all blocks of a model share; see `vit.Model`."""

  mlp_dim: int
  num_heads: int
  dtype: str
  norm: str
  act: str
  weight_init: str
  dropout: float

  def norm_layer(self, dtype: str | None = None, name: str | None = None):
    """A normalisation layer, in the layers' dtype by default."""
    return NORMS[self.norm](dtype=dtype or self.dtype, name=name)


def _has_fused_attention(dtype, head_dim):
  """Whether cuDNN's fused attention supports this dtype and head size here."""
  half = jnp.dtype(dtype) == jnp.bfloat16
  gpu = jax.default_backend() == "gpu"
  return gpu and half and head_dim % 8 == 0 and head_dim <= 128


class Attention(nn.Module):
  """Multi-head attention, parameters as `nn.MultiHeadDotProductAttention`'s.

  The projections put the N heads before the T tokens, [B, N, T, D/N], because
  this made a CPU training step 2 to 6% faster than Flax's [B, T, N, D/N]. The
  softmax is float32. On NVIDIA GPUs in bfloat16 we use cuDNN's fused attention,
  which wants the tokens first and never writes the [T, T] weights to memory: a
  training step of ViT-S/16 took 0.73 of the time (H200, 224 pixels, batch size
  512).
  """

  layers: Layers

  @nn.compact
  def __call__(self, x_q, x_kv):
    d = x_q.shape[-1]
    heads = (self.layers.num_heads, d // self.layers.num_heads)
    fused = _has_fused_attention(self.layers.dtype, heads[1])
    axes = "btnh" if fused else "bnth"
    # The kernel [d, heads, d / heads] is initialised as a matrix [d, d], as in
    # Flax and in the papers' code.
    start = INITS[self.layers.weight_init]
    as_matrix = lambda init: (
      lambda key, shape, dtype: init(key, (d, d), dtype).reshape(shape)
    )
    project = functools.partial(
      nn.Einsum,
      (d, *heads),
      f"btd,dnh->{axes}",
      dtype=self.layers.dtype,
      kernel_init=as_matrix(start.qkv),
    )
    q = project(name="query")(x_q)
    k = project(name="key")(x_kv)
    v = project(name="value")(x_kv)
    if fused:
      x = jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    else:
      x = attend(q * heads[1] ** -0.5, k, v)
    return nn.Einsum(
      (*heads, d),
      f"{axes},nhd->btd",
      dtype=self.layers.dtype,
      kernel_init=as_matrix(start.matrix),
      name="out",
    )(x)


def attend(q, k, v, bias=0.0):
  """softmax(q k^T + bias) v for q, k, v [..., T, D/N] and bias [..., T, T]."""
  # Without BF16_BF16_F32 the gradient would multiply float32 by bfloat16.
  bf16 = q.dtype == jnp.bfloat16
  logits = jnp.einsum(
    "...th,...sh->...ts",
    q,
    k,
    precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32 if bf16 else None,
    preferred_element_type=common.accumulator(q.dtype),
  )
  weights = jax.nn.softmax(logits + bias).astype(v.dtype)
  return jnp.einsum("...ts,...sh->...th", weights, v)


class MlpBlock(nn.Module):
  """Two dense layers with an activation of `ACTIVATIONS` between them."""

  layers: Layers

  @nn.compact
  def __call__(self, x, *, train=False, rng=None):
    width, layers = x.shape[-1], self.layers
    start = INITS[layers.weight_init]
    dense = functools.partial(
      nn.Dense,
      dtype=layers.dtype,
      kernel_init=start.matrix,
      dot_general=cpu.dot_general,
    )
    x = dense(layers.mlp_dim, bias_init=start.mlp_bias(width))(x)
    x = ACTIVATIONS[layers.act](x)
    x = nn.Dropout(layers.dropout, deterministic=not train)(x, rng=rng)
    return dense(width, bias_init=start.mlp_bias(layers.mlp_dim))(x)


class EncoderBlock(nn.Module):
  """Pre-norm self-attention and MLP, each a branch that can be dropped."""

  layers: Layers

  @nn.compact
  def __call__(self, x, rate, rng):
    """Applies the block.

    Args:
      x: [B, T, width].
      rate: rate of stochastic depth, a float32 scalar, or None for none.
      rng: a key for dropout and stochastic depth, or None if both are off.

    Returns:
      The new residual stream [B, T, width], and a dict of activations.
    """
    train = rng is not None
    rngs = jax.random.split(rng, 5) if train else [None] * 5

    def add(x, y, rngs):
      y = nn.Dropout(self.layers.dropout, deterministic=not train)(
        y, rng=rngs[0]
      )
      if train and rate is not None:
        # One draw for all tokens and channels of an example. nn.Dropout can't
        # be used, because in a scan the rate is traced.
        kept = jax.random.bernoulli(rngs[1], 1 - rate, (len(y), 1, 1))
        y = jnp.where(kept, y / (1 - rate), 0).astype(y.dtype)
      return x + y

    out = {}
    y = self.layers.norm_layer()(x)
    attention = Attention(self.layers, name="MultiHeadDotProductAttention_0")
    y = out["sa"] = attention(y, y)
    x = out["+sa"] = add(x, y, rngs[:2])

    y = self.layers.norm_layer()(x)
    y = out["mlp"] = MlpBlock(self.layers)(y, train=train, rng=rngs[2])
    x = out["+mlp"] = add(x, y, rngs[3:])
    return x, out


class Encoder(nn.Module):
  """The blocks, and a final normalisation in float32 if asked.

  Attributes:
    layers: settings that the blocks share.
    depth: number of blocks.
    drop_path: rate of stochastic depth of the last block.
    final_norm: whether a normalisation follows the last block.
    remat: whether the backward pass recomputes the activations within each
      block, so that only the activations between blocks are kept in memory.
    scan: whether the blocks are compiled once, as a loop over their stacked
      parameters. The parameters keep their names and shapes. The stack is built
      again in each step and takes as much memory as the blocks' parameters.
  """

  layers: Layers
  depth: int
  drop_path: float
  final_norm: bool = True
  remat: bool = False
  scan: bool = False

  @nn.compact
  def __call__(self, x, *, train):
    # Each block gets its own rate and key from here, so that `scan` and `remat`
    # do not change which values are dropped.
    rates = rngs = None
    if train and (self.drop_path or self.layers.dropout):
      rngs = jax.random.split(self.make_rng("dropout"), self.depth)
      if self.drop_path:
        rates = np.float32(common.drop_path_rates(self.drop_path, self.depth))

    names = [f"encoderblock_{i}" for i in range(self.depth)]
    if self.scan and not self.is_initializing():
      own = self.variables["params"]
      stacked = jax.tree.map(lambda *p: jnp.stack(p), *map(own.get, names))

      def block(x, inputs):
        params, *rest = inputs
        block = EncoderBlock(self.layers, parent=None)
        return block.apply({"params": params}, x, *rest)

      if self.remat:
        # prevent_cse keeps XLA from merging the recomputation with the forward
        # pass. In a scan XLA can't merge them anyway.
        block = jax.checkpoint(block, prevent_cse=False)
      x, found = jax.lax.scan(block, x, (stacked, rates, rngs))
      found = [jax.tree.map(lambda y: y[i], found) for i in range(self.depth)]
    else:
      block = nn.remat(EncoderBlock) if self.remat else EncoderBlock
      at = lambda values, i: None if values is None else values[i]
      found = [None] * self.depth
      for i, name in enumerate(names):
        x, found[i] = block(self.layers, name=name)(
          x, at(rates, i), at(rngs, i)
        )
    out = {f"block{i:02d}": y for i, y in enumerate(found)}
    out["pre_ln"] = x
    dtype = common.accumulator(self.layers.dtype)
    if not self.final_norm:
      return x.astype(dtype), out
    return self.layers.norm_layer(dtype, "encoder_norm")(x), out


class MAPHead(nn.Module):
  """Multi-head attention pooling: a learnt probe attends to all tokens."""

  layers: Layers

  @nn.compact
  def __call__(self, x):
    b, _, d = x.shape
    probe = self.param(
      "probe", INITS[self.layers.weight_init].matrix, (1, 1, d)
    )
    attention = Attention(self.layers, name="MultiHeadDotProductAttention_0")
    x = attention(jnp.broadcast_to(probe, (b, 1, d)), x)
    y = self.layers.norm_layer()(x)
    return (x + MlpBlock(self.layers)(y))[:, 0]
