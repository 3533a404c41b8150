"""Exact distributions of the crop laws: the probability of every window size.

Nothing here samples. A law's attempt, its rounding, the number of attempts and
the fallback are all accounted for, so that samples can be tested against it.

For laws that draw the area a from a CDF F and the log ratio uniformly: with
u = sqrt(a r), v = sqrt(a / r) and L = log(ratio_max / ratio_min),

    P(u <= U, v <= V) = 1/L int F(min(U^2 / r, V^2 r)) dlog r
                      = 1/L [K(2 log V + c) - K(2 log V + log ratio_min)
                             + K(2 log U - c) - K(2 log U - log ratio_max)]

where c = log(U / V), clipped to the ratio's range, and K(s) is the integral of
F(e^t) over t up to s. A window (h, w) is the cell of half a pixel around it,
so its probability is a difference of four such terms. For the fixed law F is
linear and each cell's probability is an area: the heatmap is flat.
"""

import functools

import numpy as np

from pp_ops.errors import UserError
from pp_ops.laws.area import FixedLaw, PowerLaw
from pp_ops.laws.law import Law
from pp_ops.laws.native import NativeLaw

# Sums of probabilities are off by as much; a percentile must not notice.
_EPS = 1e-12


class _CropScale:
  """What follows from `self.scale`: ascending crop scales and their chances."""

  def mean_scale(self) -> float:
    """Mean crop scale (area of the window / area of the image)."""
    scale, prob = self.scale
    return float(scale @ prob)

  def percentile(self, q: float) -> float:
    """Smallest crop scale s with P(scale <= s) >= q / 100."""
    scale, prob = self.scale
    index = np.searchsorted(np.cumsum(prob), q / 100 - _EPS)
    return float(scale[min(index, len(scale) - 1)])

  def cdf(self, s: np.ndarray) -> np.ndarray:
    """P(crop scale <= s)."""
    scale, prob = self.scale
    index = np.searchsorted(scale, np.asarray(s) * (1 + _EPS), side="right")
    return np.concatenate([[0.0], np.cumsum(prob)])[index]


class SizeTable(_CropScale):
  """Probabilities of the window sizes (h, w) of one image shape.

  Attributes:
    height: the image's height in pixels.
    width: the image's width in pixels.
    prob: [height + 1, width + 1] float64; prob[h, w] is the probability of that
      window. Row and column 0 are zero.
  """

  def __init__(self, height: int, width: int, prob: np.ndarray):
    self.height, self.width, self.prob = height, width, prob

  @functools.cached_property
  def scale(self) -> tuple[np.ndarray, np.ndarray]:
    """Distinct crop scales, ascending, and their probabilities."""
    h, w = np.nonzero(self.prob)
    area, index = np.unique(h * w, return_inverse=True)
    prob = np.bincount(index, self.prob[h, w])
    return area / (self.height * self.width), prob

  def transposed(self) -> "SizeTable":
    """The same windows of the transposed image."""
    return SizeTable(self.width, self.height, self.prob.T)


class SizeDistribution(SizeTable):
  """The exact distribution of the window size for one law and image shape.

  Attributes:
    acceptance: probability that one attempt is admissible.
    fallback: probability that all attempts fail.
  """

  def __init__(self, law, height, width, attempt):
    """Adds attempts and fallback to the probabilities of one attempt.

    Args:
      law: the law.
      height: image height in pixels.
      width: image width in pixels.
      attempt: [height + 1, width + 1], chance that an attempt gives (h, w) and
        is admissible.
    """
    self.acceptance = min(float(attempt.sum()), 1.0)
    reject = 1 - self.acceptance
    self.fallback = reject**law.max_attempts
    # 1 + reject + ... + reject^(n - 1), also where acceptance is tiny.
    tries = (
      -np.expm1(law.max_attempts * np.log1p(-self.acceptance)) / self.acceptance
      if 0 < self.acceptance < 1
      else (1.0 if self.acceptance else 0.0)
    )
    super().__init__(height, width, attempt * tries)
    _, _, h, w = law.fallback(np.float64(height), np.float64(width), np)
    self.prob[int(h), int(w)] += self.fallback


