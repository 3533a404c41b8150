"""Converts weights between PyTorch's names and ours.

A model for which PyTorch weights exist has a method `torch_layers()` that
returns a list of (torch, ours, kind):

  torch: a layer's name in the state dict; each * stands for a number.
  ours: the layer's path in our parameters, with the same number of *; or a list
    of paths if one PyTorch layer computes the outputs of several of our layers.
  kind: "conv", a convolution without bias; "dense", also a convolution with
    bias; "pointwise", a dense layer that is a 1x1 convolution in PyTorch;
    "batch_norm"; "layer_norm"; "parameter", a single array; or, with the number
    of heads as fourth entry, "to_heads" and "from_heads", dense layers whose
    outputs or inputs are [heads, head_dim].

`big_crop.models.resnet` and `vit` are examples. Where timm and torchvision name
the layers of an architecture differently, the model lists timm's names, and
`_TORCHVISION` translates torchvision's into them.
"""

import re

import numpy as np
from flax import traverse_util

from big_crop import models
from big_crop.weights import torch_files
from pp_ops.errors import UserError

_DENSE = {".weight": "params/{}/kernel", ".bias": "params/{}/bias"}
_NORM = {".weight": "params/{}/scale", ".bias": "params/{}/bias"}
_STATISTICS = {
  ".running_mean": "batch_stats/{}/mean",
  ".running_var": "batch_stats/{}/var",
}
# kind of layer: {suffix of its name in PyTorch: our name}
_LEAVES = {
  "conv": {".weight": "params/{}/kernel"},
  "dense": _DENSE,
  "pointwise": _DENSE,
  "to_heads": _DENSE,
  "from_heads": _DENSE,
  "batch_norm": _NORM | _STATISTICS,
  "layer_norm": _NORM,
  "parameter": {"": "params/{}"},
}
# {suffix by which an architecture is recognised: {torchvision's name: timm's}}.
# The first number after "features" counts the stages and, between them, the
# downsampling layers, so it is about twice timm's number of the stage.
_TORCHVISION = {
  ".layer_scale": {  # ConvNeXt
    "features.0": "stem",
    "features.*.*.layer_scale": "stages.*.blocks.*.gamma",
    "features.*.*.block.0": "stages.*.blocks.*.conv_dw",
    "features.*.*.block.2": "stages.*.blocks.*.norm",
    "features.*.*.block.3": "stages.*.blocks.*.mlp.fc1",
    "features.*.*.block.5": "stages.*.blocks.*.mlp.fc2",
    "features.*": "stages.*.downsample",
    "classifier.0": "head.norm",
    "classifier.2": "head.fc",
  },
  ".relative_position_bias_table": {  # Swin
    "features.0.0": "patch_embed.proj",
    "features.0.2": "patch_embed.norm",
    "features.*.*.mlp.0": "layers.*.blocks.*.mlp.fc1",
    "features.*.*.mlp.3": "layers.*.blocks.*.mlp.fc2",
    "features.*.*": "layers.*.blocks.*",
    "features.*": "layers.*.downsample",
    "head": "head.fc",
  },
}
_STEM = "patch_embed.backbone"  # of a hybrid ViT
# PyTorch's kernels are [out, in] and [out, in, h, w]. The transpositions that
# turn them into ours and back, by number of axes:
_TO_OURS = {2: (1, 0), 4: (2, 3, 1, 0)}
_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}


