"""Crop laws: random numbers -> window (y, x, h, w), as array maths.

A law is what decides where a crop falls. Each law is one frozen dataclass whose
methods take arrays and the namespace to compute in, `xp` = `numpy`,
`tensorflow` or `jax.numpy`; this file imports none of the latter two. The same
definition therefore trains (`pp_ops.crops`), is sampled and is measured.

A law proposes (h, w) from uniforms until a proposal is admissible, at most
`max_attempts` times, then falls back; an admitted window is placed uniformly.

Units: areas are fractions of the image ("crop scale"), ratios are
width / height, windows are whole pixels held in the uniforms' float dtype.
Source: "You May Be Running the Wrong Inception Crop", Algorithms 1, 2 and 3.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import numpy as np

Array = Any


def check_range(low_name, low, high_name, high, limit=math.inf, unit=""):
  """Raises a one-line ValueError unless 0 <= low <= high <= limit, high > 0."""
  if not (0 <= low <= high <= limit and high > 0 and math.isfinite(high)):
    bounds = f"0 <= {low_name} <= {high_name}"
    bounds += f" <= {limit:g}" if math.isfinite(limit) else ""
    raise ValueError(
      f"{low_name}={low:g}, {high_name}={high:g}: need {bounds} and "
      f"{high_name} > 0{unit}"
    )


@dataclasses.dataclass(frozen=True)
class Law:
  """What all laws share: ranges, and where an admitted window is placed.

  Attributes:
    area_min: smallest crop scale.
    area_max: largest crop scale.
    ratio_min: smallest width / height.
    ratio_max: largest width / height.
    max_attempts: proposals before the fallback.
  """

  area_min: float = 0.05
  area_max: float = 1.0
  ratio_min: float = 3 / 4
  ratio_max: float = 4 / 3
  max_attempts: int = 10

  draws: ClassVar[int] = 2  # uniforms consumed by one proposal

  def __post_init__(self):
    check_range("area_min", self.area_min, "area_max", self.area_max, 1.0)
    check_range("ratio_min", self.ratio_min, "ratio_max", self.ratio_max)
    if self.ratio_min <= 0:
      raise ValueError(f"ratio_min={self.ratio_min:g}: need a ratio above 0")
    if self.max_attempts < 1:
      raise ValueError(f"max_attempts={self.max_attempts}: need at least 1")

  def propose(
    self, u: Array, height: Array, width: Array, xp
  ) -> tuple[Array, Array, Array]:
    """One attempt.

    Args:
      u: [..., draws] uniforms in [0, 1): for the ratio, then for the size.
      height: image height in pixels, u's float dtype, broadcasts against [...].
      width: image width, likewise.
      xp: the array namespace.

    Returns:
      h, w: [...] the proposed window, and ok: [...] bool, whether it is
      admissible.
    """
    raise NotImplementedError

  def fallback(
    self, height: Array, width: Array, xp
  ) -> tuple[Array, Array, Array, Array]:
    """The window (y, x, h, w) that is used when no attempt succeeds."""
    raise NotImplementedError

  def place(
    self, u: Array, h: Array, w: Array, height: Array, width: Array, xp
  ) -> tuple[Array, Array]:
    """Places a window uniformly over its integer offsets.

    Args:
      u: [..., 2] uniforms in [0, 1), for y and x.
      h: [...] window height.
      w: [...] window width.
      height: image height.
      width: image width.
      xp: the array namespace.

    Returns:
      y, x: [...] offsets in 0..height-h and 0..width-w, ends included.
    """
    # u * n can round up to n in float32, hence the minimum.
    y = xp.minimum(xp.floor(u[..., 0] * (height - h + 1)), height - h)
    x = xp.minimum(xp.floor(u[..., 1] * (width - w + 1)), width - w)
    return y, x

  def window(
    self, u: Array, v: Array, height: Array, width: Array, xp
  ) -> tuple[Array, Array, Array, Array, Array]:
    """The whole law: the first admissible proposal, placed, or the fallback.

    Args:
      u: [..., max_attempts, draws] uniforms in [0, 1) for the proposals.
      v: [..., 2] uniforms in [0, 1) for the place.
      height: image height in pixels, u's float dtype, scalar or [...].
      width: image width, likewise.
      xp: the array namespace.

    Returns:
      y, x, h, w: [...] whole numbers of u's dtype, and fell_back: [...] bool.
    """
    # Shapes [...] against [..., max_attempts].
    ones = xp.ones_like(u[..., 0, 0])
    height, width = height * ones, width * ones
    h, w, ok = self.propose(u, height[..., None], width[..., None], xp)
    zero = xp.zeros_like(h)
    first = ok & (xp.cumsum(xp.where(ok, zero + 1, zero), -1) == 1)
    # A sum over attempts that has the same name everywhere.
    pick = lambda a: xp.einsum("...a->...", xp.where(first, a, zero))
    fell_back = pick(zero + 1) == 0
    h, w = pick(h), pick(w)
    y, x = self.place(v, h, w, height, width, xp)
    central = self.fallback(height, width, xp)
    choose = lambda a, b: xp.where(fell_back, b, a)
    return *map(choose, (y, x, h, w), central), fell_back


@dataclasses.dataclass(frozen=True)
class NativeLaw(Law):
  """TensorFlow's `sample_distorted_bounding_box` (Algorithm 1).

  With the integer logic of its kernel, which the paper omits: ratio uniform,
  height uniform over a closed integer range, one-pixel corrections, full image
  after `max_attempts`; and an offset that never takes its last value.
  """

  ratio_max: float = 1.33  # TensorFlow's default is not 4 / 3.
  max_attempts: int = 100

  def __post_init__(self):
    super().__post_init__()
    if self.area_min <= 0:
      raise ValueError("area_min=0: TensorFlow's op needs an area above 0")

  def propose(self, u, height, width, xp):
    ratio = self.ratio_min + u[..., 0] * (self.ratio_max - self.ratio_min)
    low, high = self.height_range(ratio, height, width, xp)
    h = xp.minimum(low + xp.floor(u[..., 1] * (high - low + 1)), high)
    return self.repair(h, ratio, height, width, xp)

  def height_range(
    self, ratio: Array, height: Array, width: Array, xp
  ) -> tuple[Array, Array]:
    """Least and greatest height that is drawn at a ratio; both can be."""
    smallest = self.area_min * height * width
    largest = self.area_max * height * width
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
    smallest = self.area_min * height * width
    largest = self.area_max * height * width
    # Rounding may have left the area range by a pixel: try one more, one less.
    h = xp.where(h * xp.round(h * ratio) < smallest, h + 1, h)
    h = xp.where(h * xp.round(h * ratio) > largest, h - 1, h)
    w = xp.round(h * ratio)
    ok = (h * w >= smallest) & (h * w <= largest)
    return h, w, ok & (w > 0) & (w <= width) & (h > 0) & (h <= height)

  def fallback(self, height, width, xp):
    zero = xp.zeros_like(height)
    return zero, zero, height, width

  def place(self, u, h, w, height, width, xp):
    # The kernel draws from 0..height-h-1: the last offset is left out.
    y = xp.minimum(xp.floor(u[..., 0] * (height - h)), height - h - 1)
    x = xp.minimum(xp.floor(u[..., 1] * (width - w)), width - w - 1)
    return xp.maximum(y, xp.zeros_like(y)), xp.maximum(x, xp.zeros_like(x))


@dataclasses.dataclass(frozen=True)
class FixedLaw(Law):
  """torchvision's `RandomResizedCrop.get_params` (Algorithm 2).

  Area uniform in [area_min, area_max], log ratio uniform in [log ratio_min,
  log ratio_max]; w and h are rounded half to even, as Python's `round` does.
  """

  def area_quantile(self, u: Array, xp) -> Array:
    """Maps a uniform to the position of the area within its range, 0..1."""
    del xp
    return u

  def area_cdf(self, x: np.ndarray) -> np.ndarray:
    """The inverse of `area_quantile`, in NumPy, 0 below 0 and 1 above 1.

    Found by bisection unless a subclass knows better.
    """
    x = np.asarray(x, np.float64)
    low, high = np.zeros_like(x), np.ones_like(x)
    for _ in range(52):
      middle = (low + high) / 2
      above = self.area_quantile(middle, np) > x
      low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(x >= 1, 1.0, np.where(x <= 0, 0.0, low))

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
    """Centre: the largest window of admissible ratio (lines 15-26)."""
    ratio = width / height
    tall, wide = ratio < self.ratio_min, ratio > self.ratio_max
    h = xp.where(tall, xp.round(width / self.ratio_min), height)
    w = xp.where(wide, xp.round(height * self.ratio_max), width)
    # A one-pixel side must not round to none.
    h, w = xp.maximum(h, xp.ones_like(h)), xp.maximum(w, xp.ones_like(w))
    return xp.floor((height - h) / 2), xp.floor((width - w) / 2), h, w


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

  def __post_init__(self):
    super().__post_init__()
    for name in ("alpha", "beta"):
      value = getattr(self, name)
      if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}={value:g}: need a finite number above 0")

  def area_range(self, height: Array, width: Array, xp) -> tuple[Array, Array]:
    """Algorithm 3, lines 3-9."""
    smallest, largest = super().area_range(height, width, xp)
    ratio = width / height
    clip = xp.where(
      ratio > self.ratio_max,
      self.ratio_max * height * height,
      xp.where(ratio < self.ratio_min, width * width / self.ratio_min, largest),
    )
    return smallest, xp.minimum(largest, clip)

  def area_quantile(self, u: Array, xp) -> Array:
    """Quantile function of Beta(alpha, beta), closed form where one is 1."""
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
    p: the power.
  """

  p: float = 2.0

  def __post_init__(self):
    super().__post_init__()
    if not (self.p > 0 and math.isfinite(self.p)):
      raise ValueError(f"p={self.p:g}: need a finite number above 0")

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


