"""Which axes of a parameter run over the inputs of a unit.

A unit is one output of a layer: a column of a dense kernel [d_in, d_out], a
filter of a convolution [height, width, channels, d_out], a column of an
attention's output [heads, head_dim, d]. Their last axis is the outputs.

An attention's query, key and value have kernels [d, heads, head_dim] instead,
whose outputs are all axes but the first. Neither the shape nor the number of
axes tells the two apart; the name does. `FLAX_SPLITS` has the names that Flax's
attention gives them. A model with other names says so; see `big_crop.models`.
"""

import re
from collections.abc import Sequence

# Regexes of the kernels of which all axes but the first are outputs.
FLAX_SPLITS = (r"(.*/)?(query|key|value)/kernel",)


def splits_output(
  name: str, split_outputs: Sequence[str] | None = None
) -> bool:
  """Returns whether all axes of a kernel but the first are outputs.

  True of the names that match one of `split_outputs`, by default `FLAX_SPLITS`.
  """
  patterns = FLAX_SPLITS if split_outputs is None else split_outputs
  return any(re.fullmatch(pattern, name) for pattern in patterns)


def is_vector(name: str, ndim: int) -> bool:
  """Returns whether a parameter is a bias, whatever its axes, or a scale."""
  return ndim < 2 or name.endswith("bias")


def input_axes(
  name: str, ndim: int, split_outputs: Sequence[str] | None = None
) -> tuple[int, ...]:
  """Returns the axes over which the norm of one unit is taken.

  These are the axes of the inputs for a kernel. What is not a kernel, such as a
  bias or a position embedding, counts as one unit, and has all its axes here.
  """
  if ndim < 2 or not name.endswith("kernel"):
    return tuple(range(ndim))
  if splits_output(name, split_outputs):
    return (0,)
  return tuple(range(ndim - 1))
