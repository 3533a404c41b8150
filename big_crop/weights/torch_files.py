"""Reads PyTorch's weights from files."""

import pathlib

import numpy as np
from etils import epath

from pp_ops.errors import UserError

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def load(path):
  """Reads a state dict.

  Args:
    path: local path or URL that etils.epath can open: an .npz of arrays named
      as in PyTorch; a .safetensors, which needs safetensors; or a .pth, .pt or
      .bin, which needs torch (nothing but tensors is unpickled), also one that
      has it under "model" or "state_dict".

  Returns:
    Dict of NumPy arrays.

  Raises:
    ValueError: the file is missing, or not what its name says.
  """
  path = epath.Path(path)
  suffix = pathlib.PurePath(path).suffix
  readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
  readers |= dict.fromkeys(SUFFIXES[:3], _read_torch)
  if suffix not in readers:
    raise UserError(f"{path}: weights are in {', '.join(readers)} files.")
  if not path.exists():
    raise UserError(f"No file {path}.")
  try:
    return readers[suffix](path)
  except ImportError as e:
    raise UserError(
      f"{path} needs {e.name}, which is not installed; or save it as .npz."
    ) from e
  except Exception as e:  # whatever torch.load raises
    reason = str(e).partition("\n")[0]
    raise UserError(f"{path} can't be read as {suffix}: {reason}") from e


def _read_npz(path):
  with path.open("rb") as f, np.load(f, allow_pickle=False) as archive:
    return dict(archive)


def _read_safetensors(path):
  import safetensors.numpy

  return safetensors.numpy.load(path.read_bytes())


def _read_torch(path):
  import torch

  with path.open("rb") as f:
    tensors = torch.load(f, map_location="cpu", weights_only=True)
  for key in ("model", "state_dict"):
    if isinstance(tensors.get(key), dict):
      tensors = tensors[key]
  tensors = {k: v for k, v in tensors.items() if torch.is_tensor(v)}
  to_numpy = lambda v: (v.float() if v.dtype == torch.bfloat16 else v).numpy()
  return {k: to_numpy(v) for k, v in tensors.items()}
