"""Corruptions by weather: snow, frost, fog."""

import functools
import importlib.util
import os
import pathlib

import numpy as np
import PIL.Image

from pp_ops.corruptions.arrays import moved, sample, to_uint8, zoomed
from pp_ops.errors import UserError

GREY = np.array([0.299, 0.587, 0.114], np.float32)

# Five, because the authors' code never draws the last of its six photographs.
FROST = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
FROST_DIR = "FROST_DIR"  # the environment variable


def snow(image, rng, mean, scale, zoom, least, radius, sigma, clear):
  """Whitens the image; adds flakes, and the same flakes turned upside down.

  Args:
    image: uint8 [H, W, 3].
    rng: NumPy's generator.
    mean: mean of the noise that flakes are made of.
    scale: standard deviation of the noise.
    zoom: factor by which the noise is enlarged.
    least: enlarged noise below this is set to 0: no flake.
    radius: radius of the flakes' motion blur in pixels, see `moved`.
    sigma: standard deviation of the motion blur in pixels.
    clear: weight of the original image; the whitened one has 1 - clear.

  Returns:
    uint8 [H, W, 3].
  """
  x = (image / 255).astype(np.float32)
  flakes = rng.normal(mean, scale, (*x.shape[:2], 1))
  flakes = zoomed(flakes, (zoom,))[..., 0]
  flakes[flakes < least] = 0
  flakes = moved(to_uint8(flakes), radius, sigma, rng.uniform(-135, -45))
  flakes = (flakes / 255)[..., None]
  white = np.maximum(x, (x @ GREY)[..., None] * 1.5 + 0.5)
  x = clear * x + (1 - clear) * white
  return to_uint8(x + flakes + flakes[::-1, ::-1])


def frost_dir(folder: str | None = None) -> str:
  """The folder with ImageNet-C's photographs of frost.

  Args:
    folder: the user's folder, or None for the environment variable FROST_DIR or
      else the folder of an installed `imagecorruptions`.

  Returns:
    A folder that has all of `FROST`.

  Raises:
    ValueError: in one line, if photographs are missing.
  """
  folder = folder or os.environ.get(FROST_DIR)
  where = f"{folder!r} lacks {{}}: "
  if not folder:
    spec = importlib.util.find_spec("imagecorruptions")
    folder = spec and os.path.join(spec.submodule_search_locations[0], "frost")
    where = ""
  missing = [
    name
    for name in FROST
    if not (folder and os.path.exists(os.path.join(folder, name)))
  ]
  if missing:
    raise UserError(
      f"corruption 'frost': {where.format(missing[0])}need the photographs "
      f"{FROST[0]} to {FROST[-1]} of ImageNet-C: pip install --no-deps "
      f"imagecorruptions, or give their folder as frost='DIR' or ${FROST_DIR}"
    )
  return folder


@functools.lru_cache(maxsize=16)
def _photograph(folder, which, scale):
  """uint8 [H, W, 3], reduced as OpenCV does: bilinear, not antialiased."""
  with PIL.Image.open(pathlib.Path(folder) / FROST[which]) as file:
    photograph = np.asarray(file.convert("RGB"))
  if scale == 1:
    return photograph
  y, x = (
    (np.arange(round(n * scale)) + 0.5) / scale - 0.5
    for n in photograph.shape[:2]
  )
  y, x = np.meshgrid(y, x, indexing="ij")
  reduced = sample(photograph.astype(np.float32), y, x, edge_twice=True)
  return np.round(reduced).astype(np.uint8)


def frost(image, rng, weight, frost_weight, scale, folder=None):
  """Adds a random part of a photograph of frost.

  Args:
    image: uint8 [H, W, 3].
    rng: NumPy's generator.
    weight: weight of the image.
    frost_weight: weight of the photograph.
    scale: factor, at most 1, by which the photograph's sides are multiplied
      first. If the result does not exceed the image in both height and width,
      it is enlarged again, to 1.1 times the size that just covers the image.
    folder: see `frost_dir`.

  Returns:
    uint8 [H, W, 3].
  """
  photograph = _photograph(frost_dir(folder), int(rng.integers(5)), scale)
  height, width = image.shape[:2]
  have = photograph.shape[:2]
  if have[0] <= height or have[1] <= width:
    larger = 1.1 * max(height / have[0], width / have[1])
    size = [int(np.ceil(n * larger)) for n in have[::-1]]
    photograph = np.asarray(PIL.Image.fromarray(photograph).resize(size))
  y = rng.integers(0, photograph.shape[0] - height)
  x = rng.integers(0, photograph.shape[1] - width)
  part = photograph[y : y + height, x : x + width]
  mixed = weight * image + frost_weight * part
  return np.clip(mixed, 0, 255).astype(np.uint8)


def _plasma(size, decay, rng):
  """Random clouds in [0, 1] by the diamond-square algorithm, on a torus.

  Args:
    size: pixels each way, a power of 2.
    decay: factor by which the noise shrinks from one step to the next.
    rng: NumPy's generator.

  Returns:
    float [size, size].
  """
  height = np.zeros((size, size))
  step, noise = size, 100.0
  while step >= 2:
    half = step // 2
    corner = height[::step, ::step]

    def mean(four):
      return four / 4 + noise * rng.uniform(-noise, noise, corner.shape)

    pairs = corner + np.roll(corner, -1, 0)
    centre = mean(pairs + np.roll(pairs, -1, 1))
    height[half::step, half::step] = centre
    across = corner + np.roll(corner, -1, 1)
    height[::step, half::step] = mean(across + centre + np.roll(centre, 1, 0))
    height[half::step, ::step] = mean(pairs + centre + np.roll(centre, 1, 1))
    step, noise = half, noise / decay
  height -= height.min()
  return height / height.max()


def fog(image, rng, amount, decay):
  """Adds clouds, and scales the sum back to the image's brightest value."""
  x = image / 255
  height, width = x.shape[:2]
  size = 1 << (max(height, width) - 1).bit_length()
  clouds = _plasma(size, decay, rng)[:height, :width, None]
  brightest = x.max()
  return to_uint8((x + amount * clouds) * brightest / (brightest + amount))
