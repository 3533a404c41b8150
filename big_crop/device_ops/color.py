"""Augmentation ops on pixel values, as `pp_ops.pixels` and `pp_ops.color`.

An op that maps grey levels one by one is a table. An op that `ImageEnhance` has
is a blend of the image with a degenerate one. Both give what the op of that
name gives in tf.data; where a sum of floats is truncated to a grey level, they
may differ by one level.
"""

import jax
import jax.numpy as jnp
import numpy as np

from big_crop.device_ops.registry import register
from big_crop.device_ops.uint8_op import (
  Part,
  Stage,
  register_uint8,
  run_one_of,
)
from pp_ops.augmentations import (
  EIGENVALUES,
  EIGENVECTORS,
  GREY,
  check_bool,
  jitter_ranges,
  saturated_colours,
)
from pp_ops.checks import check_number
from pp_ops.errors import UserError

_LEVELS = np.arange(256, dtype=np.int32)


def _look_up(image, table):
  """Replaces grey levels by those of a uint8 [C, 256] table."""
  channels = image.shape[-1]
  place = image.astype(jnp.int32) + 256 * np.arange(channels, dtype=np.int32)
  return table.reshape(-1).at[place].get(mode="promise_in_bounds")


def _of_all_channels(levels, image):
  """Grey levels that broadcast to [C, 256] as such a table."""
  return jnp.broadcast_to(levels, (image.shape[-1], 256)).astype(jnp.uint8)


_TABLE = Stage(_look_up, lambda image: _of_all_channels(_LEVELS, image))


def _table(levels_of) -> Part:
  """An op from image -> int32 that broadcasts to [C, 256], 0 to 255."""
  return Part(_TABLE, lambda image: _of_all_channels(levels_of(image), image))


@register_uint8("autocontrast")
def get_autocontrast():
  """Stretches channels to 0..255; see `pp_ops.pixels.get_autocontrast`."""

  def levels(image):
    low, high = (
      reduce(image, (0, 1)).astype(jnp.int32)[:, None]
      for reduce in (jnp.min, jnp.max)
    )
    out = jnp.clip(_LEVELS - low, 0) * 255 // jnp.maximum(high - low, 1)
    # Levels that the image does not have may lie beyond 255.
    return jnp.where(high > low, jnp.minimum(out, 255), _LEVELS)

  return _table(levels)


def _count_by_groups(image):
  """A histogram by comparisons with 64 groups of four grey levels.

  Each group has a uint32, in which each level has a byte; so 255 pixels at a
  time can be counted. Nothing larger than the image is stored on accelerators,
  where XLA fuses the comparisons with the sum.
  """
  channels = image.shape[-1]
  pixels = image.reshape(-1, channels).astype(jnp.int32)
  pixels = jnp.pad(
    pixels, [(0, -len(pixels) % 255), (0, 0)], constant_values=256
  )
  pixels = pixels.reshape(-1, 255, channels, 1)
  one = jnp.uint32(1) << (8 * (pixels & 3)).astype(jnp.uint32)
  groups = jnp.where(pixels >> 2 == np.arange(64), one, jnp.uint32(0))
  groups = groups.sum(1, dtype=jnp.uint32)
  byte = lambda i: (groups >> np.uint32(8 * i) & 255).astype(jnp.int32).sum(0)
  return jnp.stack([byte(i) for i in range(4)], -1).reshape(channels, 256)


def _count_by_scattering(image):
  """A histogram as a loop over the pixels."""
  channels = image.shape[-1]
  place = image.astype(jnp.int32) + 256 * np.arange(channels)
  counts = jnp.zeros(256 * channels, jnp.int32)
  counts = counts.at[place.reshape(-1)].add(1, mode="promise_in_bounds")
  return counts.reshape(channels, 256)


def histogram(image: jax.Array) -> jax.Array:
  """int32 [C, 256]: how often each grey level occurs in a uint8 [H, W, C]."""
  # XLA's CPU compiler does not fuse the comparisons, which then take 20 times
  # as long as scattering; accelerators scatter to so few places slowly.
  return jax.lax.platform_dependent(
    image, cpu=_count_by_scattering, default=_count_by_groups
  )


