"""Weights in .npz files: our own, and big_vision's and AugReg's."""

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
# layer norm needs no entry because its number was 0 then as well.
_PRE_LINEN = {
  "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
  "LayerNorm_2": "LayerNorm_1",
  "MlpBlock_3": "MlpBlock_0",
}

# Those of the hybrids' stem.
_GROUP_NORM = re.compile(r"(.*/)?gn(_root|_proj|\d)/(scale|bias)")

# Some models of ViT-G's development have these beside the encoder.
_MAP_HEAD = ("probe", "MlpBlock_0", "MultiHeadDotProductAttention_0")
_MAP_HEAD += ("LayerNorm_0",)


def split_part(path: str) -> tuple[str, str]:
  """Splits "FILE:img" into the file and the part of its tree; "" is all."""
  file, colon, part = str(path).rpartition(":")
  # The colon of gs:// is none of these, nor is that of a Windows drive.
  return (file, part) if colon and part[:1].isalnum() else (str(path), "")


def load_npz(path, collection="params"):
  """Reads the parameters in an .npz file, with the names that we use.

  Understands what `save_npz` writes and the Vision Transformers that
  big_vision and vision_transformer (AugReg) published: bare names, names under
  "params/" or "opt/target/", encoder blocks stacked along a leading depth axis
  (scan), layers numbered as before Linen, group norms of four axes, position
  embeddings inside the encoder, and the layers of a MAP head beside the
  encoder. The folders that
  big_vision writes today are read as well.

  Args:
    path: local path or URL that etils.epath can open (gs://...); after a colon
      the part of the tree that is wanted, such as `img` of a two-tower model.
    collection: "params", or "batch_stats" for running statistics.

  Returns:
    Nested dict of NumPy arrays. Optimiser state and the like are left out.

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
  """The archive, whose arrays are read when they are asked for."""
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
  """Writes what `load_npz` reads, to a local path or URL that epath can open.

  Both are nested dicts of arrays; `batch_stats` are a model's running
  statistics.
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
