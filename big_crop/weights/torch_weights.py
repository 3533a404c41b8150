"""PyTorch's weights, torchvision's and timm's, under our names.

    loaded = from_timm("resnet50_a1_0-14fe96d1.pth")
    params = model_init.adapt(loaded["params"], init_params)

`config.model_init` takes such files as they are.
"""

import pathlib
import re

import numpy as np
from etils import epath
from flax import traverse_util

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")

# Last part of a name, by the kind of layer: (collection, our last part).
_LEAVES = {
  ("bn", "weight"): ("params", "scale"),
  ("bn", "bias"): ("params", "bias"),
  ("bn", "running_mean"): ("batch_stats", "mean"),
  ("bn", "running_var"): ("batch_stats", "var"),
  ("conv", "weight"): ("params", "kernel"),
  ("dense", "weight"): ("params", "kernel"),
  ("dense", "bias"): ("params", "bias"),
}

# timm's parts of a deep stem, a sequence that it calls conv1.
_DEEP_STEM = {
  "conv1.0": "stem_conv1",
  "conv1.1": "stem_bn1",
  "conv1.3": "stem_conv2",
  "conv1.4": "stem_bn2",
  "conv1.6": "conv1",
}

_VIT = {
  "norm1": "LayerNorm_0",
  "norm2": "LayerNorm_1",
  "attn.proj": "MultiHeadDotProductAttention_0/out",
  "mlp.fc1": "MlpBlock_0/Dense_0",
  "mlp.fc2": "MlpBlock_0/Dense_1",
}


def from_torchvision(state_dict):
  """Turns a torchvision ResNet's weights into `big_crop.models.resnet`'s.

  Args:
    state_dict: the model's `state_dict()` with NumPy arrays for values:
      `{k: v.numpy() for k, v in model.state_dict().items()}`; or a file, see
      `load`.

  Returns:
    {"params": ..., "batch_stats": ...}, nested dicts of arrays.

  Raises:
    ValueError: a name that torchvision's ResNets don't have, or a file that
      can't be read.
  """
  return _resnet(_arrays(state_dict), "a torchvision ResNet")


def from_timm(state_dict, *, head_dim=64):
  """Turns a timm model's weights into ours.

  Its ResNets, with deep stem, average pooling in the shortcuts,
  squeeze-and-excitation and groups, become those of `big_crop.models.resnet`;
  its ViTs and DeiTs those of `big_crop.models.vit` ("DeiT-S/16").

  Args:
    state_dict: as in `from_torchvision`.
    head_dim: width of an attention head, which the weights don't tell.

  Returns:
    {"params": ...} and, for a ResNet, "batch_stats": nested dicts of arrays.

  Raises:
    ValueError: a name or shape that such a model does not have, or a file that
      can't be read.
  """
  weights = _arrays(state_dict)
  if "patch_embed.proj.weight" in weights:
    return {"params": _vit(weights, head_dim)}
  return _resnet(weights, "a timm ResNet")


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
    raise ValueError(f"{path}: weights are in {', '.join(readers)} files.")
  if not path.exists():
    raise ValueError(f"No file {path}.")
  try:
    return readers[suffix](path)
  except ImportError as e:
    raise ValueError(
      f"{path} needs {e.name}, which is not installed; or save it as .npz."
    ) from e
  except Exception as e:  # whatever torch.load raises
    reason = str(e).partition("\n")[0]
    raise ValueError(f"{path} can't be read as {suffix}: {reason}") from e


def _arrays(state_dict):
  if not isinstance(state_dict, dict) and not hasattr(state_dict, "items"):
    return load(state_dict)
  return {k: np.asarray(v) for k, v in state_dict.items()}


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


def _resnet(weights, what):
  flat = {}
  for key, value in weights.items():
    if key.endswith(".num_batches_tracked"):
      continue
    block, module, leaf = re.fullmatch(
      r"(layer\d\.\d+\.)?(.*?)\.?([^.]*)", key
    ).groups("")
    block = re.sub(r"(layer\d)\.(\d+)\.", r"\1_\2/", block)
    if module == "fc":
      module = "head"
    elif module.startswith("downsample."):
      # An average pooling before them counts, though it has no weights.
      module = f"downsample_{'conv' if value.ndim == 4 else 'bn'}"
    else:
      module = _DEEP_STEM.get(module, module).replace("se.fc", "se/fc")
    pattern = r"se/fc[12]|downsample_(?:bn|conv)|(?:bn|conv)[123]"
    if not block:
      pattern = r"head|(?:stem_)?(?:bn|conv)[12]"
    if re.fullmatch(pattern, module):
      kind = re.search("bn|conv", module)
      kind = kind[0] if kind else "dense"
      if (kind, leaf) in _LEAVES:
        collection, leaf = _LEAVES[kind, leaf]
        if kind == "dense" and value.ndim == 4:  # a 1x1 convolution
          value = value[..., 0, 0]
        flat[f"{collection}/{block}{module}/{leaf}"] = _transpose(value)
        continue
    raise ValueError(f"{key!r} is not a parameter of {what}.")
  return traverse_util.unflatten_dict(flat, sep="/")


def _vit(weights, head_dim):
  flat = {}
  for key, value in weights.items():
    module, _, leaf = key.rpartition(".")
    number, _, layer = module.removeprefix("blocks.").partition(".")
    block = f"Transformer/encoderblock_{number}"
    if key in ("cls_token", "pos_embed"):
      name = {"cls_token": "cls", "pos_embed": "pos_embedding"}[key]
      flat[name] = value
    elif leaf not in ("weight", "bias"):
      raise ValueError(f"{key!r} is not a parameter of a timm ViT.")
    elif module in ("patch_embed.proj", "head"):
      name = "embedding" if module != "head" else module
      flat[f"{name}/{_dense(leaf)}"] = _transpose(value)
    elif module == "norm":
      flat[f"Transformer/encoder_norm/{_norm(leaf)}"] = value
    elif layer == "attn.qkv":
      width = len(value) // 3
      if width % head_dim:
        raise ValueError(
          f"{key!r} has {width} outputs each for query, key and value, which "
          f"heads of {head_dim} do not divide: set head_dim."
        )
      heads = (width // head_dim, head_dim)
      parts = ("query", "key", "value")
      for part, x in zip(parts, np.split(value, 3), strict=True):
        name = f"{block}/MultiHeadDotProductAttention_0/{part}/{_dense(leaf)}"
        flat[name] = _transpose(x).reshape(*x.shape[1:], *heads)
    elif layer in _VIT:
      name = f"{block}/{_VIT[layer]}"
      if layer.startswith("norm"):
        flat[f"{name}/{_norm(leaf)}"] = value
        continue
      value = _transpose(value)
      if layer == "attn.proj" and leaf == "weight":
        value = value.reshape(-1, head_dim, value.shape[-1])
      flat[f"{name}/{_dense(leaf)}"] = value
    else:
      raise ValueError(f"{key!r} is not a parameter of a timm ViT.")
  return traverse_util.unflatten_dict(flat, sep="/")


def _dense(leaf):
  return {"weight": "kernel"}.get(leaf, leaf)


def _norm(leaf):
  return {"weight": "scale"}.get(leaf, leaf)


def _transpose(value):
  """From PyTorch's [out, in, h, w] or [out, in]."""
  return np.transpose(value, {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim))
