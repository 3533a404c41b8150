"""Corruptions of colours, geometry and compression."""

import io

import numpy as np
import PIL.Image

from pp_ops.corruptions.arrays import gaussian, sample, to_uint8


def brightness(image, rng, more):
  """Adds `more` to the V of HSV; not random."""
  x = image / 255
  value = x.max(-1, keepdims=True)
  brighter = np.minimum(value + more, 1)
  # In HSV, R, G and B are V times factors that depend on H and S alone. For
  # black the factors are 1, because its S is 0.
  shade = np.divide(x, value, out=np.ones_like(x), where=value > 0)
  return to_uint8(shade * brighter)


def contrast(image, rng, factor):
  """Scales each value's distance from its channel's mean; not random."""
  x = image / 255
  mean = x.mean((0, 1), keepdims=True)
  return to_uint8((x - mean) * factor + mean)


def saturate(image, rng, factor, more):
  """Makes the S of HSV S * factor + more; not random.

  Grey has the hue of red, as in scikit-image, so that `more` makes it reddish.
  """
  x = image / 255
  value = x.max(-1, keepdims=True)
  chroma = value - x.min(-1, keepdims=True)
  grey = chroma == 0
  saturation = np.divide(
    chroma, value, out=np.zeros_like(value), where=value > 0
  )
  saturation = np.clip(saturation * factor + more, 0, 1)
  # A channel is V (1 - S f), where f depends on the hue alone.
  hue = np.where(grey, (0.0, 1.0, 1.0), (value - x) / np.where(grey, 1, chroma))
  return to_uint8(value * (1 - saturation * hue))


def jpeg_compression(image, rng, quality):
  """Encodes as JPEG by Pillow and decodes again; not random."""
  file = io.BytesIO()
  PIL.Image.fromarray(image).save(file, "JPEG", quality=quality)
  return np.asarray(PIL.Image.open(file))


def pixelate(image, rng, scale):
  """Reduces to `scale` times the size and enlarges again; not random."""
  height, width = image.shape[:2]
  small = int(width * scale), int(height * scale)
  box = PIL.Image.Resampling.BOX
  pillow = PIL.Image.fromarray(image).resize(small, box)
  return np.asarray(pillow.resize((width, height), box))


def elastic_transform(image, rng, strength, sigma, shift):
  """A random affine map, then a smooth random displacement of each pixel.

  Args:
    image: uint8 [H, W, 3].
    rng: NumPy's generator.
    strength: largest displacement before smoothing, as a fraction of the
      image's shorter side.
    sigma: standard deviation of the Gaussian that smoothes the displacement, in
      the same unit.
    shift: by how much each of the affine map's three points moves at most, in
      the same unit.

  Returns:
    uint8 [H, W, 3].
  """
  height, width = image.shape[:2]
  side = min(height, width)
  middle, third = np.array([width // 2, height // 2]), side // 3
  points = middle + third * np.array([[1, 1], [1, -1], [-1, -1]])
  to = points + rng.uniform(-shift * side, shift * side, (3, 2))
  # The affine map from the moved points back to the original ones.
  back = np.linalg.solve(np.c_[to, np.ones(3)], points)
  y, x = np.mgrid[:height, :width]
  from_x, from_y = (x * a + y * b + c for a, b, c in back.T)
  image = (image / 255).astype(np.float32)
  image = sample(image, from_y, from_x, edge_twice=False)

  def displacement():
    noise = rng.uniform(-1, 1, (height, width))
    return gaussian(noise, sigma * side, "reflect", 3) * (strength * side)

  dx = displacement()
  return to_uint8(sample(image, y + displacement(), x + dx, edge_twice=True))
