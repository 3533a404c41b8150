"""Exact distributions of the crop laws: the probability of every window size.

Nothing here samples. The distributions account for rounding, the number of
attempts and the fallback, so that samples can be tested against them.

For laws that draw the area a from a CDF F and the log ratio uniformly: with
u = sqrt(a r), v = sqrt(a / r) and L = log(ratio_max / ratio_min),

    P(u <= U, v <= V) = 1/L int F(min(U^2 / r, V^2 r)) dlog r
                      = 1/L [K(2 log V + c) - K(2 log V + log ratio_min)
                             + K(2 log U - c) - K(2 log U - log ratio_max)]

where c = log(U / V), clipped to the ratio's range, and K(s) is the integral of
F(e^t) over t up to s. Sides are rounded, so window (h, w) comes from the cell
of half a pixel around it in each direction, whose probability is a difference
of four such terms. For the fixed law F is linear and each cell's probability is
an area: the heatmap is flat.
"""

import functools

import numpy as np

from pp_ops.errors import UserError
from pp_ops.laws.area import FixedLaw, PowerLaw
from pp_ops.laws.law import Law
from pp_ops.laws.native import NativeLaw

# Tolerance for the rounding error of sums of probabilities, which must not move
# a percentile.
_EPS = 1e-12
_GAUSS = np.polynomial.legendre.leggauss(5)


class _CropScale:
  """Statistics of the crop scale.

  A subclass has an attribute `scale`, a pair of arrays: the crop scales in
  ascending order, and their probabilities.
  """

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


class ScaleTable(_CropScale):
  """A distribution of crop scales: of windows, or of unions of windows."""

  def __init__(self, scale: np.ndarray, prob: np.ndarray):
    """Takes ascending crop scales and their probabilities."""
    self.scale = scale, prob


class SizeTable(_CropScale):
  """Probabilities of the window sizes (h, w) of one image shape.

  Only sizes that can occur are stored, because an image folder may need tables
  for thousands of shapes.

  Attributes:
    height: the image's height in pixels.
    width: the image's width in pixels.
  """

  def __init__(self, height: int, width: int, prob: np.ndarray):
    """Takes [height + 1, width + 1] probabilities, see `prob`."""
    self.height, self.width = height, width
    self._cells = np.flatnonzero(prob)
    self._chances = prob.ravel()[self._cells]

  @property
  def prob(self) -> np.ndarray:
    """float64 [height + 1, width + 1]: entry (h, w) is that size's probability.

    Row 0 and column 0 are zero.
    """
    prob = np.zeros((self.height + 1, self.width + 1))
    prob.ravel()[self._cells] = self._chances
    return prob

  @functools.cached_property
  def scale(self) -> tuple[np.ndarray, np.ndarray]:
    """Distinct crop scales, ascending, and their probabilities."""
    h, w = divmod(self._cells, self.width + 1)
    area, index = np.unique(h * w, return_inverse=True)
    prob = np.bincount(index, self._chances)
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
    """Makes the law's distribution from that of a single attempt.

    Args:
      law: the law.
      height: image height in pixels.
      width: image width in pixels.
      attempt: [height + 1, width + 1], probability that one attempt gives
        (h, w) and is admissible.
    """
    self.acceptance = min(float(attempt.sum()), 1.0)
    tries, self.fallback = _tries(law, self.acceptance)
    prob = attempt * tries
    prob[_fallback_size(law, height, width)] += self.fallback
    super().__init__(height, width, prob)


def _tries(law, acceptance):
  """Expected number of attempts, and the chance that all of them fail."""
  fallback = (1 - acceptance) ** law.max_attempts
  if not 0 < acceptance < 1:
    return float(acceptance > 0), fallback
  # 1 + reject + ... + reject^(n - 1), in a form that is accurate even where
  # acceptance is tiny.
  log_reject = np.log1p(-acceptance)
  return -np.expm1(law.max_attempts * log_reject) / acceptance, fallback


