"""Colour ops on the accelerator, as `pp_ops.color`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from big_crop.device_ops.canvas import Canvas
from big_crop.device_ops.registry import register
from big_crop.device_ops.uint8_op import Part, Stage, register_uint8
from pp_ops.augmentations import (
  EIGENVALUES,
  EIGENVECTORS,
  PERMUTATIONS,
  check_channels,
  saturated_colours,
)
from pp_ops.checks import check_number
from pp_ops.errors import UserError


def _pillows_hues():
  """Pillow's hues of the colours whose exact hue is 0, 1, ... 254.

  Pillow rounds to float32 several times and then truncates, so some of these
  hues come out one lower. The result depends on the exact hue alone. We
  therefore repeat the arithmetic of `pp_ops.color` for colours whose highest
  and lowest channel differ by 85, because each whole hue has one such colour.
  """
  sixth, rest = np.divmod(np.arange(0, 510, 2), 85)
  rising = sixth % 2 == 0
  part = np.where(rising, 85 - rest, rest).astype(np.float32) / np.float32(85)
  base = np.where(sixth == 5, -1, sixth)
  hue = np.where(rising, base + 1 - part.astype(float), base + part)
  turn = hue.astype(np.float32).astype(float) / 6 + 1
  turn = (turn - np.floor(turn)).astype(np.float32).astype(float)
  return (turn * 255).astype(np.int32)


def _pillows_saturations():
  """Pillow's saturation of colours whose exact one is 0/255, 1/255, ... 1."""
  ratio = np.arange(256, dtype=np.float32) / np.float32(255)
  return (ratio.astype(float) * 255).astype(np.int32)


def _truncated(numerator, denominator, of_whole):
  """numerator / denominator, truncated as Pillow truncates its float quotient.

  Where the exact quotient is a whole number q, Pillow may give q or q - 1,
  depending on the last bit of its floats: the table `of_whole[q]` says which.
  Floats are not used here, because their last bit differs between machines.
  """
  denominator = jnp.maximum(denominator, 1)
  quotient = numerator // denominator
  whole = quotient * denominator == numerator
  return jnp.where(whole, jnp.asarray(of_whole)[quotient], quotient)


def _hue_and_saturation(image):
  """Pillow's H and S of uint8 [..., 3]: two int32 [...] in 0..255."""
  r, g, b = jnp.moveaxis(image.astype(jnp.int32), -1, 0)
  high = jnp.maximum(jnp.maximum(r, g), b)
  span = high - jnp.minimum(jnp.minimum(r, g), b)
  # The hue in sixths of the circle, times the span, so that it is an integer.
  hue = jnp.where(
    r == high, g - b, jnp.where(g == high, 2 * span + b - r, 4 * span + r - g)
  )
  hue = jnp.where(hue < 0, hue + 6 * span, hue)
  hue = _truncated(85 * hue, 2 * span, _pillows_hues())
  return hue, _truncated(255 * span, high, _pillows_saturations())


def _turn_hue(image, steps):
  """Shifts Pillow's integer hue by `steps`, int32; 256 changes nothing."""
  if image.shape[-1] == 1:
    return image
  old, saturation = _hue_and_saturation(image)
  distance = jnp.asarray(saturated_colours())[(old + steps) & 255]
  value = image.max(-1, keepdims=True).astype(jnp.float32)
  out = value * (1.0 - distance * (saturation[..., None] / jnp.float32(255)))
  out = jnp.floor(out + 0.5).astype(jnp.uint8)
  return jnp.where(steps == 256, image, out)


_HUE = Stage(_turn_hue, lambda image: jnp.int32(256))


@register_uint8("hue")
def get_hue(factor: float):
  """Shifts the hue; see `pp_ops.color.get_hue`."""
  check_number("factor", factor, -0.5, 0.5)
  factor = jnp.float32(factor)
  # floor(255 size), computed from 256 size and size: float32 would round
  # 255 size, while 256 size is exact.
  size = jnp.abs(factor)
  whole = jnp.floor(256 * size)
  whole -= 256 * size - whole < size
  steps = (jnp.sign(factor) * whole).astype(jnp.int32)
  return Part(_HUE, lambda image: steps)


def permute_channels(image: jax.Array, which: jax.Array) -> jax.Array:
  """The channels of [..., 3] in the order `PERMUTATIONS[which]`."""
  order = jnp.asarray(PERMUTATIONS)[which]
  channels = [image[..., i] for i in range(3)]
  # Not a gather, which accelerators do slowly for single channels.
  return jnp.stack([jax.lax.select_n(i, *channels) for i in order], -1)


@register("channel_permute", canvas=True)
def get_channel_permute():
  """Permutes the channels; see `pp_ops.color.get_channel_permute`."""

  def channel_permute(image, rng):
    array = image.pixels if isinstance(image, Canvas) else image
    check_channels("channel_permute", array, array.ndim)
    which = rng.integers(0, len(PERMUTATIONS))
    if array.shape[-1] == 3:
      array = permute_channels(array, which)
    if isinstance(image, Canvas):
      return dataclasses.replace(image, pixels=array)
    return array

  return channel_permute


@register("lighting")
def get_lighting(alphastd: float = 0.1):
  """Adds one colour to all pixels; see `pp_ops.color.get_lighting`."""
  check_number("alphastd", alphastd, 0)

  def lighting(image, rng):
    floating = jnp.issubdtype(image.dtype, jnp.floating)
    if not (floating and image.shape[-1] == 3):
      raise UserError(
        f"op 'lighting' got {image.dtype.name} {image.shape}: need float "
        "[height, width, 3] in [0, 1], after value_range(0, 1)"
      )
    alpha = alphastd * rng.normal([3]) * np.float32(EIGENVALUES)
    colour = (np.float32(EIGENVECTORS) * alpha).sum(-1)
    return image + colour.astype(image.dtype)

  return lighting
