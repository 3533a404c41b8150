"""Laws that draw the window's area and aspect ratio, then round its sides."""

import dataclasses
import functools
import math

import numpy as np

from pp_ops.errors import UserError
from pp_ops.laws.law import Array, Law


@dataclasses.dataclass(frozen=True)
class FixedLaw(Law):
  """torchvision's `RandomResizedCrop.get_params` (Algorithm 2).

  Area uniform in [area_min, area_max], log ratio uniform in [log ratio_min,
  log ratio_max]; w and h are rounded half to even, as Python's `round` does.
  """

  def __init_subclass__(cls):
    """Makes `area_cdf` by bisection if a class changes only `area_quantile`."""
    super().__init_subclass__()
    depth = lambda name: [name in vars(c) for c in cls.__mro__].index(True)
    if depth("area_quantile") < depth("area_cdf"):
      cls.area_cdf = _inverted_quantile

  def __post_init__(self):
    super().__post_init__()
    if type(self).area_cdf is _inverted_quantile:
      x = self.area_quantile(np.linspace(0, 0.999, 1000), np)
      # The tolerance is for rounding. A NaN is refused because it fails <=.
      grows = np.all(np.diff(x) >= -1e-9)
      if not (grows and np.all(-1e-6 <= x) and np.all(x <= 1 + 1e-6)):
        raise UserError(
          f"{type(self).__name__}.area_quantile gives {np.min(x):g} to "
          f"{np.max(x):g}: need values from 0 to 1 that never fall as u grows"
        )

  def area_quantile(self, u: Array, xp) -> Array:
    """Maps a uniform to the position of the area within its range, 0..1."""
    del xp
    return u

  def area_cdf(self, x: np.ndarray) -> np.ndarray:
    """The inverse of `area_quantile`, in NumPy, 0 below 0 and 1 above 1.

    A subclass that changes `area_quantile` alone gets its inverse by bisection.
    """
    return np.clip(x, 0, 1)

  def area_range(self, height: Array, width: Array, xp) -> tuple[Array, Array]:
    """Smallest and largest target area, in pixels, for an image."""
    del xp
    return self.area_min * height * width, self.area_max * height * width

  def propose(self, u, height, width, xp):
    log_min, log_max = math.log(self.ratio_min), math.log(self.ratio_max)
    ratio = xp.exp(log_min + u[..., 0] * (log_max - log_min))
    smallest, largest = self.area_range(height, width, xp)
    area = smallest + self.area_quantile(u[..., 1], xp) * (largest - smallest)
    w = xp.round(xp.sqrt(area * ratio))
    h = xp.round(xp.sqrt(area / ratio))
    return h, w, (w > 0) & (w <= width) & (h > 0) & (h <= height)

  def fallback(self, height, width, xp):
    """The largest central window of admissible ratio (lines 15-26)."""
    ratio = width / height
    tall, wide = ratio < self.ratio_min, ratio > self.ratio_max
    h = xp.where(tall, xp.round(width / self.ratio_min), height)
    w = xp.where(wide, xp.round(height * self.ratio_max), width)
    # A side must not round to 0 pixels.
    h, w = xp.maximum(h, xp.ones_like(h)), xp.maximum(w, xp.ones_like(w))
    return xp.floor((height - h) / 2), xp.floor((width - w) / 2), h, w


def _inverted_quantile(law, x):
  x = np.asarray(x, np.float64)
  low, high = np.zeros_like(x), np.ones_like(x)
  for _ in range(52):
    middle = (low + high) / 2
    above = law.area_quantile(middle, np) > x
    low, high = np.where(above, low, middle), np.where(above, middle, high)
  return np.where(x >= 1, 1.0, np.where(x <= 0, 0.0, low))


