"""Formulas, constants and argument checks that all engines' ops share.

This module does not import TensorFlow. A formula takes the array namespace to
compute in as `xp`, which is `tensorflow` or `jax.numpy`.
"""

import itertools
import math

import numpy as np

from pp_ops.checks import check_choice, check_fill, check_number
from pp_ops.errors import UserError
from pp_ops.laws.law import first_admissible

# Images and constants.

# Pillow's integer weights for R, G and B, in 65536ths.
GREY = (19595, 38470, 7471)

# All orders of three channels.
PERMUTATIONS = tuple(itertools.permutations(range(3)))

# PCA of ImageNet's colours: the standard deviation along each principal axis,
# and a matrix whose columns are these axes.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
  (-0.5675, 0.7192, 0.4009),
  (-0.5808, -0.0045, -0.8140),
  (-0.5836, -0.6948, 0.4203),
)


def check_uint8_image(name: str, image, rank: int | None) -> None:
  """Raises unless an op's image is uint8 [height, width, 3 or 1].

  `image` is a tensor or array; `rank` is None if its rank is not known.
  """
  dtype = image.dtype.name
  if dtype != "uint8" or rank != 3 or image.shape[-1] not in (1, 3):
    raise UserError(
      f"op {name!r} got {dtype} {image.shape}: need uint8 [height, width, "
      "channels] with 3 channels or 1, as decoded"
    )


def check_channels(name: str, image, rank: int | None) -> None:
  """Raises unless `image` is [height, width, 3 or 1], of whatever dtype."""
  if rank != 3 or image.shape[-1] not in (1, 3):
    raise UserError(
      f"op {name!r} got {image.dtype.name} {image.shape}: need [height, width, "
      "channels] with 3 channels or 1"
    )


def check_fill_fits(fill, channels: int) -> None:
  """Raises unless `fill` is one number, or as many as there are channels."""
  if not isinstance(fill, int) and len(fill) not in (1, channels):
    raise UserError(f"fill={fill!r} for an image of {channels} channel: need 1")


def check_bool(name: str, value) -> None:
  """Raises unless `value` is True or False."""
  if not isinstance(value, bool):
    raise UserError(f"{name}={value!r}: need True or False")


def saturated_colours() -> np.ndarray:
  """How far each channel lies below the highest one, for Pillow's hues 0..255.

  Returns:
    float32 [256, 3]: 0 in the channel that is highest, 1 in the lowest.
  """
  # Single precision, because its rounding decides where each sixth of the
  # colour circle begins in Pillow.
  place = np.arange(256, dtype=np.float32) * 6.0 / 255.0
  sixth = np.floor(place).astype(int)
  rest = (place - sixth).astype(np.float32)
  zero, one = np.zeros(256, np.float32), np.ones(256, np.float32)
  channels = [
    [zero, rest, one, one, 1 - rest, zero],
    [1 - rest, zero, zero, rest, one, one],
    [one, one, 1 - rest, zero, zero, rest],
  ]
  return np.stack([np.choose(sixth % 6, by_sixth) for by_sixth in channels], -1)


# Ops that move pixels: see `pp_ops.geometry`.


def fixed_point(x, y, terms, xp, cast):
  """Where Pillow takes the nearest pixel from: floor(a x + b y + c).

  Pillow rounds a, b and c to 65536ths and computes with whole numbers. Here the
  whole part and the fraction of each term are multiplied and summed separately,
  because the product with the undivided term might not fit into 32 bits.

  Args:
    x: int32, the column, below 2^14.
    y: int32, the row, below 2^14.
    terms: (a, b, c), float scalars.
    xp: the array namespace.
    cast: function to int32.

  Returns:
    int32 that broadcasts x and y.
  """
  whole, rest = 0, 0
  for term, times in zip(terms, (x, y, 1), strict=True):
    floor = xp.floor(term)
    # No image has 2^15 pixels along a side, so a clipped term still leads
    # outside the image.
    within = xp.minimum(xp.maximum(floor, -(2.0**15)), 2.0**15)
    whole += cast(within) * times
    rest += cast(xp.floor((term - floor) * 65536.0 + 0.5)) * times
  return whole + rest // 65536


def check_cutout(pad_size, fill, place) -> None:
  """Raises unless these are arguments of the op `cutout`."""
  check_number("pad_size", pad_size, 0, whole=True)
  check_fill(fill)
  if place is not None:
    if not (isinstance(place, (tuple, list)) and len(place) == 2):
      raise UserError(f"place={place!r}: need (y, x), each from 0 to 1")
    for name, at in zip(("place[0]", "place[1]"), place, strict=True):
      check_number(name, at, 0, 1)


# Gaussian blur: see `pp_ops.blur`.


