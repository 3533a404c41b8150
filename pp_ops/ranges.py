"""Value ranges as (scale, offset) of x * scale + offset, for all engines."""

import numpy as np

from pp_ops.errors import UserError

IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
# The mean and standard deviation that CLIP trains with.
CLIP_MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
CLIP_STD = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)


def linear(vmin: float, vmax: float, in_min, in_max) -> tuple:
  """The map from [in_min, in_max] to [vmin, vmax], as x * scale + offset.

  in_min and in_max are each a number or one per channel. Returns float32
  (scale, offset).
  """
  if vmin == vmax:
    raise UserError(f"vmin and vmax are both {vmin:g}: need a range")
  low, high = np.asarray(in_min, float), np.asarray(in_max, float)
  if not all(x.size and np.isfinite(x).all() for x in (low, high)):
    raise UserError(f"in_min={in_min!r}, in_max={in_max!r}: need numbers")
  if low.ndim and high.ndim and low.shape != high.shape:
    raise UserError(
      f"in_min={in_min!r} and in_max={in_max!r}: need as many of each"
    )
  if (low == high).any():
    both = np.broadcast_to(low, np.shape(low == high))[low == high][0]
    raise UserError(f"in_min and in_max are both {both:g}: need a range")
  scale = (vmax - vmin) / (high - low)
  return np.float32(scale), np.float32(vmin - low * scale)


def standard(mean, std) -> tuple:
  """(x - mean) / std as (scale, offset), float32, per channel."""
  if len(mean) != len(std):
    raise UserError(f"{len(mean)} means but {len(std)} standard deviations")
  if not all(s > 0 for s in std):
    raise UserError(f"std={std!r}: need numbers above 0")
  scale = [1 / s for s in std]
  offset = [-m * s for m, s in zip(mean, scale, strict=True)]
  return np.float32(scale), np.float32(offset)