@register_uint8("equalize")
def get_equalize():
  """Flattens histograms; see `pp_ops.pixels.get_equalize`."""

  def levels(image):
    counts = histogram(image)
    upto = jnp.cumsum(counts, 1)
    # All pixels but those of the highest level that occurs.
    step = jnp.where(upto < upto[:, -1:], upto, 0).max(1, keepdims=True) // 255
    out = (upto - counts + step // 2) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(out, 255), _LEVELS)

  return _table(levels)


@register_uint8("invert")
def get_invert():
  """255 - x; see `pp_ops.pixels.get_invert`."""
  return _table(lambda image: 255 - _LEVELS)


@register_uint8("posterize")
def get_posterize(bits: int):
  """Keeps the highest bits; see `pp_ops.pixels.get_posterize`."""
  check_number("bits", bits, 0, 8, whole=True)
  return _table(lambda image: _LEVELS & (256 - (1 << (8 - bits))))


@register_uint8("solarize")
def get_solarize(threshold: int = 128):
  """Inverts from a threshold up; see `pp_ops.pixels.get_solarize`."""
  check_number("threshold", threshold, 0, 256, whole=True)
  return _table(
    lambda image: jnp.where(_LEVELS < threshold, _LEVELS, 255 - _LEVELS)
  )


@register_uint8("solarize_add")
def get_solarize_add(addition: int, threshold: int = 128):
  """Adds below a threshold; see `pp_ops.pixels.get_solarize_add`."""
  check_number("addition", addition, -255, 255, whole=True)
  check_number("threshold", threshold, 0, 256, whole=True)

  def levels(image):
    added = jnp.clip(_LEVELS + addition, 0, 255)
    return jnp.where(_LEVELS < threshold, added, _LEVELS)

  return _table(levels)


def _blend(image, parameters):
  """degenerate + factor (image - degenerate), clipped, truncated, as Pillow."""
  degenerate, factor = parameters
  out = degenerate + factor * (image.astype(jnp.float32) - degenerate)
  return jnp.clip(out, 0.0, 255.0).astype(jnp.uint8)


_BLEND = Stage(_blend, lambda image: (image.astype(jnp.float32), 0.0))


def _enhance(factor, degenerate_of) -> Part:
  """An op from image -> float32 that broadcasts to it, of whole grey levels."""
  check_number("factor", factor, 0)
  factor = jnp.float32(factor)
  return Part(_BLEND, lambda image: (degenerate_of(image), factor))


def _grey(image):
  """Pillow's grey levels, int32 [H, W, 1]; those of a grey image its own."""
  levels = image.astype(jnp.int32)
  if image.shape[-1] == 1:
    return levels
  weighted = (levels * np.int32(GREY)).sum(-1, keepdims=True)
  return (weighted + 32768) >> 16


def _grey_legacy(image):
  """`tf.image.rgb_to_grayscale`: of values in [0, 1], truncated."""
  if image.shape[-1] == 1:
    return image
  r, g, b = jnp.split(image.astype(jnp.float32) * np.float32(1 / 255), 3, -1)
  grey = 0.2989 * r + 0.587 * g + 0.114 * b
  return jnp.floor(grey * 255.5)


@register_uint8("color")
def get_color(factor: float, legacy: bool = False):
  """From grey to more colour; see `pp_ops.pixels.get_color`."""
  check_bool("legacy", legacy)
  grey = _grey_legacy if legacy else _grey
  return _enhance(factor, lambda image: grey(image).astype(jnp.float32))


@register_uint8("contrast")
def get_contrast(factor: float, legacy: bool = False):
  """From the mean grey to more contrast; see `pp_ops.pixels.get_contrast`."""
  check_bool("legacy", legacy)

  def mean(image):
    count = image.shape[0] * image.shape[1]
    if legacy:
      return jnp.float32(min(count // 256, 255))
    total = _grey(image).astype(jnp.uint32).sum(dtype=jnp.uint32)
    # Halves go up, in whole numbers: float32 could not hold the sum.
    rounded = (2 * total + np.uint32(count)) // np.uint32(2 * count)
    return rounded.astype(jnp.float32)

  return _enhance(factor, mean)


@register_uint8("brightness")
def get_brightness(factor: float):
  """factor x; see `pp_ops.pixels.get_brightness`."""
  return _enhance(factor, lambda image: jnp.float32(0))


def _weighted_3x3(image, centre):
  """Sums over 3x3 neighbours, of which the middle one counts `centre` times."""
  pixels = jnp.pad(image.astype(jnp.float32), [(1, 1), (1, 1), (0, 0)], "edge")
  rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
  box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
  return box + (centre - 1) * pixels[1:-1, 1:-1]


@register_uint8("sharpness")
def get_sharpness(factor: float, legacy: bool = False):
  """From smoothed to sharper; see `pp_ops.pixels.get_sharpness`."""
  check_bool("legacy", legacy)
  rounding = 0.0 if legacy else 0.5

  def smooth(image):
    out = jnp.floor(_weighted_3x3(image, 5.0) / 13.0 + rounding)
    inside = [
      (at > 0) & (at < n - 1)
      for n, at in ((n, np.arange(n)) for n in image.shape[:2])
    ]
    inside = inside[0][:, None, None] & inside[1][:, None]
    return jnp.where(inside, out, image.astype(jnp.float32))

  return _enhance(factor, smooth)


def _pillows_hues():
  """Pillow's hues of the colours whose exact hue is 0, 1, ... 254.

  Pillow rounds to float32 several times and then truncates, so some of these
  hues come out one lower. The result depends on the exact hue alone: this
  repeats the arithmetic of `pp_ops.color` for colours whose highest and lowest
  channel differ by 85, of which one exists for each whole hue.
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
  """Pillow's saturation where the exact one is 0, 1, ... 255 of 255."""
  ratio = np.arange(256, dtype=np.float32) / np.float32(255)
  return (ratio.astype(float) * 255).astype(np.int32)


def _truncated(numerator, denominator, of_whole):
  """Integer quotients, or `of_whole[q]` where the quotient is exactly q.

  Computed in integers, because the last bit of a float quotient differs between
  machines, and where the exact quotient is whole it decides the result.
  """
  denominator = jnp.maximum(denominator, 1)
  quotient = numerator // denominator
  whole = quotient * denominator == numerator
  return jnp.where(whole, jnp.asarray(of_whole)[quotient], quotient)


def _hue_and_saturation(image):
  """Pillow's, of uint8 [..., 3]: int32 [...], 0 to 255."""
  r, g, b = jnp.moveaxis(image.astype(jnp.int32), -1, 0)
  high = jnp.maximum(jnp.maximum(r, g), b)
  span = high - jnp.minimum(jnp.minimum(r, g), b)
  # In sixths of the circle, times the span.
  hue = jnp.where(
    r == high, g - b, jnp.where(g == high, 2 * span + b - r, 4 * span + r - g)
  )
  hue = jnp.where(hue < 0, hue + 6 * span, hue)
  hue = _truncated(85 * hue, 2 * span, _pillows_hues())
  return hue, _truncated(255 * span, high, _pillows_saturations())


def _turn_hue(image, steps):
  """Turns the hue by int32 steps of Pillow's; not where `steps` is 256."""
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
  """Turns the hue; see `pp_ops.color.get_hue`."""
  check_number("factor", factor, -0.5, 0.5)
  factor = jnp.float32(factor)
  # floor(255 size), exactly, although the product would be rounded.
  size = jnp.abs(factor)
  whole = jnp.floor(256 * size)
  whole -= 256 * size - whole < size
  steps = (jnp.sign(factor) * whole).astype(jnp.int32)
  return Part(_HUE, lambda image: steps)


@register_uint8("color_jitter")
def get_color_jitter(brightness=0, contrast=0, saturation=0, hue=0):
  """Four changes in random order; see `pp_ops.color.get_color_jitter`."""
  used = jitter_ranges(brightness, contrast, saturation, hue)
  get_ops = {
    "brightness": get_brightness,
    "contrast": get_contrast,
    "color": get_color,
    "hue": get_hue,
  }

  def color_jitter(image, rng):
    if not used:
      return image
    low, high = np.float32(list(used.values())).T
    u = rng.uniform([2, len(used)])
    factors, order = low + u[0] * (high - low), jnp.argsort(u[1])
    parts = [
      get_ops[name](factor) for name, factor in zip(used, factors, strict=True)
    ]
    for i in range(len(parts)):
      image = run_one_of(parts, order[i], image)
    return image

  return color_jitter


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
