"""Reads PyTorch state dicts from files."""

import argparse
import pathlib
import pickle

import numpy as np
from etils import epath

from pp_ops.errors import UserError

SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".safetensors")
# Keys under which a training checkpoint has its weights. The first that exists
# is used; averaged weights come first, as in timm.
_WEIGHTS = ("state_dict_ema", "model_ema", "state_dict", "model")


def load(path):
  """Reads a state dict.

  Args:
    path: local path or URL that etils.epath can open: an .npz of arrays named
      as in PyTorch; a .safetensors, which needs safetensors; or a .pth, .pt,
      .bin or .tar, which needs torch. The latter may be a training checkpoint,
      such as timm's last.pth.tar: its weights are then read. No code in a file
      is run, because only tensors and plain values are unpickled.

  Returns:
    Dict of NumPy arrays.
  """
  path = epath.Path(path)
  suffix = pathlib.PurePath(path).suffix
  readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
  readers |= dict.fromkeys(SUFFIXES[:4], _read_torch)
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
    if isinstance(e, pickle.UnpicklingError) and "GLOBAL" in str(e):
      reason = (
        "it holds other Python objects than tensors, and reading them would run"
        " code; save its state dict alone, with torch.save"
      )
    raise UserError(f"{path} can't be read as {suffix}: {reason}") from e


def _read_npz(path):
  with path.open("rb") as f, np.load(f, allow_pickle=False) as archive:
    return dict(archive)


def _read_safetensors(path):
  import safetensors.numpy

  return safetensors.numpy.load(path.read_bytes())


def _read_torch(path):
  import torch

  # timm's checkpoints contain a Namespace, the arguments of timm's train.py.
  plain = torch.serialization.safe_globals([argparse.Namespace])
  with path.open("rb") as f, plain:
    tensors = torch.load(f, map_location="cpu", weights_only=True)
  for key in _WEIGHTS:
    if isinstance(tensors.get(key), dict):
      tensors = tensors[key]
      break
  tensors = {k: v for k, v in tensors.items() if torch.is_tensor(v)}
  to_numpy = lambda v: (v.float() if v.dtype == torch.bfloat16 else v).numpy()
  # DistributedDataParallel adds the prefix "module.".
  return {k.removeprefix("module."): to_numpy(v) for k, v in tensors.items()}