@dataclasses.dataclass(frozen=True)
class BetaLaw(FixedLaw):
  """Beta crop (Algorithm 3): (a - a_min) / (a_max - a_min) ~ Beta(alpha, beta).

  Where the image's ratio lies outside [ratio_min, ratio_max], a_max is clipped
  to the largest area that such an image admits (appendix C). Beta(1, 1) is the
  fixed law for every other image.

  Attributes:
    alpha: first shape parameter; above 1 it makes small crops rarer.
    beta: second shape parameter; above 1 it makes large crops rarer.
  """

  alpha: float = 1.0
  beta: float = 1.0
  max_attempts: int = 100

  bounds = {**Law.bounds, "alpha": (1e-2, 1e3), "beta": (1e-2, 1e3)}

  def __post_init__(self):
    super().__post_init__()
    for name in ("alpha", "beta"):
      value = getattr(self, name)
      if not (value > 0 and math.isfinite(value)):
        raise UserError(f"{name}={value:g}: need a finite number above 0")

  def area_range(self, height: Array, width: Array, xp) -> tuple[Array, Array]:
    """Smallest and largest target area in pixels (Algorithm 3, lines 3-9)."""
    smallest, largest = super().area_range(height, width, xp)
    ratio = width / height
    clip = xp.where(
      ratio > self.ratio_max,
      self.ratio_max * height * height,
      xp.where(ratio < self.ratio_min, width * width / self.ratio_min, largest),
    )
    return smallest, xp.minimum(largest, clip)

  def area_quantile(self, u: Array, xp) -> Array:
    """Quantile function of Beta(alpha, beta), for u in [0, 1).

    It has a closed form if alpha or beta is 1, and is interpolated otherwise.
    """
    if self.alpha == 1 and self.beta == 1:
      return u
    if self.beta == 1:
      return u ** (1 / self.alpha)
    if self.alpha == 1:
      return 1 - (1 - u) ** (1 / self.beta)
    return _interpolated_beta_quantile(u, self.alpha, self.beta, xp)

  def area_cdf(self, x: np.ndarray) -> np.ndarray:
    """CDF of Beta(alpha, beta)."""
    from scipy import special

    return special.betainc(self.alpha, self.beta, np.clip(x, 0, 1))


@dataclasses.dataclass(frozen=True)
class PowerLaw(FixedLaw):
  """a = x^p with x uniform (section 4): p = 1 is the fixed law.

  p = 2 has TensorFlow's density ~ 1 / sqrt(a) without its integer logic.

  Attributes:
    p: the exponent.
  """

  p: float = 2.0

  bounds = {**Law.bounds, "p": (1e-2, 1e2)}

  def __post_init__(self):
    super().__post_init__()
    if not (self.p > 0 and math.isfinite(self.p)):
      raise UserError(f"p={self.p:g}: need a finite number above 0")

  def _roots(self):
    return self.area_min ** (1 / self.p), self.area_max ** (1 / self.p)

  def area_quantile(self, u: Array, xp) -> Array:
    """Position of x^p between area_min and area_max."""
    del xp
    if self.area_min == self.area_max:
      return u
    low, high = self._roots()
    area = (low + u * (high - low)) ** self.p
    return (area - self.area_min) / (self.area_max - self.area_min)

  def area_cdf(self, x: np.ndarray) -> np.ndarray:
    """The uniform number from which `area_quantile` makes position x."""
    low, high = self._roots()
    x = np.clip(x, 0, 1)
    if low == high:
      return x
    area = self.area_min + x * (self.area_max - self.area_min)
    return (area ** (1 / self.p) - low) / (high - low)


@functools.lru_cache(maxsize=32)
def _beta_nodes(alpha, beta, dtype, size=4097):
  """Nodes x inside (0, 1), dense at both ends, and the Beta CDF at them."""
  from scipy import special  # only a general Beta law needs it

  x = np.sin(np.linspace(0, np.pi / 2, size)) ** 2
  cdf = special.betainc(alpha, beta, x).astype(dtype)
  # Keep nodes that `dtype` can tell apart from 0, from 1 and from each other.
  inner = (np.diff(cdf, prepend=-1) > 0) & (cdf < 1)
  # Some backends flush subnormal numbers to 0.
  inner &= cdf >= np.finfo(dtype).tiny
  return x[inner].astype(dtype), cdf[inner]


def _interpolated_beta_quantile(u, alpha, beta, xp):
  """Inverse of the Beta CDF: linear between nodes, powers at the ends.

  Between nodes the density is taken as constant. Below the first node the CDF
  is taken as proportional to x^alpha, above the last one 1 - CDF to
  (1 - x)^beta.
  """
  dtype = np.dtype(getattr(u.dtype, "as_numpy_dtype", u.dtype))
  nodes, cdf = _beta_nodes(float(alpha), float(beta), dtype)
  take = xp.gather if hasattr(xp, "gather") else xp.take
  # Flattened, because TensorFlow's searchsorted needs both arguments to have
  # the same number of axes.
  flat = xp.reshape(u, [-1])
  i = xp.searchsorted(cdf[1:-1], flat, side="right")
  c0, c1 = take(cdf, i), take(cdf, i + 1)
  x0, x1 = take(nodes, i), take(nodes, i + 1)
  x = x0 + (flat - c0) / (c1 - c0) * (x1 - x0)
  low = xp.minimum(flat, cdf[0]) / cdf[0]
  high = xp.minimum(1 - flat, 1 - cdf[-1]) / (1 - cdf[-1])
  low_end = nodes[0] * low ** (1 / alpha)
  high_end = 1 - (1 - nodes[-1]) * high ** (1 / beta)
  x = xp.where(flat < cdf[0], low_end, xp.where(flat > cdf[-1], high_end, x))
  return xp.reshape(x, xp.shape(u))
