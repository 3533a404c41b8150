"""Helpers for all models: checked arguments, stochastic depth, `LastLayer`."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_crop import names
from pp_ops.checks import check_number
from pp_ops.errors import UserError

# Choices for every model's `dtype_mm`, the dtype of matrix products,
# convolutions and activations. With "float32" and "bfloat16" the parameters,
# the statistics of norms, softmax and logits are float32. "float64" is for
# checking gradients; it needs jax.enable_x64.
DTYPES = ("float32", "bfloat16", "float64")
RATES = ("dropout", "drop_path", "se_ratio")

# PyTorch's default initial weights of torch.nn.Linear and torch.nn.Conv2d.
torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias(fan_in):
  """PyTorch's default initial bias of a layer with `fan_in` inputs per output.

  It belongs to torch.nn.Linear and torch.nn.Conv2d, like `torch_linear`.
  """

  def init(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class LastLayer(NamedTuple):
  """Where a model's saliency maps are taken: what its `last_layer()` returns.

  The last layer's output is [B, h, w, D], or [B, N, D] for tokens, row by row.

  Attributes:
    module: path of the Flax module that returns the last layer's output, alone
      or as the first item of a tuple. It is written as in parameter names.
    pooled: key into the model's dict of activations. That activation has the
      same axes as the last layer's output, and its mean over positions is the
      input of the dense layer "head".
    patch_size: (height, width) of a token in pixels; not needed without tokens.
    missing: {kind of map: why this model can't have it}.
  """

  module: str
  pooled: str
  patch_size: tuple[int, int] | None = None
  missing: Mapping[str, str] = {}


def build_variant(module, num_classes, variants, variant, kw):
  """Calls `build` with a variant's arguments; those in `kw` override them."""
  names.check(f"{module.__name__} variant", str(variant), variants)
  return build(module, num_classes, {**variants[str(variant)], **kw})


def build(module, num_classes, kw):
  """`module(num_classes, **kw)`, after the checks that all models share.

  Raises:
    ValueError: in one line, for an unknown keyword, a value of a wrong kind, a
      whole number below 1, an empty tuple, tuples for different numbers of
      stages, a rate that is not in [0, 1), or a `dtype_mm` that is not in
      `DTYPES`.
  """
  kinds = {f.name: f.type for f in dataclasses.fields(module)}
  known = kinds.keys() - {"num_classes", "parent", "name"}
  for name in kw:
    names.check(f"argument of {module.__name__}", name, known)
  names.check_arguments("config.model", module, kw)
  for name, value in kw.items():
    if kinds[name] is not float:  # whole numbers count something
      for number in value if isinstance(value, list | tuple) else [value]:
        if names.is_of_kind(number, int | float):
          check_number(f"config.model.{name}", number, 1, whole=True)
    if isinstance(value, list | tuple) and not value:
      raise UserError(f"config.model.{name} is empty: need a number per stage.")
    if name in RATES and not 0.0 <= value < 1.0:
      raise UserError(f"{name} must be in [0, 1), not {value}.")
  values = {f.name: f.default for f in dataclasses.fields(module)} | kw
  stages = {
    name: len(value)
    for name in ("depths", "widths", "num_heads")
    if isinstance(value := values.get(name), list | tuple)
  }
  if len(set(stages.values())) > 1:
    text = ", ".join(f"{n} {name}" for name, n in stages.items())
    raise UserError(f"config.model has {text}: need a number per stage of each")
  if "dtype_mm" in kw:
    names.check("dtype_mm", kw["dtype_mm"], DTYPES)
  return module(num_classes, **kw)


def head(x, num_classes, out, kernel_init, bias_init=nn.initializers.zeros):
  """The dense layer "head", or none for 0 classes.

  To be called from a model's `__call__`.

  Args:
    x: [B, c].
    num_classes: size of the logits; 0 for no dense layer.
    out: dict of activations; gets "logits" if there is a dense layer.
    kernel_init: initialiser of its kernel.
    bias_init: initialiser of its bias.

  Returns:
    Logits [B, num_classes], or x if there is no dense layer; and `out`.
  """
  if not num_classes:
    return x, out
  dense = nn.Dense(
    num_classes, kernel_init=kernel_init, bias_init=bias_init, name="head"
  )
  out["logits"] = dense(x)
  return out["logits"], out


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