class Mixture(_CropScale):
  """Crop scale and window size averaged over images of several shapes."""

  def __init__(self, parts: list[tuple[float, SizeTable]]):
    """Averages `parts`, (weight, distribution) with weights that sum to 1."""
    self.parts = parts
    weighted = [(t.scale[0], weight * t.scale[1]) for weight, t in parts]
    scale, index = np.unique(
      np.concatenate([s for s, _ in weighted]), return_inverse=True
    )
    self.scale = (
      scale,
      np.bincount(index, np.concatenate([p for _, p in weighted])),
    )

  @property
  def fallback(self) -> float:
    """Probability of the fallback, for parts that know it."""
    return sum(weight * t.fallback for weight, t in self.parts)

  def binned(self, edges: np.ndarray) -> np.ndarray:
    """Probability that the crop scale falls into each bin, right end in."""
    return np.diff(self.cdf(edges))

  def transposed(self) -> "Mixture":
    """The same for the transposed images."""
    return Mixture([(weight, t.transposed()) for weight, t in self.parts])

  def ks_distance(self, other: "Mixture") -> float:
    """Largest difference of the two CDFs of the crop scale."""
    points = np.union1d(self.scale[0], other.scale[0])
    return float(np.abs(self.cdf(points) - other.cdf(points)).max())

  def tv_distance(self, other: "Mixture") -> float:
    """Total-variation distance of (image shape, window size)."""
    mine, theirs = (
      {(t.height, t.width): weight * t.prob for weight, t in m.parts}
      for m in (self, other)
    )
    zero = np.zeros(())
    return 0.5 * sum(
      float(np.abs(mine.get(s, zero) - theirs.get(s, zero)).sum())
      for s in mine.keys() | theirs.keys()
    )


@functools.lru_cache(maxsize=64)
def size_distribution(law: Law, height: int, width: int) -> SizeDistribution:
  """The exact distribution of the window size.

  Args:
    law: any law of `pp_ops.laws`.
    height: image height in pixels.
    width: image width in pixels.

  Returns:
    The distribution.

  Raises:
    ValueError: if the law is of a kind that has no exact distribution here.
  """
  attempt = {NativeLaw: _native_attempt, FixedLaw: _area_law_attempt}
  return SizeDistribution(
    law, height, width, attempt[_kind(law)](law, height, width)
  )


def _kind(law):
  """The class by whose proposals the law is integrated."""
  for kind in (NativeLaw, FixedLaw):
    # Proposals of a subclass's own follow some other distribution.
    if type(law).propose is kind.propose:
      return kind
  raise UserError(
    f"{type(law).__name__} has no exact distribution: its proposals are "
    "neither NativeLaw's nor FixedLaw's"
  )


def _area_law_attempt(law, height, width):
  """Chance of each admissible (h, w) in one attempt of an area law."""
  big_h, big_w = np.float64(height), np.float64(width)
  area_cdf = _area_cdf(law, *law.area_range(big_h, big_w, np))
  log_min, log_max = np.log(law.ratio_min), np.log(law.ratio_max)
  log_v = np.log(np.arange(height + 1) + 0.5)[:, None]
  log_u = np.log(np.arange(width + 1) + 0.5)[None, :]
  cut = np.clip(log_u - log_v, log_min, log_max)
  tall, wide = 2 * log_v + cut, 2 * log_u - cut
  if law.ratio_min == law.ratio_max:
    below = area_cdf(np.exp(np.minimum(tall, wide)))
  else:
    ends = [tall, 2 * log_v + log_min, wide, 2 * log_u - log_max]
    kinks = np.log([a for a in law.area_range(big_h, big_w, np) if a > 0])
    k = _integral(lambda s: area_cdf(np.exp(s)), ends, kinks)
    below = (k[0] - k[1] + k[2] - k[3]) / (log_max - log_min)
  attempt = np.zeros((height + 1, width + 1))
  attempt[1:, 1:] = np.diff(np.diff(below, axis=0), axis=1)
  # Differences of numbers near 1 leave noise where a cell is impossible.
  attempt[attempt < 1e-12] = 0
  return attempt