@functools.lru_cache(maxsize=32)
def _beta_nodes(alpha, beta, dtype, size=4097):
  """Inner nodes x, dense at both ends, and the Beta CDF there, in `dtype`."""
  from scipy import special  # only a general Beta law needs it

  x = np.sin(np.linspace(0, np.pi / 2, size)) ** 2
  cdf = special.betainc(alpha, beta, x).astype(dtype)
  # Keep nodes that `dtype` can tell apart from 0, from 1 and from each other.
  inner = (np.diff(cdf, prepend=-1) > 0) & (cdf < 1)
  inner &= cdf >= np.finfo(dtype).tiny  # some backends flush smaller ones
  return x[inner].astype(dtype), cdf[inner]


def _interpolated_beta_quantile(u, alpha, beta, xp):
  """Inverse of the Beta CDF: linear between nodes, powers at the ends.

  Below the first node and above the last the CDF follows its leading power;
  between nodes the density is taken as constant.
  """
  dtype = np.dtype(getattr(u.dtype, "as_numpy_dtype", u.dtype))
  nodes, cdf = _beta_nodes(float(alpha), float(beta), dtype)
  take = xp.gather if hasattr(xp, "gather") else xp.take
  # TensorFlow's searchsorted wants as many axes in both arguments.
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


# Each law becomes the crop op of that name (`pp_ops.crops`).
LAWS = {
  "inception_crop": NativeLaw,
  "inception_crop_fixed": FixedLaw,
  "beta_crop": BetaLaw,
  "power_crop": PowerLaw,
}


