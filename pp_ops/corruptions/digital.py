"""Corruptions of colours, geometry and compression."""

import io

import numpy as np
import PIL.Image

from pp_ops.corruptions.arrays import gaussian, sample, to_uint8


def brightness(image, rng, more):
  """Adds `more` to the V of HSV; draws nothing."""
  x = image / 255
  value = x.max(-1, keepdims=True)
  brighter = np.minimum(value + more, 1)
  # R, G and B are V times what H and S decide; black has S = 0.
  shade = np.divide(x, value, out=np.ones_like(x), where=value > 0)
  return to_uint8(shade * brighter)


def contrast(image, rng, factor):
  """Takes values nearer to their channel's mean; draws nothing."""
  x = image / 255
  mean = x.mean((0, 1), keepdims=True)
  return to_uint8((x - mean) * factor + mean)


def saturate(image, rng, factor, more):
  """The S of HSV times `factor` plus `more`; draws nothing.

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
  # A channel is V (1 - S f), where f is the hue's alone.
  hue = np.where(grey, (0.0, 1.0, 1.0), (value - x) / np.where(grey, 1, chroma))
  return to_uint8(value * (1 - saturation * hue))


def jpeg_compression(image, rng, quality):
  """To JPEG and back, by Pillow; draws nothing."""
  file = io.BytesIO()
  PIL.Image.fromarray(image).save(file, "JPEG", quality=quality)
  return np.asarray(PIL.Image.open(file))


def pixelate(image, rng, scale):
  """Reduces to `scale` times the size and enlarges again; draws nothing."""
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
    strength: the displacement before its smoothing, in shorter sides.
    sigma: of the Gaussian that smoothes it, in shorter sides.
    shift: by how much each of three points moves, in shorter sides.

  Returns:
    uint8 [H, W, 3].
  """
  height, width = image.shape[:2]
  side = min(height, width)
  middle, third = np.array([width // 2, height // 2]), side // 3
  points = middle + third * np.array([[1, 1], [1, -1], [-1, -1]])
  to = points + rng.uniform(-shift * side, shift * side, (3, 2))
  # The affine map that takes the moved points back.
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
