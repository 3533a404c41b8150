"""What models share: checked arguments, stochastic depth, `LastLayer`."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_crop import names
from pp_ops.checks import check_number
from pp_ops.errors import UserError

# What `dtype_mm` of every model may be: the dtype of matrix products,
# convolutions and activations. Parameters, the statistics of norms, softmax and
# logits are float32 with either of the first two. float64 is for checking
# gradients; it needs jax.enable_x64.
DTYPES = ("float32", "bfloat16", "float64")
RATES = ("dropout", "drop_path", "se_ratio")

# The distribution of the weights of torch.nn.Linear and torch.nn.Conv2d.
torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias(fan_in):
  """Initialiser of their biases, for a kernel of `fan_in` inputs per output."""

  def init(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class LastLayer(NamedTuple):
  """Where the saliency maps of a model are taken; its `last_layer()`.

  The last layer's output is [B, h, w, D], or [B, N, D] for tokens, row by row.

  Attributes:
    module: path, as in the names of parameters, of the Flax module that returns
      it, alone or first in a tuple.
    pooled: key of the activations, of the same axes, whose mean over places
      enters the dense layer "head".
    patch_size: (height, width) of a token in pixels; not needed without tokens.
    missing: {kind of map: why this model has none}.
  """

  module: str
  pooled: str
  patch_size: tuple[int, int] | None = None
  missing: Mapping[str, str] = {}


def build_variant(module, num_classes, variants, variant, kw):
  """`build` with the arguments of a variant, which those in `kw` override."""
  names.check(f"{module.__name__} variant", str(variant), variants)
  return build(module, num_classes, {**variants[str(variant)], **kw})


def build(module, num_classes, kw):
  """`module(num_classes, **kw)`, after the checks that all models share.

  Raises:
    ValueError: in one line, for an unknown keyword, a value of a wrong kind, a
      whole number below 1, an empty tuple, a rate that is not in [0, 1), or a
      `dtype_mm` that is not in `DTYPES`.
  """
  kinds = {f.name: f.type for f in dataclasses.fields(module)}
  known = kinds.keys() - {"num_classes", "parent", "name"}
  for name in kw:
    names.check(f"argument of {module.__name__}", name, known)
  names.check_arguments("config.model", module, kw)
  for name, value in kw.items():
    if kinds[name] is not float:  # whole numbers count something
      for number in value if isinstance(value, tuple) else [value]:
        if names.is_of_kind(number, int | float):
          check_number(f"config.model.{name}", number, 1, whole=True)
    if isinstance(value, list | tuple) and not value:
      raise UserError(f"config.model.{name} is empty: need a number per stage.")
    if name in RATES and not 0.0 <= value < 1.0:
      raise UserError(f"{name} must be in [0, 1), not {value}.")
  if "dtype_mm" in kw:
    names.check("dtype_mm", kw["dtype_mm"], DTYPES)
  return module(num_classes, **kw)


def accumulator(dtype):
  """The dtype for sums and statistics over values of `dtype`."""
  return jnp.promote_types(dtype, jnp.float32)


def drop_path_rates(rate, depth):
  """Stochastic depth rates, linear from 0 at the first block to `rate`.

  The linear decay rule of Huang et al., "Deep Networks with Stochastic Depth"
  (https://arxiv.org/abs/1603.09382), section 3, as timm and DeiT count it:
  the first block is never dropped.

  Args:
    rate: probability in [0, 1) that the last block's branches are dropped.
    depth: number of blocks.

  Returns:
    List of `depth` floats.
  """
  return [rate * i / max(depth - 1, 1) for i in range(depth)]
