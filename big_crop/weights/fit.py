"""Fits loaded parameters to a model, also if its resolution is another.

In error messages and patterns, a parameter's name is its path, for example
"Transformer/encoder_norm/scale".
"""

import math
import re

import numpy as np
import scipy.ndimage
from flax import traverse_util

from pp_ops.errors import UserError


def adapt(loaded, init_params, dont_load=()):
  """Fits loaded parameters to a model.

  Position embeddings of another (square) grid are resampled bilinearly with
  the corners aligned (`scipy.ndimage.zoom`, as in big_vision). If the first
  embedding is the class token's, it is kept; if the model has no position for
  its class token, it is added to the class token.

  Args:
    loaded: nested dict of arrays.
    init_params: nested dict of the model's initial parameters.
    dont_load: one or several regular expressions that must match a whole name.
      A parameter that matches keeps its value from `init_params`, or is left
      out if only the checkpoint has it.

  Returns:
    Nested dict with the names, shapes and dtypes of `init_params`.

  Raises:
    ValueError: a parameter is missing, superfluous or of another shape.
  """
  if isinstance(dont_load, str):
    dont_load = (dont_load,)
  try:
    patterns = [re.compile(p) for p in dont_load]
  except re.error as e:
    raise UserError(
      f"dont_load: {e.pattern!r} is not a regular expression: {e}."
    ) from e
  wanted = lambda name: not any(p.fullmatch(name) for p in patterns)

  init = traverse_util.flatten_dict(init_params, sep="/")
  old = traverse_util.flatten_dict(loaded, sep="/")
  old = _fit_positions({k: v for k, v in old.items() if wanted(k)}, init)

  new, missing, reshaped = dict(init), [], []
  for name in filter(wanted, sorted(init)):
    if name not in old:
      missing.append(name)
    elif old[name].shape != init[name].shape:
      reshaped.append(name)
    else:
      new[name] = old[name].astype(init[name].dtype)

  if reshaped:
    name = reshaped[0]
    raise _error(
      reshaped,
      f"has shape {old[name].shape} in the checkpoint but {init[name].shape} "
      "in the model",
      "keep the model's initial value",
    )
  if missing:
    raise _error(
      missing,
      f"{init[missing[0]].shape} of the model is not in the checkpoint",
      "keep its initial value",
    )
  if extra := sorted(set(old) - set(init)):
    raise _error(
      extra,
      f"{old[extra[0]].shape} of the checkpoint is not in the model",
      "leave it out",
    )
  return traverse_util.unflatten_dict(new, sep="/")


def _fit_positions(old, init):
  """Resamples the position embeddings of `old` to the shape in `init`.

  Both are flat dicts {name: array}.
  """
  name = "pos_embedding"
  if name not in old or name not in init or old[name].ndim != 3:
    return old
  positions, shape = old[name], init[name].shape
  _, n, width = positions.shape
  if n == shape[1] or width != shape[2]:
    return old
  old = dict(old)
  # Zeros stand for a checkpoint that adds no position to its class token.
  first = np.zeros_like(positions[:, :1])
  if _is_square(n - 1):
    first, positions = positions[:, :1], positions[:, 1:]
  keep = _is_square(shape[1] - 1)
  if "cls" in old and not keep:
    old["cls"] = old["cls"] + first
  before, after = positions.shape[1], shape[1] - keep
  if _is_square(before) and _is_square(after):
    before, after = math.isqrt(before), math.isqrt(after)
    grid = np.asarray(positions, np.float32).reshape(before, before, width)
    zoom = (after / before, after / before, 1)
    grid = scipy.ndimage.zoom(grid, zoom, order=1).reshape(1, -1, width)
    old[name] = np.concatenate([first, grid], 1) if keep else grid
  return old


def _is_square(n):
  return n > 0 and math.isqrt(n) ** 2 == n


def _error(names, problem, purpose):
  """The error for `names`, with a `dont_load` pattern that would avoid it."""
  parent, slash, _ = names[0].rpartition("/")
  pattern = f"{parent}/.*" if slash else names[0]
  more = f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""
  return UserError(
    f"Parameter {names[0]!r} {problem}{more}; to {purpose}, add {pattern!r} to "
    "dont_load."
  )
