"""The corruptions of ImageNet-C, CIFAR-10-C and the like, made on the fly.

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
  side = min(image.shape[:2])
  if side < LEAST_SIDE:
    raise UserError(
      f"corruption {name!r} got an image of {image.shape[0]}x{image.shape[1]}: "
      f"need at least {LEAST_SIDE} pixels each way"
    )
  corruption = NAMES[name]
  benchmark = 32 if side <= 32 else 64 if side <= 64 else 224
  constants = corruption.constants[benchmark][severity - 1]
  if not isinstance(constants, tuple):
    constants = (constants,)
  extra = {"folder": frost} if name == "frost" else {}
  return corruption.function(image, rng, *constants, **extra)
