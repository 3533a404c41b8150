"""Weights in .npz files: our own, and big_vision's and AugReg's."""

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from pp_ops.errors import UserError

# Before Flax's Linen API, one counter numbered all layers of a block. The first
# layer norm needs no entry because its number was 0 then as well.
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
    raise UserError(f"No file {path}.") from e
  except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as e:
    raise UserError(f"{path} can't be read as an .npz file: {e}") from e

  prefixes = [f"{collection}/"]
  if collection == "params":
    prefixes += ["opt/target/", ""]
  for prefix in prefixes:
    names = [k for k in keys if k.startswith(prefix)]
    if names:
      break
  else:
    raise UserError(f"{path} holds no {collection}/... arrays.")
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