def from_torch(model, state_dict, what=None):
  """Turns a PyTorch state dict into a model's variables.

  Args:
    model: has `torch_layers()`; see above.
    state_dict: {name: NumPy array}.
    what: the model's name in error messages; by default, for example,
      "this ResNet".

  Returns:
    {"params": ...} and, where there are running statistics, "batch_stats":
    nested dicts of arrays, for `fit.adapt`.

  Raises:
    ValueError: for a name that the model does not list, or a shape that can't
      be divided among the model's heads.
  """
  what = what or f"this {type(model).__name__}"
  rows = [(_pattern(torch), *rest) for torch, *rest in _leaves(model)]
  flat = {}
  for key, value in _as_timm(state_dict).items():
    if key.endswith((".num_batches_tracked", ".relative_position_index")):
      continue
    row = next((row for row in rows if row[0].fullmatch(key)), None)
    if row is None:
      raise UserError(f"{key!r} is not a parameter of {what}.")
    torch, ours, kind, heads = row
    try:
      arrays = _to_ours(value, kind, len(ours), heads)
    except ValueError as e:
      raise UserError(
        f"{key!r} of shape {value.shape} can't be divided among {len(ours)} x "
        f"{heads} heads of {what}."
      ) from e
    for name, array in zip(ours, arrays, strict=True):
      flat[_fill(name, torch.fullmatch(key).groups())] = array
  return traverse_util.unflatten_dict(flat, sep="/")


def to_torch(model, variables):
  """The inverse of `from_torch`.

  Args:
    model: has `torch_layers()`; see above.
    variables: {"params": ..., "batch_stats": ...} of arrays.

  Returns:
    {name in PyTorch: NumPy array}.

  Raises:
    ValueError: a parameter that the model does not list.
  """
  flat = traverse_util.flatten_dict(variables, sep="/")
  state_dict, done = {}, set()
  for torch, ours, kind, _ in _leaves(model):
    for found in map(_pattern(ours[0]).fullmatch, flat):
      if found:
        names = [_fill(name, found.groups()) for name in ours]
        arrays = [np.asarray(flat[name]) for name in names]
        array = _to_torch(arrays, kind)
        # Contiguous, because safetensors writes an array's memory without
        # regard to its strides, and a transposed array would come out wrong.
        state_dict[_fill(torch, found.groups())] = np.ascontiguousarray(array)
        done.update(names)
  if rest := sorted(set(flat) - done):
    raise UserError(f"{rest[0]!r} has no name in PyTorch.")
  return state_dict


def from_torchvision(state_dict):
  """Turns the weights of a torchvision model into ours.

  Recognises torchvision's ResNets, ConvNeXts and Swin Transformers.

  Args:
    state_dict: the model's `state_dict()` as NumPy arrays,
      `{k: v.numpy() for k, v in model.state_dict().items()}`; or a file, see
      `torch_files.load`.

  Returns:
    {"params": ...} and, for a ResNet, "batch_stats": nested dicts of arrays.

  Raises:
    ValueError: a name that such a model does not have, or a file that can't be
      read.
  """
  return _from_library("torchvision", state_dict)


def from_timm(state_dict, *, head_dim=64):
  """Turns the weights of a timm model into ours.

  Recognises timm's ResNets (also with deep stem, average pooling in the
  shortcuts, squeeze-and-excitation or ECA, and groups), for
  `big_crop.models.resnet`; ViTs and DeiTs, for `big_crop.models.vit`
  ("DeiT-S/16"); and RepVGGs (re-parametrised or not), ConvNeXts, EfficientNets,
  RegNets and Swin Transformers, for the modules of these names.

  Args:
    state_dict: as in `from_torchvision`.
    head_dim: width of a ViT's attention heads. A width other than 64 must be
      given, because it can't be inferred from the weights.

  Returns:
    {"params": ...} and, for a model with batch norm, "batch_stats": nested
    dicts of arrays.

  Raises:
    ValueError: a name or shape that such a model does not have, or a file that
      can't be read.
  """
  return _from_library("timm", state_dict, head_dim)


def _from_library(library, state_dict, head_dim=64):
  weights = _as_timm(_arrays(state_dict))
  model = _model_of(weights, head_dim)
  return from_torch(model, weights, f"a {library} {type(model).__name__}")