def check_blur(kernel_size, sigma) -> tuple[float, float]:
  """(least, most) sigma from the arguments of `gaussian_blur`."""
  check_number("kernel_size", kernel_size, 1, 999, whole=True)
  if kernel_size % 2 == 0:
    raise UserError(f"kernel_size={kernel_size}: need an odd number")
  pair = sigma if isinstance(sigma, (tuple, list)) else (sigma, sigma)
  if len(pair) != 2:
    raise UserError(f"sigma={sigma!r}: need a number or (least, most)")
  names = ["sigma"] if pair is not sigma else ["sigma[0]", "sigma[1]"]
  check_number(names[0], pair[0], 0.01)
  check_number(names[-1], pair[1], pair[0])
  return tuple(map(float, pair))


def check_blur_fits(kernel_size: int, *sides: int | None) -> None:
  """Raises if a side is too short to be reflected; None: length not known."""
  reach = kernel_size // 2
  if any(side is not None and side <= reach for side in sides):
    raise UserError(
      f"op 'gaussian_blur' got an image of {sides[0]}x{sides[1]}: "
      f"kernel_size={kernel_size} needs more than {reach} pixels each way"
    )


def blur_matrix(place, sigma, kernel_size: int, xp):
  """The matrix that blurs one axis, with the image reflected at its edges.

  The first and last pixels are not repeated by the reflection.

  Args:
    place: float32 [n], the numbers 0 to n - 1; n > kernel_size / 2.
    sigma: the kernel's standard deviation in pixels.
    kernel_size: odd number of taps.
    xp: the array namespace.

  Returns:
    float32 [n, n]: row i has the weights of all pixels in blurred pixel i.
  """
  reach = kernel_size // 2
  bell = lambda distance: xp.exp(-0.5 * (distance / sigma) ** 2)
  weight = lambda d: xp.where(xp.abs(d) <= reach, bell(d), 0.0)
  out, pixel, last = place[:, None], place[None], place[-1]
  # A tap beyond an edge reads the pixel at the same distance inside the edge.
  mirrored = lambda d, there: xp.where(there, weight(d), 0.0)
  matrix = (
    weight(out - pixel)
    + mirrored(out + pixel, pixel > 0)
    + mirrored(2 * last - out - pixel, pixel < last)
  )
  taps = np.arange(-reach, reach + 1, dtype=np.float32)
  # einsum, because sum() has a different name in TensorFlow.
  return matrix / xp.einsum("k->", bell(taps))


# Random Erasing: see `pp_ops.random_erasing`.


def erasing_law(
  probability,
  mode,
  min_area,
  max_area,
  min_aspect,
  max_aspect,
  min_count,
  max_count,
) -> dict:
  """The arguments of `erased_boxes` from those of the op `random_erasing`."""
  check_number("probability", probability, 0, 1)
  check_choice("mode", mode, ("pixel", "rand", "const"))
  check_number("min_area", min_area, 0)
  check_number("max_area", max_area, min_area)
  check_number("min_aspect", min_aspect, 1e-6)
  max_aspect = 1 / min_aspect if max_aspect is None else max_aspect
  check_number("max_aspect", max_aspect, min_aspect)
  check_number("min_count", min_count, 1, whole=True)
  max_count = min_count if max_count is None else max_count
  check_number("max_count", max_count, min_count, whole=True)
  return {
    "area": (min_area, max_area),
    "log_aspect": (math.log(min_aspect), math.log(max_aspect)),
    "count": (min_count, max_count),
  }


ERASING_ATTEMPTS = 10


def erased_boxes(drawn, u, height, width, area, log_aspect, xp) -> list:
  """Boxes to erase, drawn by timm's law; see `pp_ops.random_erasing`.

  Args:
    drawn: float scalar, the number of boxes, from 1 to `num`.
    u: float [4, num, ERASING_ATTEMPTS], uniform in [0, 1).
    height: float scalar, the image's height in pixels.
    width: float scalar, the image's width in pixels.
    area: (least, most) fraction of the image that all boxes cover together.
    log_aspect: (least, most) log of height / width.
    xp: the array namespace.

  Returns:
    Four arrays, float [num]: top, left, height, width in pixels. All four are 0
    beyond the first `drawn` boxes and where no attempt fitted.
  """
  between = lambda u, low, high: low + u * (high - low)
  target = between(u[0], *area) * (height * width / drawn)
  aspect = xp.exp(between(u[1], *log_aspect))
  h = xp.round(xp.sqrt(target * aspect))
  w = xp.round(xp.sqrt(target / aspect))

  def place(u, room):
    # In float32 the product occasionally rounds up to room + 1.
    return xp.minimum(xp.floor(u * (room + 1)), room)

  boxes = [place(u[2], height - h), place(u[3], width - w), h, w]
  fits = (h < height) & (w < width)
  *boxes, found = first_admissible(fits, boxes, [0.0] * 4, xp)
  there = found & (np.arange(u.shape[1]) < drawn)
  return [xp.where(there, side, 0.0) for side in boxes]
