"""Array functions that corruptions share: blurs, zooms, sampling, rounding."""

import functools

import numpy as np
from scipy import ndimage, sparse


def to_uint8(x: np.ndarray) -> np.ndarray:
  """Grey levels from [0, 1]: clipped, scaled by 255, truncated to uint8."""
  return (np.clip(x, 0, 1) * 255).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _gaussian_matrix(size, sigma, mode, truncate):
  eye = np.eye(size)
  return ndimage.gaussian_filter(eye, (sigma, 0), mode=mode, truncate=truncate)


def gaussian(x, sigma: float, mode: str = "nearest", truncate: float = 4):
  """Blurs [H, W] or [H, W, C] with a Gaussian, as two matrix products.

  Args:
    x: floats.
    sigma: standard deviation, pixels; 0 leaves the image alone.
    mode: `scipy.ndimage`'s name of how the image is extended at its edges.
    truncate: radius of the kernel, in standard deviations.

  Returns:
    The same shape.
  """
  rows, columns = (
    _gaussian_matrix(size, sigma, mode, truncate) for size in x.shape[:2]
  )
  if x.ndim == 2:
    return rows @ x @ columns.T
  return (rows @ x.transpose(2, 0, 1) @ columns.T).transpose(1, 2, 0)


def _zoom_matrix(size, factor):
  """Sparse [size, size]: enlarges a line's middle to the whole line.

  The middle has 1 / factor of the line's pixels; interpolation is linear.
  """
  length = int(np.ceil(size / factor))
  stretched = round(length * factor)
  place = np.arange(size) + (stretched - size) // 2
  place = (size - length) // 2 + place * ((length - 1) / (stretched - 1))
  low = np.clip(np.floor(place).astype(int), 0, size - 2)
  weight = place - low
  entries = np.concatenate([1 - weight, weight])
  rows = np.tile(np.arange(size), 2)
  columns = np.concatenate([low, low + 1])
  return sparse.csr_matrix((entries, (rows, columns)), (size, size))


@functools.lru_cache(maxsize=64)
def _zoom_matrices(height, width, factors):
  rows = sparse.vstack([_zoom_matrix(height, f) for f in factors], "csr")
  columns = sparse.hstack([_zoom_matrix(width, f) for f in factors], "csr")
  return rows, columns


def zoomed(x: np.ndarray, factors: tuple[float, ...]) -> np.ndarray:
  """The sum of central crops of an image, each enlarged to the image's size.

  Args:
    x: float [H, W, C].
    factors: by how much each crop is enlarged, 1 or more.

  Returns:
    float [H, W, C].
  """
  height, width, channels = x.shape
  rows, columns = _zoom_matrices(height, width, factors)
  tall = rows @ x.reshape(height, -1)
  tall = tall.reshape(len(factors), height, width, channels)
  wide = columns @ tall.swapaxes(1, 2).reshape(len(factors) * width, -1)
  return wide.reshape(width, height, channels).swapaxes(0, 1)


def moved(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
  """Blurs along a line; ImageMagick's motion blur.

  The line begins at the pixel and has 2 radius + 1 points, one pixel apart and
  rounded to whole pixels, with the weights of half a Gaussian. Edge pixels are
  repeated beyond the edges. ImageMagick 6 rounds to 65,536 levels before it
  truncates to 256, so that a value up to 1/514 below a grey level becomes that
  level.

  Args:
    x: uint8 [H, W] or [H, W, C].
    radius: pixels.
    sigma: standard deviation of the Gaussian, pixels.
    angle: direction of the line in degrees; 0 is right, 90 is down.

  Returns:
    uint8 of that shape.
  """
  step = np.arange(2 * radius + 1)
  weights = np.exp(-(step**2) / (2 * sigma**2))
  weights = (weights / weights.sum()).astype(np.float32)
  angle = np.deg2rad(angle)
  dy, dx = (
    np.ceil(step * f(angle) - 0.5).astype(int) for f in (np.sin, np.cos)
  )
  around = [(-min(d.min(), 0), max(d.max(), 0)) for d in (dy, dx)]
  padded = np.pad(x, [*around, (0, 0)][: x.ndim], mode="edge")
  padded = padded.astype(np.float32)
  height, width = x.shape[:2]
  top, left = dy + around[0][0], dx + around[1][0]
  out = np.full(x.shape, 1 / 514, np.float32)
  for weight, y, x0 in zip(weights, top, left, strict=True):
    out += weight * padded[y : y + height, x0 : x0 + width]
  return out.astype(np.uint8)


def _folded(place, size, edge_twice):
  """Indices into a line of pixels that is mirrored beyond its ends."""
  period = 2 * size if edge_twice else 2 * size - 2
  place = place % period
  return np.minimum(place, period - edge_twice - place)


def sample(
  image: np.ndarray, y: np.ndarray, x: np.ndarray, edge_twice: bool
) -> np.ndarray:
  """Bilinear interpolation at any positions; edges are mirrored.

  Args:
    image: float [H, W, C].
    y: float [h, w], the rows; pixel centres are at whole numbers.
    x: float [h, w], the columns.
    edge_twice: whether mirroring repeats the edge pixels.

  Returns:
    float [h, w, C].
  """
  height, width, channels = image.shape
  pixels = image.reshape(-1, channels)
  low_y, low_x = (np.floor(p).astype(int) for p in (y, x))
  part_y = (y - low_y)[..., None].astype(image.dtype)
  part_x = (x - low_x)[..., None].astype(image.dtype)
  rows = [_folded(low_y + i, height, edge_twice) * width for i in (0, 1)]
  columns = [_folded(low_x + i, width, edge_twice) for i in (0, 1)]

  def line(row):
    left, right = (pixels[row + column] for column in columns)
    return left + part_x * (right - left)

  top, bottom = map(line, rows)
  return top + part_y * (bottom - top)
