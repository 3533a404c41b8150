"""Loads weights: from .npz files, PyTorch, other runs, other resolutions.

    params = weights.adapt(
      weights.load_npz("gs://big_vision/vit_s16_i1k_90ep.npz"),
      init_params, dont_load=["head/.*"])

    loaded = weights.from_timm("resnet50_a1_0-14fe96d1.pth")
    params = weights.adapt(loaded["params"], init_params)

Trees are nested dicts. `config.model_init` accepts all of these files directly.
"""

from big_crop.weights.fit import adapt
from big_crop.weights.npz import load_npz, save_npz
from big_crop.weights.start import initialise
from big_crop.weights.torch_names import (
  from_timm,
  from_torch,
  from_torchvision,
  to_torch,
)

__all__ = [
  "adapt",
  "from_timm",
  "from_torch",
  "from_torchvision",
  "initialise",
  "load_npz",
  "save_npz",
  "to_torch",
]
