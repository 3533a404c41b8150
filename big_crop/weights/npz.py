"""Reads and writes .npz files of weights: ours, big_vision's and AugReg's."""

import io
import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from big_crop.weights import big_vision_folders
from pp_ops.errors import UserError

# Before Flax's Linen API, one counter numbered all layers of a block. The first
# layer norm needs no entry, because its number was 0 then, too.
_PRE_LINEN = {
  "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
  "LayerNorm_2": "LayerNorm_1",
  "MlpBlock_3": "MlpBlock_0",
}

# The group norms of the hybrids' stem.
_GROUP_NORM = re.compile(r"(.*/)?gn(_root|_proj|\d)/(scale|bias)")

# Some checkpoints from the development of ViT-G have the layers of the MAP head
# beside the encoder, not below "MAPHead_0".
_MAP_HEAD = ("probe", "MlpBlock_0", "MultiHeadDotProductAttention_0")
_MAP_HEAD += ("LayerNorm_0",)


def split_part(path: str) -> tuple[str, str]:
  """Splits "FILE:img" into the file and the part of its tree, "" for all."""
  file, colon, part = str(path).rpartition(":")
  # What follows the colon of "gs://" or of "C:\" does not start with a letter
  # or digit, so it is no part.
  return (file, part) if colon and part[:1].isalnum() else (str(path), "")


def load_npz(path, collection="params"):
  """Reads the parameters in an .npz file and gives them our names.

  Reads files of `save_npz` and the Vision Transformers that big_vision and
  vision_transformer (AugReg) published. These may have bare names, names under
  "params/" or "opt/target/", encoder blocks stacked along a leading depth axis
  (scan), layers numbered as before Linen, group norms of four axes, position
  embeddings inside the encoder, and the layers of a MAP head beside the
  encoder. Reads big_vision's checkpoint folders as well.

  Args:
    path: local path or URL that etils.epath can open (gs://...). After a colon
      it may name the part of the tree to read, such as `img` of a two-tower
      model.
    collection: "params", or "batch_stats" for running statistics.

  Returns:
    Nested dict of NumPy arrays, without optimiser state and the like.

  Raises:
    ValueError: the file is missing, not an .npz, or has no such collection.
  """
  file, part = split_part(path)
  if folder := big_vision_folders.find(file):
    archive = big_vision_folders.load(folder, collection)
  else:
    archive = _open(file)
  prefixes = [f"{collection}/"]
  if collection == "params":
    prefixes += ["opt/target/", ""]
  part = part and f"{part}/"
  for prefix in prefixes:
    prefix += part
    names = [k for k in archive if k.startswith(prefix)]
    if names:
      break
  else:
    raise UserError(f"{file} holds no {collection}/{part}... arrays.")
  flat = {k[len(prefix) :]: _recover_bfloat16(archive[k]) for k in names}
  return traverse_util.unflatten_dict(_modern_names(flat), sep="/")


def _open(path):
  """Opens the archive. It decodes an array when the array is accessed."""
  try:
    file = io.BytesIO(epath.Path(path).read_bytes())
    archive = np.load(file, allow_pickle=False)
    _ = archive.files
  except FileNotFoundError as e:
    raise UserError(f"No file {path}.") from e
  except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as e:
    raise UserError(f"{path} can't be read as an .npz file: {e}") from e
  return archive


def save_npz(path, params, batch_stats=None):
  """Writes an .npz file that `load_npz` reads.

  Args:
    path: local path or URL that etils.epath can open.
    params: nested dict of arrays.
    batch_stats: likewise, a model's running statistics, if it has any.
  """
  tree = {"params": params}
  if batch_stats:
    tree["batch_stats"] = batch_stats
  flat = traverse_util.flatten_dict(jax.device_get(tree), sep="/")
  buffer = io.BytesIO()
  np.savez(buffer, **flat)
  epath.Path(path).write_bytes(buffer.getvalue())


def _recover_bfloat16(x):
  """Views arrays of dtype V2 as bfloat16, which NumPy files store as V2."""
  return x.view(jnp.bfloat16) if x.dtype == np.dtype("V2") else x


def _modern_names(flat):
  """Turns the flat names of any big_vision version into today's.

  Encoder blocks that are stacked for a scan are unstacked.
  """
  new = {}
  pre_linen = "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel" in flat
  for name, value in flat.items():
    parts = name.split("/")
    if _GROUP_NORM.fullmatch(name):  # were [1, 1, 1, C] before Flax 0.3.6
      value = value.reshape(-1)
    if pre_linen:
      parts = [_PRE_LINEN.get(part, part) for part in parts]
    if parts[0] == "Transformer" and parts[-1] == "pos_embedding":
      parts = ["pos_embedding"]
    elif "probe" in flat and parts[0] in _MAP_HEAD:
      parts = ["MAPHead_0", *parts]
    if parts[:2] == ["Transformer", "encoderblock"]:
      for i, layer in enumerate(value):
        new["/".join([parts[0], f"encoderblock_{i}", *parts[2:]])] = layer
    else:
      new["/".join(parts)] = value
  return new
