"""The corruptions of ImageNet-C, CIFAR-10-C and the like, made on the fly.

"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(Hendrycks & Dietterich, ICLR 2019). Given the same random numbers, pixels are
within a grey level of those of its authors' scripts (github.com/hendrycks/
robustness) with ImageMagick 6 and OpenCV 5. Older versions of OpenCV round the
places of `elastic_transform` to 1/32 pixel, which makes up to 3 grey levels.

No TensorFlow here, but in `op`, which has the op `corrupt`.
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

  The constants are those of the benchmark of the image's size: of CIFAR-10-C
  for images whose shorter side is at most 32 pixels, of Tiny-ImageNet-C for
  those of at most 64, of ImageNet-C for larger ones.

  Args:
    image: uint8 [H, W, 3], at least 32 pixels each way.
    name: one of `NAMES`.
    severity: 1 to 5.
    rng: what is drawn from.
    frost: folder of the photographs for "frost", see `weather.frost_dir`.

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: in one line, for wrong arguments or a smaller image.
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
