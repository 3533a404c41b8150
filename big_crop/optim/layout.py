"""How Flax lays out parameters: which axes run over the inputs of a unit.

A unit is what has one output: a column of a dense kernel [d_in, d_out], a
filter of a convolution [height, width, channels, d_out], a (head, head_dim)
pair of attention's query, key and value [d, heads, head_dim], a column of its
output [heads, head_dim, d].
"""

import re

# The kernels of attention that map one axis to two, rather than two to one.
_SPLITS_OUTPUT = re.compile(r"(.*/)?(query|key|value)/kernel")


def splits_output(name: str) -> bool:
  """Returns whether a kernel is [d, heads, head_dim]."""
  return _SPLITS_OUTPUT.fullmatch(name) is not None


def is_vector(name: str, ndim: int) -> bool:
  """Returns whether a parameter is a bias, whatever its axes, or a scale."""
  return ndim < 2 or name.endswith("bias")


def input_axes(name: str, ndim: int) -> tuple[int, ...]:
  """Returns the axes over which the norm of one unit is taken.

  Args:
    name: the parameter's.
    ndim: its number of axes.

  Returns:
    The axes of the inputs for a kernel. All axes for what is not a kernel, such
    as a bias or a position embedding, which counts as one unit.
  """
  if ndim < 2 or not name.endswith("kernel"):
    return tuple(range(ndim))
  return (0,) if splits_output(name) else tuple(range(ndim - 1))
