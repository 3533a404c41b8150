"""The corruptions of ImageNet-C, CIFAR-10-C and the like, made on the fly.

"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(Hendrycks & Dietterich, ICLR 2019). Given the same random numbers, pixels are
within a grey level of those of its authors' scripts (github.com/hendrycks/
robustness) with ImageMagick 6 and OpenCV 5. Older versions of OpenCV round the
positions that `elastic_transform` samples to 1/32 pixel, which changes pixels
by up to 3 grey levels.

Of these modules only `op`, which registers the op `corrupt`, imports
TensorFlow.
"""

import numpy as np

from pp_ops.checks import check_choice, check_number
from pp_ops.corruptions.table import NAMES, Corruption
from pp_ops.corruptions.weather import frost_dir
from pp_ops.errors import UserError

__all__ = ["NAMES", "Corruption", "check_corruption", "corrupt"]

LEAST_SIDE = 32  # pixels


def check_corruption(name: str, severity: int, frost: str | None) -> None:
  """Raises a one-line ValueError for wrong arguments of `corrupt`."""
  check_choice("corruption", name, NAMES)
  check_number("severity", severity, 1, 5, whole=True)
  if name == "frost":
    frost_dir(frost)
  elif frost is not None:
    raise UserError(f"frost={frost!r} is for corruption 'frost', not {name!r}")


def check_sides(name: str, height: int, width: int) -> None:
  """Raises a one-line ValueError for an image that is too small."""
  if min(height, width) < LEAST_SIDE:
    raise UserError(
      f"corruption {name!r} got an image of {height}x{width}: need at least "
      f"{LEAST_SIDE} pixels each way"
    )


def corrupt(
  image: np.ndarray,
  name: str,
  severity: int,
  rng: np.random.Generator,
  frost: str | None = None,
) -> np.ndarray:
  """Corrupts an image.

  The image's shorter side decides whose constants are used: CIFAR-10-C's up to
  32 pixels, Tiny-ImageNet-C's up to 64, ImageNet-C's above.

  Args:
    image: uint8 [H, W, 3], at least 32 pixels each way.
    name: one of `NAMES`.
    severity: 1 to 5.
    rng: source of all random numbers.
    frost: folder of the photographs for "frost", see `weather.frost_dir`.

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: in one line, for wrong arguments or a side below 32 pixels.
  """
  check_corruption(name, severity, frost)
  check_sides(name, *image.shape[:2])
  side = min(image.shape[:2])
  corruption = NAMES[name]
  benchmark = 32 if side <= 32 else 64 if side <= 64 else 224
  constants = corruption.constants[benchmark][severity - 1]
  if not isinstance(constants, tuple):
    constants = (constants,)
  extra = {"folder": frost} if name == "frost" else {}
  return corruption.function(image, rng, *constants, **extra)
