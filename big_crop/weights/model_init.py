"""Weights from elsewhere: .npz files, PyTorch, another resolution.

    params = adapt(load_npz("gs://big_vision/vit_s16_i1k_90ep.npz"),
                   init_params, dont_load=["head/.*"])

Trees are nested dicts; in messages and patterns a parameter is named by its
path, "Transformer/encoder_norm/scale".
"""

import io
import math
import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from etils import epath
from flax import traverse_util

from big_crop.runtime import checkpoint
from big_crop.weights import torch_weights
from big_crop.weights.torch_weights import from_timm, from_torchvision

__all__ = [
  "adapt",
  "from_timm",
  "from_torchvision",
  "initialise",
  "load_npz",
  "save_npz",
]

# Before Flax's Linen API, a block's layers shared one counter. (The first layer
# norm was 0 then, too.)
_PRE_LINEN = {
  "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
  "LayerNorm_2": "LayerNorm_1",
  "MlpBlock_3": "MlpBlock_0",
}


def load_npz(path, collection="params"):
  """Reads the parameters in an .npz file, with the names that we use.

  Understands what `save_npz` writes and the Vision Transformers that
  big_vision and vision_transformer (AugReg) published: bare names, names under
  "params/" or "opt/target/", encoder blocks stacked along a leading depth axis
  (scan), layers numbered as before Linen, and position embeddings inside the
  encoder.

  Args:
    path: local path or URL that etils.epath can open (gs://...).
    collection: "params", or "batch_stats" for running statistics.

  Returns:
    Nested dict of NumPy arrays. Optimiser state and the like are left out.

  Raises:
    ValueError: the file is missing, not an .npz, or has no such collection.
  """
  try:
    file = io.BytesIO(epath.Path(path).read_bytes())
    archive = np.load(file, allow_pickle=False)
    keys = archive.files
  except FileNotFoundError as e:
    raise ValueError(f"No file {path}.") from e
  except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as e:
    raise ValueError(f"{path} can't be read as an .npz file: {e}") from e

  prefixes = [f"{collection}/"]
  if collection == "params":
    prefixes += ["opt/target/", ""]
  for prefix in prefixes:
    names = [k for k in keys if k.startswith(prefix)]
    if names:
      break
  else:
    raise ValueError(f"{path} holds no {collection}/... arrays.")
  flat = {k[len(prefix) :]: _recover_bfloat16(archive[k]) for k in names}
  return traverse_util.unflatten_dict(_modern_names(flat), sep="/")


def save_npz(path, params, batch_stats=None):
  """Writes what `load_npz` reads.

  Args:
    path: local path or URL that etils.epath can open.
    params: nested dict of arrays.
    batch_stats: the same for running statistics, where the model has them.
  """
  tree = {"params": params}
  if batch_stats:
    tree["batch_stats"] = batch_stats
  flat = traverse_util.flatten_dict(jax.device_get(tree), sep="/")
  buffer = io.BytesIO()
  np.savez(buffer, **flat)
  epath.Path(path).write_bytes(buffer.getvalue())


def initialise(state, path, dont_load=()):
  """Starts a train state from other parameters than its own.

  Args:
    state: a new `big_crop.step.TrainState`, on the devices.
    path: an .npz file; a .pth, .pt, .bin or .safetensors file of torchvision's
      or timm's, see `torch_weights`; or another run's workdir or one of its
      checkpoints, whose averages are taken where it has them.
    dont_load: see `adapt`.

  Returns:
    The state with parameters, model state and averages replaced, sharded as
    before. A collection that `path` lacks stays as it is.

  Raises:
    ValueError: there is nothing to load, or it does not fit the model.
  """
  if str(path).endswith(".npz"):
    loaded = {"params": load_npz(path)}
    if state.model_state:
      loaded |= {k: load_npz(path, k) for k in state.model_state}
  elif str(path).endswith(torch_weights.SUFFIXES):
    loaded = from_timm(path)
  else:
    loaded = checkpoint.load_variables(path)

  def replace(variables):
    new = dict(variables)
    for collection in new.keys() & loaded.keys():
      old = new[collection]
      fitted = adapt(loaded[collection], old, dont_load)
      shardings = jax.tree.map(lambda x: x.sharding, old)
      new[collection] = jax.device_put(fitted, shardings)
    return new

  variables = replace({"params": state.params, **state.model_state})
  return state.replace(
    params=variables.pop("params"),
    model_state=variables,
    ema=state.ema and replace(state.ema),
  )


def adapt(loaded, init_params, dont_load=()):
  """Fits loaded parameters to a model.

  Position embeddings of another (square) grid are resampled bilinearly with
  the corners aligned (`scipy.ndimage.zoom`, as big_vision does); a first
  embedding that belongs to the class token is kept, or added to the latter if
  the class token of the model has no position.

  Args:
    loaded: nested dict of arrays.
    init_params: nested dict of the model's initial parameters.
    dont_load: regular expressions (or one) that are matched with whole names;
      what matches keeps its value from `init_params`, or is left out if only
      the checkpoint has it.

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
    raise ValueError(
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


def _recover_bfloat16(x):
  """NumPy files keep bfloat16 as two bytes of unknown meaning."""
  return x.view(jnp.bfloat16) if x.dtype == np.dtype("V2") else x


def _modern_names(flat):
  """Flat names of any big_vision age to today's, scanned blocks unstacked."""
  new = {}
  pre_linen = "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel" in flat
  for name, value in flat.items():
    parts = name.split("/")
    if pre_linen:
      parts = [_PRE_LINEN.get(part, part) for part in parts]
    if parts[0] == "Transformer" and parts[-1] == "pos_embedding":
      parts = ["pos_embedding"]
    if parts[:2] == ["Transformer", "encoderblock"]:
      for i, layer in enumerate(value):
        new["/".join([parts[0], f"encoderblock_{i}", *parts[2:]])] = layer
    else:
      new["/".join(parts)] = value
  return new


def _fit_positions(old, init):
  """Makes flat `old`'s position embeddings fit those of `init`."""
  name = "pos_embedding"
  if name not in old or name not in init or old[name].ndim != 3:
    return old
  positions, shape = old[name], init[name].shape
  _, n, width = positions.shape
  if n == shape[1] or width != shape[2]:
    return old
  old = dict(old)
  # A class token without a position is one whose position is zero.
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
  """One line for the first of `names`, with a pattern that excuses it."""
  parent, slash, _ = names[0].rpartition("/")
  pattern = f"{parent}/.*" if slash else names[0]
  more = f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""
  return ValueError(
    f"Parameter {names[0]!r} {problem}{more}; to {purpose}, add {pattern!r} to "
    "dont_load."
  )