def _model_of(weights, head_dim):
  """A model with the same parameter names as timm's weights, of any size."""
  if weights.keys() & {"stem.conv_kxk.conv.weight", "stem.reparam_conv.weight"}:
    return models.get_model("repvgg", 1)
  if "conv_stem.weight" in weights:
    return models.get_model("efficientnet", 1)
  if "stem.conv.weight" in weights:
    return models.get_model("regnet", 1)
  if "stem.0.weight" in weights:
    return models.get_model("convnext", 1)
  if "patch_embed.proj.weight" not in weights:
    return models.get_model(
      "resnet",
      1,
      deep_stem="conv1.0.weight" in weights,
      avg_down=any(".downsample.2." in key for key in weights),
    )
  if any(key.startswith("layers.") for key in weights):
    return models.get_model("swin", 1)
  width = len(weights["patch_embed.proj.weight"])
  num_heads, rest = divmod(width, head_dim)
  if rest:
    num_heads = 1
    for key in weights:
      if ".attn.qkv." in key:
        raise UserError(
          f"{key!r} has {width} outputs each for query, key and value, which "
          f"heads of {head_dim} do not divide: set head_dim."
        )
  stem = ""
  if f"{_STEM}.conv.weight" in weights:
    stem = "R"
  elif f"{_STEM}.stem.conv.weight" in weights:
    stem = (
      "R50" if f"{_STEM}.stages.2.blocks.5.conv1.weight" in weights else "R26"
    )
  return models.get_model("vit", 1, width=width, num_heads=num_heads, stem=stem)


def _as_timm(state_dict):
  """Gives torchvision's weights the names and shapes of timm's."""
  for end, table in _TORCHVISION.items():
    if any(k.startswith("features.") and k.endswith(end) for k in state_dict):
      renamed = (_rename(key, table) for key in state_dict)
      return {
        key: value.reshape(-1) if key.endswith(".gamma") else value
        for key, value in zip(renamed, state_dict.values(), strict=True)
      }
  return state_dict


def _rename(key, table):
  for old, new in table.items():
    if found := re.match(_pattern(old).pattern + r"\b", key):
      numbers = found.groups()
      if numbers:
        numbers = [str(int(numbers[0]) // 2), *numbers[1:]]
      return _fill(new, numbers) + key[found.end() :]
  return key


def _arrays(state_dict):
  if not hasattr(state_dict, "items"):
    return torch_files.load(state_dict)
  return {k: np.asarray(v) for k, v in state_dict.items()}


def _leaves(model):
  """(torch, [ours, ...], kind, heads) for each parameter of each layer."""
  if not hasattr(model, "torch_layers"):
    raise UserError(
      f"{type(model).__name__} has no names for PyTorch's weights: they are "
      "what a model's torch_layers() returns."
    )
  for torch, ours, kind, *heads in model.torch_layers():
    paths = [ours] if isinstance(ours, str) else ours
    for torch_leaf, leaf in _LEAVES[kind].items():
      names = [leaf.format(path) for path in paths]
      yield torch + torch_leaf, names, kind, heads[0] if heads else None


def _pattern(name):
  return re.compile(re.escape(name).replace(r"\*", r"(\d+)"))


def _fill(name, numbers):
  numbers = iter(numbers)
  return re.sub(r"\*", lambda _: next(numbers), name)


def _to_ours(value, kind, parts, heads):
  """Converts PyTorch's array to a list of `parts` arrays of ours."""
  if kind == "parameter":
    return [value]
  if kind == "pointwise" and value.ndim == 4:
    value = value[:, :, 0, 0]
  value = value.transpose(_TO_OURS.get(value.ndim))
  if kind == "from_heads" and value.ndim == 2:
    value = value.reshape(heads, -1, value.shape[-1])
  values = np.split(value, parts, -1)
  if kind == "to_heads":
    values = [x.reshape(*x.shape[:-1], heads, -1) for x in values]
  return values


def _to_torch(values, kind):
  if kind == "parameter":
    return values[0]
  if kind == "to_heads":
    values = [x.reshape(*x.shape[:-2], -1) for x in values]
  value = np.concatenate(values, -1)
  if kind == "from_heads" and value.ndim == 3:
    value = value.reshape(-1, value.shape[-1])
  value = value.transpose(_TO_TORCH.get(value.ndim))
  return (
    value[:, :, None, None]
    if kind == "pointwise" and value.ndim == 2
    else value
  )
