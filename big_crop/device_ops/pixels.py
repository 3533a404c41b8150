"""Augmentation ops on pixel values, as `pp_ops.pixels`.

An op that maps grey levels one by one is a lookup table. An op of Pillow's
`ImageEnhance` is a blend of the image with a degenerate one. Both give what the
op of that name gives in tf.data, except that they may differ by one level where
a sum of floats is truncated to a grey level.
"""

import jax
import jax.numpy as jnp
import numpy as np

from big_crop.device_ops.uint8_op import Part, Stage, register_uint8
from pp_ops.augmentations import GREY, check_bool
from pp_ops.checks import check_number

_LEVELS = np.arange(256, dtype=np.int32)


def _look_up(image, table):
  """Replaces grey levels by those of a uint8 [C, 256] table."""
  channels = image.shape[-1]
  place = image.astype(jnp.int32) + 256 * np.arange(channels, dtype=np.int32)
  return table.reshape(-1).at[place].get(mode="promise_in_bounds")


def _of_all_channels(levels, image):
  """Levels that broadcast to [C, 256], as a table for `_look_up`."""
  return jnp.broadcast_to(levels, (image.shape[-1], 256)).astype(jnp.uint8)


_TABLE = Stage(_look_up, lambda image: _of_all_channels(_LEVELS, image))


def _table(levels_of) -> Part:
  """An op by a lookup table.

  `levels_of` is a function from the image to the new level of each grey level,
  int32 in 0..255, that broadcasts to [C, 256].
  """
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
    # The minimum is for levels above `high`, which the image does not have.
    return jnp.where(high > low, jnp.minimum(out, 255), _LEVELS)

  return _table(levels)


def _count_by_groups(image):
  """A histogram by comparisons with 64 groups of four grey levels.

  A group's counts are one uint32 with a byte for each level, so pixels are
  counted in blocks of 255. On accelerators nothing larger than the image is
  stored, because XLA fuses the comparisons with the sum.
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
  # XLA's CPU compiler does not fuse the comparisons with the sum, which makes
  # them 20 times slower than scattering. Accelerators are slow at scattering to
  # so few places.
  return jax.lax.platform_dependent(
    image, cpu=_count_by_scattering, default=_count_by_groups
  )


@register_uint8("equalize")
def get_equalize():
  """Flattens histograms; see `pp_ops.pixels.get_equalize`."""

  def levels(image):
    counts = histogram(image)
    upto = jnp.cumsum(counts, 1)
    # The number of pixels below the highest level that occurs, divided by 255.
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
  """Inverts at or above a threshold; see `pp_ops.pixels.get_solarize`."""
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
  """Pillow's degenerate + factor (image - degenerate), clipped, truncated."""
  degenerate, factor = parameters
  out = degenerate + factor * (image.astype(jnp.float32) - degenerate)
  return jnp.clip(out, 0.0, 255.0).astype(jnp.uint8)


_BLEND = Stage(_blend, lambda image: (image.astype(jnp.float32), 0.0))


def _enhance(factor, degenerate_of) -> Part:
  """An op that blends the image with a degenerate one.

  `degenerate_of` is a function from the image to whole grey levels, float32,
  that broadcast to it.
  """
  check_number("factor", factor, 0)
  factor = jnp.float32(factor)
  return Part(_BLEND, lambda image: (degenerate_of(image), factor))


def _grey(image):
  """Pillow's grey levels, int32 [H, W, 1]; a grey image keeps its own."""
  levels = image.astype(jnp.int32)
  if image.shape[-1] == 1:
    return levels
  weighted = (levels * np.int32(GREY)).sum(-1, keepdims=True)
  return (weighted + 32768) >> 16


def _grey_legacy(image):
  """`tf.image.rgb_to_grayscale`, which computes in [0, 1] and truncates."""
  if image.shape[-1] == 1:
    return image
  r, g, b = jnp.split(image.astype(jnp.float32) * np.float32(1 / 255), 3, -1)
  grey = 0.2989 * r + 0.587 * g + 0.114 * b
  return jnp.floor(grey * 255.5)


@register_uint8("color")
def get_color(factor: float, legacy: bool = False):
  """Less or more colour; see `pp_ops.pixels.get_color`."""
  check_bool("legacy", legacy)
  grey = _grey_legacy if legacy else _grey
  return _enhance(factor, lambda image: grey(image).astype(jnp.float32))


@register_uint8("contrast")
def get_contrast(factor: float, legacy: bool = False):
  """Less or more contrast; see `pp_ops.pixels.get_contrast`."""
  check_bool("legacy", legacy)

  def mean(image):
    count = image.shape[0] * image.shape[1]
    if legacy:
      return jnp.float32(min(count // 256, 255))
    total = _grey(image).astype(jnp.uint32).sum(dtype=jnp.uint32)
    # The mean, with halves rounded up. In integers, because float32 could not
    # hold the sum.
    mean, rest = jnp.divmod(total, np.uint32(count))
    return (mean + (2 * rest >= np.uint32(count))).astype(jnp.float32)

  return _enhance(factor, mean)


@register_uint8("brightness")
def get_brightness(factor: float):
  """Multiplies by a factor; see `pp_ops.pixels.get_brightness`."""
  return _enhance(factor, lambda image: jnp.float32(0))


def _weighted_3x3(image, centre):
  """Sums over 3x3 pixels, where the middle one has the weight `centre`."""
  pixels = jnp.pad(image.astype(jnp.float32), [(1, 1), (1, 1), (0, 0)], "edge")
  rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
  box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
  return box + (centre - 1) * pixels[1:-1, 1:-1]


@register_uint8("sharpness")
def get_sharpness(factor: float, legacy: bool = False):
  """Less or more sharpness; see `pp_ops.pixels.get_sharpness`."""
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