def sample(
  law: Law,
  num: int,
  height: int,
  width: int,
  rng: np.random.Generator,
  chunk: int = 1 << 16,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Draws windows of one image shape with NumPy.

  Works in chunks that fit the cache and draws again only what was rejected.

  Args:
    law: the law.
    num: how many windows.
    height: image height in pixels.
    width: image width in pixels.
    rng: source of the uniforms.
    chunk: windows per pass.

  Returns:
    y, x, h, w: [num] int32, and fell_back: [num] bool.
  """
  out = np.empty((4, num), np.int32)
  fell_back = np.zeros(num, bool)
  big_h, big_w = np.float64(height), np.float64(width)
  for start in range(0, num, chunk):
    window = out[:, start : start + chunk]
    todo = np.arange(window.shape[1])
    for _ in range(law.max_attempts):
      h, w, ok = law.propose(
        rng.random((len(todo), law.draws)), big_h, big_w, np
      )
      window[2, todo], window[3, todo] = h, w
      todo = todo[~ok]
      if not len(todo):
        break
    y, x = law.place(
      rng.random((window.shape[1], 2)), window[2], window[3], big_h, big_w, np
    )
    window[0], window[1] = y, x
    if len(todo):
      central = law.fallback(big_h, big_w, np)
      window[:, todo] = np.reshape(central, (4, 1))
      fell_back[start + todo] = True
  return (*out, fell_back)