def _area_cdf(law, first, last):
  """CDF of the target area first + x * (last - first), x ~ the law's."""
  if first == last:
    return lambda a: (a >= first).astype(np.float64)
  if first < last:
    return lambda a: law.area_cdf((a - first) / (last - first))
  # A Beta law whose clipped maximum lies below its minimum.
  return lambda a: 1 - law.area_cdf((a - first) / (last - first))


def _integral(f, ends, kinks):
  """Integrals of f from a common start up to each entry of `ends`.

  Gauss-Legendre between consecutive ends, and where these lie far apart or f
  bends (at `kinks`, towards which the points crowd) also between others.
  """
  flat = np.concatenate([e.ravel() for e in ends])
  crowd = np.logspace(-12, 0, 200)
  extra = [np.arange(flat.min(), flat.max(), 0.02)]
  extra += [k + sign * crowd for k in kinks for sign in (-1, 1)]
  points = np.concatenate([flat, kinks, *extra])
  points = points[(points >= flat.min()) & (points <= flat.max())]
  points = np.unique(points)
  nodes, weights = np.polynomial.legendre.leggauss(5)
  half = np.diff(points)[:, None] / 2
  middle = (points[1:] + points[:-1])[:, None] / 2
  pieces = (f(middle + half * nodes) * weights * half).sum(1)
  total = np.concatenate([[0.0], np.cumsum(pieces)])
  return [total[np.searchsorted(points, e)] for e in ends]


def _native_attempt(law, height, width):
  """Chance of each admissible (h, w) in one attempt of TensorFlow's law.

  For a drawn height everything is constant in the ratio between breakpoints,
  where some rounding tips over; each piece is evaluated at its middle.
  """
  big_h, big_w = np.float64(height), np.float64(width)
  lo, hi = law.ratio_min, law.ratio_max
  inside = lambda r: r[(r > lo) & (r < hi)]

  def half_integers(first, last):
    return np.arange(np.floor(first), np.ceil(last) + 2) - 0.5

  common = [np.array([lo, hi])]
  for pixels in law.area_range(big_h, big_w, np):
    sides = half_integers(np.sqrt(pixels / hi), np.sqrt(pixels / lo))
    common.append(pixels / sides[sides > 0] ** 2)
  for edge in (width + 0.5, width + 0.5 - 1e-7):
    k = np.arange(np.floor(edge / hi), np.ceil(edge / lo) + 1)
    common.append(edge / k[k > 0])
  common = np.concatenate([common[0], *map(inside, common[1:])])

  attempt = np.zeros((height + 1, width + 1))
  all_low, all_high = law.height_range(np.array([hi, lo]), big_h, big_w, np)
  for drawn in range(int(all_low[0]), int(min(all_high.max(), height)) + 1):
    breaks = [common]
    for h in (drawn - 1, drawn, drawn + 1):
      if h > 0:
        breaks.append(inside(half_integers(h * lo, h * hi) / h))
    points = np.unique(np.concatenate(breaks))
    if lo == hi:
      ratio, chance = np.array([lo]), np.ones(1)
    else:
      # The kernel's uniforms are multiples of 2^-23: one in so many is 0, the
      # least ratio itself, where products tie and round another way.
      ratio = np.concatenate([[lo], (points[1:] + points[:-1]) / 2])
      chance = np.diff(points) / (hi - lo) * (1 - 2**-23)
      chance = np.concatenate([[2**-23], chance])
    low, high = law.height_range(ratio, big_h, big_w, np)
    h, w, ok = law.repair(np.full_like(ratio, drawn), ratio, big_h, big_w, np)
    ok &= (low <= drawn) & (drawn <= high)
    np.add.at(
      attempt,
      (h[ok].astype(int), w[ok].astype(int)),
      (chance / (high - low + 1))[ok],
    )
  return attempt


def ideal_cdf(law: Law, scale: float) -> float:
  """P(crop scale <= scale) without an image: no rejection, no rounding.

  Args:
    law: any law of `pp_ops.laws`. TensorFlow's is the power law with p = 2
      (section 4).
    scale: crop scale.

  Returns:
    The probability.

  Raises:
    ValueError: as `size_distribution`.
  """
  if _kind(law) is NativeLaw:
    law = PowerLaw(law.area_min, law.area_max)
  return float(_area_cdf(law, law.area_min, law.area_max)(np.float64(scale)))
