"""Corruptions that blur."""

import functools

import numpy as np
from scipy import ndimage, signal

from pp_ops.corruptions.arrays import gaussian, moved, to_uint8, zoomed


def gaussian_blur(image, rng, sigma):
  """Blurs by a Gaussian of `sigma` pixels; not random."""
  return to_uint8(gaussian(image / 255, sigma))


def defocus_blur(image, rng, radius, sigma):
  """Blurs by a disk of `radius` pixels, softened by a Gaussian; not random."""
  reach, taps = (8, 1) if radius <= 8 else (radius, 2)
  place = np.arange(-reach, reach + 1)
  disk = place**2 + place[:, None] ** 2 <= radius**2
  weights = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * sigma**2))
  weights /= weights.sum()
  kernel = disk / disk.sum()
  for axis in (0, 1):
    kernel = ndimage.correlate1d(kernel, weights, axis, mode="mirror")
  around = [(reach, reach)] * 2 + [(0, 0)]
  padded = np.pad(image / 255, around, mode="reflect")
  blurred = signal.fftconvolve(padded, kernel[..., None], "valid", axes=(0, 1))
  return to_uint8(blurred)


def _copied_from(height, width, reach, rng):
  """The pixel that each pixel copies in one round of `glass_blur`.

  The pixels are visited from the last to the first. Each copies the current
  value of a nearby pixel, which is itself a copy if it was visited before.
  """
  place = np.arange(height * width)
  inner = place.reshape(height, width)
  inner = inner[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
  inner = inner[::-1, ::-1].ravel()
  dx, dy = rng.integers(-reach, reach, (inner.size, 2)).T
  near = inner + dy * width + dx
  source = place.copy()
  source[inner] = near
  visited = np.zeros(place.size, bool)
  visited[inner] = True
  earlier = (near > inner) & visited[near]
  # Chains of copies are followed to their origin by pointer doubling.
  link = place
  link[inner[earlier]] = near[earlier]
  while True:
    further = link[link]
    if np.array_equal(further, link):
      return source[link]
    link = further


def glass_blur(image, rng, sigma, reach, rounds):
  """Blurs, copies pixels from up to `reach` pixels away, and blurs again.

  The paper exchanges pixels. Its authors' code, `a[i], a[j] = a[j], a[i]` with
  rows of a NumPy array, copies one over the other. We copy too, like all ports
  and the published images.
  """
  # SciPy's filter rather than `gaussian`, because in flat areas the last bit
  # decides to which grey level a value is truncated.
  blur = functools.partial(
    ndimage.gaussian_filter, sigma=(sigma, sigma, 0), mode="nearest"
  )
  pixels = (blur(image / 255) * 255).astype(np.uint8).reshape(-1, 3)
  for _ in range(rounds):
    pixels = pixels[_copied_from(*image.shape[:2], reach, rng)]
  return to_uint8(blur(pixels.reshape(image.shape) / 255))


def motion_blur(image, rng, radius, sigma):
  """ImageMagick's motion blur along a line at -45 to 45 degrees."""
  return moved(image, radius, sigma, rng.uniform(-45, 45))


def zoom_blur(image, rng, end, step):
  """The mean of enlargements by 1 to `end`, `step` apart; not random."""
  factors = tuple(np.arange(1, end, step))
  x = (image / 255).astype(np.float32)
  return to_uint8((x + zoomed(x, factors)) / (len(factors) + 1))
