"""Ops that change the range of pixel values, written once for all engines."""

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


def _affine(engine, scale, offset):
  """image * scale + offset in float32."""
  return lambda image: engine.cast(image, "float32") * scale + offset


def get_value_range(
  engine,
  vmin: float = -1,
  vmax: float = 1,
  in_min=0,
  in_max=255,
  clip_values: bool = False,
):
  """Maps [in_min, in_max] linearly onto [vmin, vmax], as float32.

  Args:
    engine: see `pp_ops.engines`.
    vmin: lowest output.
    vmax: highest output.
    in_min: input that becomes vmin: a number, or a list of one per channel.
    in_max: input that becomes vmax: a number, or a list of one per channel.
    clip_values: clip the output to [vmin, vmax].

  Returns:
    image -> float32 image.
  """
  affine = _affine(engine, *linear(vmin, vmax, in_min, in_max))
  if not clip_values:
    return affine
  low, high = sorted((vmin, vmax))
  xp = engine.xp
  return lambda image: xp.maximum(xp.minimum(affine(image), high), low)


def get_vgg_value_range(engine, mean=IMAGENET_MEAN, std=IMAGENET_STD):
  """(image - mean) / std per channel, as float32.

  Mean and standard deviation are ImageNet's by default, in grey levels 0..255.
  """
  return _affine(engine, *standard(mean, std))


def get_clip_value_range(engine):
  """`vgg_value_range` with the mean and deviation that CLIP trains with."""
  return get_vgg_value_range(engine, CLIP_MEAN, CLIP_STD)


OPS = {
  "value_range": get_value_range,
  "vgg_value_range": get_vgg_value_range,
  "clip_value_range": get_clip_value_range,
}