def _fallback_size(law, height, width):
  _, _, h, w = law.fallback(np.float64(height), np.float64(width), np)
  return int(h), int(w)


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
    """Probability of the fallback; parts must be `SizeDistribution`s."""
    return sum(weight * t.fallback for weight, t in self.parts)

  def binned(self, edges: np.ndarray) -> np.ndarray:
    """Probability of the crop scale in each bin, its right edge included."""
    return np.diff(self.cdf(edges))

  def transposed(self) -> "Mixture":
    """The same distribution with all images and windows transposed."""
    return Mixture([(weight, t.transposed()) for weight, t in self.parts])

  def ks_distance(self, other: "Mixture") -> float:
    """Largest difference of the two CDFs of the crop scale."""
    points = np.union1d(self.scale[0], other.scale[0])
    return float(np.abs(self.cdf(points) - other.cdf(points)).max())

  def tv_distance(self, other: "Mixture") -> float:
    """Total-variation distance of (image shape, window size)."""
    mine, theirs = (
      {(t.height, t.width): (weight, t) for weight, t in m.parts}
      for m in (self, other)
    )

    def prob(parts, shape):
      weight, table = parts.get(shape, (0.0, None))
      return weight * table.prob if table else np.zeros(())

    return 0.5 * sum(
      float(np.abs(prob(mine, s) - prob(theirs, s)).sum())
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
  h, w, prob = _attempt(law, height, width, 0, height * width)
  attempt = np.bincount(
    h * (width + 1) + w, prob, minlength=(height + 1) * (width + 1)
  )
  attempt = attempt.reshape(height + 1, width + 1)
  return SizeDistribution(law, height, width, attempt)


def scale_window(
  law: Law, height: int, width: int, low: float, high: float
) -> tuple[float, np.ndarray, np.ndarray]:
  """Part of the distribution of the crop scale, without the table of sizes.

  The time is proportional to the height plus the number of window sizes whose
  scale lies in (low, high].

  Args:
    law: any law of `pp_ops.laws`.
    height: image height in pixels.
    width: image width in pixels.
    low: crop scale at which the part begins.
    high: crop scale at which the part ends.

  Returns:
    P(crop scale <= low), and the crop scales in (low, high], in no order, with
    their probabilities.

  Raises:
    ValueError: as `size_distribution`.
  """
  pixels = height * width
  low, high = (s * pixels * (1 + _EPS) for s in (low, high))
  h, w, prob = _attempt(law, height, width, low, high)
  tries, fallback = _tries(law, min(float(prob.sum()), 1.0))
  area = np.append(h * w, np.prod(_fallback_size(law, height, width)))
  prob = np.append(prob * tries, fallback)
  inside = (low < area) & (area <= high) & (prob > 0)
  return prob[area <= low].sum(), area[inside] / pixels, prob[inside]


def _attempt(law, height, width, low, high):
  """Window sizes h, w and their probabilities in one attempt, as flat arrays.

  The probability of several sizes of up to `low` pixels may be given to one of
  them, and likewise that of several sizes of more than `high` pixels.
  """
  attempt = {NativeLaw: _native_attempt, FixedLaw: _area_law_attempt}
  return attempt[_kind(law)](law, height, width, low, high)


def _kind(law):
  """The class whose `propose` the law uses: NativeLaw or FixedLaw."""
  for kind in (NativeLaw, FixedLaw):
    # A subclass with a `propose` of its own has some other distribution.
    if type(law).propose is kind.propose:
      return kind
  raise UserError(
    f"{type(law).__name__} has no exact distribution: its proposals are "
    "neither NativeLaw's nor FixedLaw's"
  )


def _ranges(first, last):
  """All pairs (i, k) with integer k from first[i] to last[i], as two arrays."""
  count = np.maximum(last - first + 1, 0).astype(int)
  i = np.repeat(np.arange(len(count)), count)
  start = np.cumsum(count) - count
  return i, (np.arange(len(i)) - start[i] + first[i]).astype(int)


def _area_law_attempt(law, height, width, low, high):
  """`_attempt` of FixedLaw and its subclasses.

  Windows of one height form a row, in order of width.
  """
  sizes = np.arange(1, height + 1)
  # For each row, the widths that the ratios allow.
  widths = lambda a: np.clip(a, 0, width).astype(int)
  narrow = widths(np.floor(law.ratio_min * (sizes - 0.5)) - 1)
  wide = widths(np.ceil(law.ratio_max * (sizes + 0.5)) + 1)
  first, last = (np.clip(a // sizes, narrow, wide) for a in (low, high))
  row, w = _ranges(first - 1, last + 1)
  ends = np.flatnonzero(np.diff(row, prepend=-1, append=height))
  w[ends[:-1]], w[ends[1:] - 1] = narrow, wide
  h = sizes[row]

  lowest, highest = law.area_range(np.float64(height), np.float64(width), np)
  area_cdf = _area_cdf(law, lowest, highest)
  log_min, log_max = np.log(law.ratio_min), np.log(law.ratio_max)
  log_u = np.log(w + 0.5)
  log_v = np.log(h + np.array([[0.5], [-0.5]]))  # both ends of each row's cells
  cut = np.clip(log_u - log_v, log_min, log_max)
  u_end, v_end = 2 * log_u - cut, 2 * log_v + cut
  if law.ratio_min == law.ratio_max:
    below = area_cdf(np.exp(np.minimum(u_end, v_end)))
  else:
    ends = [v_end, 2 * log_v + log_min, u_end]
    kinks = np.log([a for a in (lowest, highest) if a > 0])
    k = _integral(lambda s: area_cdf(np.exp(s)), ends, kinks)
    # The term K(2 log U - log ratio_max) is left out, because it is the same at
    # both ends of a row's cells and cancels in the difference below.
    below = (k[0] - k[1] + k[2]) / (log_max - log_min)
  prob = np.diff(below[0] - below[1])
  # A probability below 1e-12 is rounding noise: that of an impossible cell is a
  # difference of numbers near 1.
  some = (np.diff(row) == 0) & (prob >= 1e-12)
  return h[1:][some], w[1:][some], prob[some]


def _area_cdf(law, first, last):
  """CDF of the target area first + x * (last - first), x ~ `law.area_cdf`."""
  if first == last:
    return lambda a: (a >= first).astype(np.float64)
  if first < last:
    return lambda a: law.area_cdf((a - first) / (last - first))
  # In a Beta law the clipped maximum may lie below the minimum. Then the area
  # falls as x grows.
  return lambda a: 1 - law.area_cdf((a - first) / (last - first))


def _integral(f, ends, kinks):
  """Integrals of f from a common start up to each entry of `ends`.

  Gauss-Legendre quadrature on the intervals between consecutive ends. Further
  points divide long intervals, and crowd towards `kinks`, where f bends.
  """
  flat = np.concatenate([e.ravel() for e in ends])
  crowd = np.logspace(-12, 0, 200)
  extra = [np.arange(flat.min(), flat.max(), 0.02)]
  extra += [k + sign * crowd for k in kinks for sign in (-1, 1)]
  points = np.concatenate([flat, kinks, *extra])
  points = points[(points >= flat.min()) & (points <= flat.max())]
  points = np.unique(points)
  nodes, weights = _GAUSS
  half = np.diff(points)[:, None] / 2
  middle = (points[1:] + points[:-1])[:, None] / 2
  pieces = (f(middle + half * nodes) * weights * half).sum(1)
  total = np.concatenate([[0.0], np.cumsum(pieces)])
  return [total[np.searchsorted(points, e)] for e in ends]


def _native_attempt(law, height, width, low, high):
  """`_attempt` of TensorFlow's law.

  For a given drawn height, the window is a piecewise constant function of the
  ratio: it changes only at breakpoints, where some rounding flips. Each piece
  is evaluated at its middle.
  """
  shape = np.float64(height), np.float64(width)
  lo, hi = law.ratio_min, law.ratio_max
  areas = law.area_range(*shape, np)
  inside = lambda r: (r > lo) & (r < hi)

  # The ratios at which the range of the drawn heights changes.
  common = []
  for pixels in areas:
    sides = np.arange(
      np.floor(np.sqrt(pixels / hi)), np.ceil(np.sqrt(pixels / lo)) + 2
    )
    sides -= 0.5
    common.append(pixels / sides[sides > 0] ** 2)
  for edge in (width + 0.5, width + 0.5 - 1e-7):
    k = np.arange(np.floor(edge / hi), np.ceil(edge / lo) + 1)
    common.append(edge / k[k > 0])
  common = np.concatenate(common)
  common = np.unique(np.concatenate([[lo, hi], common[inside(common)]]))
  shortest, tallest = law.height_range(
    (common[1:] + common[:-1]) / 2, *shape, np
  )
  # Integral over the ratio of 1 / (number of heights to draw from), divided by
  # the ratio's range: the probability of any one height.
  total = np.cumsum(np.diff(common) / (tallest - shortest + 1))
  total = np.concatenate([[0.0], total]) / max(hi - lo, 1e-300)

  at_ends = law.height_range(np.array([hi, lo]), *shape, np)
  drawn = np.arange(at_ends[0][0], min(at_ends[1].max(), height) + 1)
  # Breakpoints for each drawn height: the ratios between which it is drawn, and
  # those at which a window of this height, one pixel less or one pixel more
  # changes its width or its admissibility.
  breaks = []
  for side, lower in ((shortest, 0), (tallest, 1)):
    least = np.minimum(side[1:], side[:-1]) + lower
    most = np.maximum(side[1:], side[:-1]) - 1 + lower
    i, h = _ranges(least, most)
    breaks.append((h, common[i + 1]))
  h = np.arange(max(drawn[0] - 1, 1), drawn[-1] + 2)
  from_low, to_high = (
    np.clip(np.floor(a / h), np.floor(h * lo), np.ceil(h * hi))
    for a in (low, high)
  )
  steps = [(np.ceil(areas[0] / h), 0), (np.floor(areas[1] / h) + 1, 0)]
  steps += [(np.ones_like(h), 0), (np.full_like(h, width + 1), 0)]
  steps += [(from_low, to_high - from_low + 1)]
  for first, more in steps:
    i, k = _ranges(first, first + more)
    ratio = (k - 0.5) / h[i]
    breaks += [(h[i] + d, ratio) for d in (-1, 0, 1)]
  breaks += [(drawn, np.full_like(drawn, r)) for r in (lo, hi)]
  d, ratio = (np.concatenate(x) for x in zip(*breaks, strict=True))
  some = (ratio >= lo) & (ratio <= hi) & (d >= drawn[0]) & (d <= drawn[-1])
  d, ratio = d[some], ratio[some]
  order = np.lexsort((ratio, d))
  d, ratio = d[order], ratio[order]

  chance = np.diff(np.interp(ratio, common, total))
  some = (np.diff(d) == 0) & (chance > 0)
  d, chance = d[1:][some], chance[some]
  ratio = ((ratio[1:] + ratio[:-1]) / 2)[some]
  # The kernel's uniforms are multiples of 2^-23. One in 2^23 is 0 and gives
  # exactly ratio_min, where products may be ties that round differently from
  # the piece beside it.
  atom = 1.0 if lo == hi else 2**-23
  least, most = law.height_range(np.float64(lo), *shape, np)
  d = np.concatenate([d, drawn])
  ratio = np.concatenate([ratio, np.full_like(drawn, lo)])
  chance = np.concatenate(
    [chance * (1 - atom), np.full_like(drawn, atom / (most - least + 1))]
  )
  least, most = law.height_range(ratio, *shape, np)
  h, w, ok = law.repair(d, ratio, *shape, np)
  ok &= (least <= d) & (d <= most)
  return h[ok].astype(int), w[ok].astype(int), chance[ok]


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
