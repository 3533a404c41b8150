"""Which axes of a parameter run over the inputs of a unit.

A unit is one output of a layer: a column of a dense kernel [d_in, d_out], a
filter of a convolution [height, width, channels, d_out], a column of an
attention's output kernel [heads, head_dim, d]. The last axis of these kernels
runs over the outputs.

In the kernels [d, heads, head_dim] of an attention's query, key and value, all
axes but the first run over the outputs. Only the name tells these kernels from
an attention's output kernel, because both have three axes. `FLAX_SPLITS` has
the names that Flax's attention gives to query, key and value. A model with
other names declares them; see `big_crop.models`.
"""

import re
from collections.abc import Sequence

# Regexes of the kernels of which all axes but the first are outputs.
FLAX_SPLITS = (r"(.*/)?(query|key|value)/kernel",)


def splits_output(
  name: str, split_outputs: Sequence[str] | None = None
) -> bool:
  """Returns whether all axes of a kernel but the first are outputs.

  That is so if its name matches one of the regexes `split_outputs`, by default
  `FLAX_SPLITS`.
  """
  patterns = FLAX_SPLITS if split_outputs is None else split_outputs
  return any(re.fullmatch(pattern, name) for pattern in patterns)


def is_vector(name: str, ndim: int) -> bool:
  """Returns whether a parameter is a scale, or a bias of any shape."""
  return ndim < 2 or name.endswith("bias")


def input_axes(
  name: str, ndim: int, split_outputs: Sequence[str] | None = None
) -> tuple[int, ...]:
  """Returns the axes over which the norm of one unit is taken.

  For a kernel these are the axes of its inputs. Any other parameter, such as a
  bias or a position embedding, counts as one unit: all of its axes.
  """
  if ndim < 2 or not name.endswith("kernel"):
    return tuple(range(ndim))
  if splits_output(name, split_outputs):
    return (0,)
  return tuple(range(ndim - 1))
