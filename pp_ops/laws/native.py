"""TensorFlow's crop law with its kernel's integer logic; the paper's port."""

import dataclasses

import numpy as np

from pp_ops.errors import UserError
from pp_ops.laws.law import Array, Law


@dataclasses.dataclass(frozen=True)
class NativeLaw(Law):
  """TensorFlow's `sample_distorted_bounding_box` (Algorithm 1).

  It includes the integer logic of the kernel, which the paper omits: the ratio
  is uniform, the height is uniform over a closed integer range and corrected by
  one pixel where needed, a window smaller than the image never reaches its
  bottom or right edge, and the full image is used after `max_attempts`.
  """

  ratio_max: float = 1.33  # TensorFlow's default is not 4 / 3.
  max_attempts: int = 100

  def __post_init__(self):
    super().__post_init__()
    if self.area_min <= 0:
      raise UserError("area_min=0: TensorFlow's op needs an area above 0")

  def propose(self, u, height, width, xp):
    ratio = self.ratio_min + u[..., 0] * (self.ratio_max - self.ratio_min)
    low, high = self.height_range(ratio, height, width, xp)
    h = xp.minimum(low + xp.floor(u[..., 1] * (high - low + 1)), high)
    return self.repair(h, ratio, height, width, xp)

  def area_range(self, height: Array, width: Array, xp) -> tuple[Array, Array]:
    """Least and greatest area in pixels, with the roundings of the kernel.

    The kernel multiplies in float32, first by the width. If both bounds are
    equal, say 30%, this rounding decides whether any window of whole pixels is
    admissible.
    """
    return tuple(
      _float32(_float32(np.float32(area) * width, xp) * height, xp)
      for area in (self.area_min, self.area_max)
    )

  def height_range(
    self, ratio: Array, height: Array, width: Array, xp
  ) -> tuple[Array, Array]:
    """Least and greatest height that can be drawn at a ratio, both included."""
    smallest, largest = self.area_range(height, width, xp)
    low = xp.round(xp.sqrt(smallest / ratio))
    high = xp.round(xp.sqrt(largest / ratio))
    # The tallest window whose rounded width still fits the image.
    fits = xp.floor((width + 0.5 - 1e-7) / ratio)
    fits = xp.where(xp.round(fits * ratio) > width, fits - 1, fits)
    high = xp.where(xp.round(high * ratio) > width, fits, high)
    high = xp.minimum(high, height)
    return xp.minimum(low, high), high

  def repair(
    self, h: Array, ratio: Array, height: Array, width: Array, xp
  ) -> tuple[Array, Array, Array]:
    """The window (h, w, ok) that a drawn height becomes."""
    smallest, largest = self.area_range(height, width, xp)
    # Rounding may put the area outside its range: try one row more, one less.
    h = xp.where(h * xp.round(h * ratio) < smallest, h + 1, h)
    h = xp.where(h * xp.round(h * ratio) > largest, h - 1, h)
    w = xp.round(h * ratio)
    ok = (h * w >= smallest) & (h * w <= largest)
    return h, w, ok & (w > 0) & (w <= width) & (h > 0) & (h <= height)

  def fallback(self, height, width, xp):
    zero = xp.zeros_like(height)
    return zero, zero, height, width

  def place(self, u, h, w, height, width, xp):
    # The kernel draws from 0..height-h-1, so offset height-h never occurs.
    y = xp.minimum(xp.floor(u[..., 0] * (height - h)), height - h - 1)
    x = xp.minimum(xp.floor(u[..., 1] * (width - w)), width - w - 1)
    return xp.maximum(y, xp.zeros_like(y)), xp.maximum(x, xp.zeros_like(x))


@dataclasses.dataclass(frozen=True)
class PortLaw(NativeLaw):
  """The paper's reimplementation of TensorFlow's law (appendix E).

  The paper trains with this law instead of TensorFlow's op. It has the integer
  logic of the kernel, but follows Algorithm 1 and Figure 2 in two things: the
  ratio goes up to 4/3 and not 1.33, and windows also reach the bottom and right
  edges of the image.
  """

  ratio_max: float = 4 / 3

  place = Law.place


def _float32(x, xp):
  """Rounds x to float32's precision but keeps its dtype."""
  if hasattr(x, "astype"):
    return x.astype(np.float32).astype(x.dtype)
  return xp.cast(xp.cast(x, xp.float32), x.dtype)
