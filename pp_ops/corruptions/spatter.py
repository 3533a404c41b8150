"""Spatter: drops of water, or mud, on the lens.

The relief of water drops is made by OpenCV's Canny edges, its approximate
distance transform and its histogram equalisation. These are reimplemented here
in NumPy and SciPy, because OpenCV is large and nothing else needs it.
"""

import numpy as np
from scipy import ndimage

from pp_ops.corruptions.arrays import gaussian, to_uint8

WATER = np.array([175, 238, 238]) / 255
MUD = np.array([63, 42, 20]) / 255

_FAR = 20  # pixels: distances from an edge are clipped to this


def spatter(image, rng, mean, scale, sigma, least, strength, mud):
  """Adds drops of water that shine, or drops of mud that cover the image.

  Args:
    image: uint8 [H, W, 3].
    rng: NumPy's generator.
    mean: mean of the noise that drops are made of.
    scale: standard deviation of the noise.
    sigma: standard deviation of the Gaussian that smoothes the noise, pixels.
    least: a pixel belongs to a drop if its smoothed noise reaches this.
    strength: for water, the brightness of the brightest spot; for mud, the
      standard deviation in pixels of the Gaussian that rounds the drops.
    mud: whether the drops are mud rather than water.

  Returns:
    uint8 [H, W, 3].
  """
  x = (image / 255).astype(np.float32)
  liquid = gaussian(rng.normal(mean, scale, x.shape[:2]), sigma)
  if mud:
    cover = gaussian((liquid > least).astype(np.float32), strength)[..., None]
    cover[cover < 0.8] = 0
    return to_uint8(x * (1 - cover) + MUD * cover)
  liquid = to_uint8(np.where(liquid < least, 0, liquid))
  shine = (liquid * _relief(liquid)).astype(np.float32)
  # The authors' code divides by 0 here if there is no drop, as on small images.
  shine *= strength / max(shine.max(), 1e-9)
  return to_uint8(x + shine[..., None] * WATER)


def _relief(liquid):
  distance = np.minimum(_distance(_canny(liquid, 50, 150)), _FAR)
  mean = ndimage.uniform_filter(distance, 3, mode="mirror")
  relief = _equalized((mean + 1e-6).astype(np.uint8))
  kernel = [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]
  relief = ndimage.correlate(relief.astype(int), kernel, mode="mirror")
  relief = np.clip(relief, 0, 255)
  return np.round(
    ndimage.correlate(relief, np.ones((3, 3), int), mode="mirror") / 9
  )


def _canny(image, low, high):
  """OpenCV's Canny edges: Sobel gradient, thinning, hysteresis.

  Args:
    image: uint8 [H, W].
    low: gradient, |dx| + |dy|, above which a pixel may belong to an edge.
    high: gradient that at least one pixel of an edge must exceed.

  Returns:
    bool [H, W].
  """
  dy, dx = (
    ndimage.sobel(image.astype(np.int64), axis, mode="nearest")
    for axis in (0, 1)
  )
  size = np.abs(dx) + np.abs(dy)
  around = np.pad(size, 1)
  height, width = size.shape

  def at(y, x):
    return around[1 + y : 1 + y + height, 1 + x : 1 + x + width]

  # Is the gradient nearest to the x axis, the y axis or a diagonal? The bounds
  # are OpenCV's fixed-point tangents of 22.5 and 67.5 degrees.
  tangent = np.abs(dx) * 13573
  steep = np.abs(dy) << 15
  flat, steep = steep < tangent, steep > tangent + (np.abs(dx) << 16)
  falls = (dx < 0) != (dy < 0)
  crest = np.where(falls, at(-1, 1), at(-1, -1)) < size
  crest &= np.where(falls, at(1, -1), at(1, 1)) < size
  crest = np.where(steep, (size > at(-1, 0)) & (size >= at(1, 0)), crest)
  crest = np.where(flat, (size > at(0, -1)) & (size >= at(0, 1)), crest)
  edges, num = ndimage.label(crest & (size > low), np.ones((3, 3)))
  strong = np.zeros(num + 1, bool)
  strong[edges[size > high]] = True
  strong[0] = False
  return strong[edges]


def _distance(edges):
  """Distance to the nearest edge, at most `_FAR`; OpenCV's DIST_L2, 5x5.

  The distance is the length of the shortest path of horizontal or vertical
  steps (length 1), diagonal steps (1.4) and knight's moves (2.1969).
  """
  height, width = edges.shape
  # How far the nearest edge is in the same row.
  place = np.where(edges, np.arange(width), -_FAR)
  left = np.arange(width) - np.maximum.accumulate(place, 1)
  place = np.where(edges, np.arange(width), width + _FAR)[:, ::-1]
  right = np.minimum.accumulate(place, 1)[:, ::-1] - np.arange(width)
  across = np.minimum(np.minimum(left, right), _FAR)
  small, large = np.sort(np.indices((_FAR + 1, _FAR + 1)), 0)
  ways = np.where(
    2 * small <= large,
    large - 2 * small + 2.1969 * small,
    1.4 * (2 * small - large) + 2.1969 * (large - small),
  )
  ways = np.where(large == _FAR, _FAR, ways)
  out = np.full(edges.shape, float(_FAR))
  for dy in range(1 - _FAR, _FAR):
    rows = slice(max(dy, 0), height + min(dy, 0))
    near = ways[abs(dy)][across[rows]]
    rows = slice(max(-dy, 0), height + min(-dy, 0))
    np.minimum(out[rows], near, out=out[rows])
  return out


def _equalized(image):
  """OpenCV's `equalizeHist` of a uint8 array."""
  counts = np.bincount(image.ravel(), minlength=256)
  first = np.flatnonzero(counts)[0]
  rest = image.size - counts[first]
  if not rest:
    return image
  below = np.cumsum(counts) - counts[first]
  scale = np.float32(255) / np.float32(rest)
  table = np.round(below.astype(np.float32) * scale)
  return np.clip(table, 0, 255).astype(np.uint8)[image]
