"""The statistical tests of a report.

Unpaired tests are Student's two-sided test with equal variances, as in the
paper's Tables 9-14, and need means and standard deviations only; Welch's test,
for unequal variances, needs the values. Paired tests
need the values by seed. Runs that share a seed share their initial parameters,
the order of their examples and the uniform random numbers of their
augmentation, so that the variance of their difference is that of the factor's
effect alone.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

LEVEL = 0.95  # of confidence intervals
POWER = 0.8


class Cell(NamedTuple):
  """One metric of one setting.

  Attributes:
    mean: over seeds; None if no seed has a value.
    std: sample standard deviation (n - 1); None if fewer than two have.
    n: number of seeds with a value.
    wanted: number of seeds that the study asks for.
    values: {seed: value}; empty where only mean and std are known.
  """

  mean: float | None
  std: float | None
  n: int
  wanted: int
  values: dict[int, float]


def cell(values: dict[int, float], wanted: int) -> Cell:
  """Makes a cell of {seed: value}."""
  x = np.array([values[k] for k in sorted(values)])
  if len(x) and np.ptp(x) == 0:
    # Rounding in the mean would make a deviation of about 1e-17.
    mean, std = x[0], 0.0
  elif len(x):
    mean, std = x.mean(), x.std(ddof=1)
  return Cell(
    mean=float(mean) if len(x) else None,
    std=float(std) if len(x) > 1 else None,
    n=len(x),
    wanted=wanted,
    values=values,
  )


class Difference(NamedTuple):
  """Statistics of a difference b - a.

  Attributes:
    mean: the difference of the means; None if one is missing.
    std: sqrt(s_a^2 + s_b^2), the standard deviation of an unpaired difference.
    p: p-value of the unpaired test.
    pairs: number of seeds that both have.
    paired_std: standard deviation of the paired differences.
    paired_p: p-value of the paired test.
    low: lower end of the 95% confidence interval: the paired one if there are
      at least two pairs and no other seeds, else the unpaired one.
    high: its upper end.
    sees: the true difference that the test whose interval is given would find
      at p < 0.05 with a probability of 80%.
  """

  mean: float | None = None
  std: float | None = None
  p: float | None = None
  pairs: int = 0
  paired_std: float | None = None
  paired_p: float | None = None
  low: float | None = None
  high: float | None = None
  sees: float | None = None

  @property
  def variance_left(self) -> float | None:
    """Variance of the paired difference over that of the unpaired one."""
    if not self.std or self.paired_std is None:
      return None
    return (self.paired_std / self.std) ** 2


def compare(a: Cell, b: Cell) -> Difference:
  """Tests b against a. A field is None if there are too few runs for it."""
  return average([(a, b)])


def welch(a: Cell, b: Cell) -> Difference:
  """As `compare`, but p and the interval are Welch's: unequal variances."""
  d = compare(a, b)
  if d.std is None:
    return d
  if d.std == 0:  # nothing for SciPy to divide by
    return d._replace(p=_p(d.mean, 0, 1), low=d.mean, high=d.mean, sees=None)
  x, y = (list(c.values.values()) for c in (a, b))
  test = stats.ttest_ind(y, x, equal_var=False)
  low, high = map(float, test.confidence_interval(LEVEL))
  # Tables of Welch's test do not show `sees`, which is of another test.
  return d._replace(p=float(test.pvalue), low=low, high=high, sees=None)


def average(pairs: list[tuple[Cell, Cell]]) -> Difference:
  """Tests whether b - a is 0 on average over several settings.

  Variances are pooled over the settings, and the degrees of freedom add up.
  With one setting this is `scipy.stats.ttest_ind(equal_var=True)` and
  `scipy.stats.ttest_rel`.

  Args:
    pairs: (a, b) of each setting. Settings with a missing mean are left out.
  """
  return contrast([[(-1.0, a), (1.0, b)] for a, b in pairs])


def contrast(settings: list[list[tuple[float, Cell]]]) -> Difference:
  """Tests a weighted sum of cells, averaged over settings, against 0.

  Args:
    settings: for each setting a list of (weight, cell), with the same weights
      in all settings.

  Returns:
    A difference whose `mean` is the average of the weighted sums. `std` is the
    standard deviation of one seed's weighted sum if the cells are independent,
    that is, do not share seeds; the root mean square over the settings.
  """
  settings = [s for s in settings if all(c.mean is not None for _, c in s)]
  if not settings:
    return Difference()
  count = len(settings)
  mean = sum(w * c.mean for s in settings for w, c in s) / count
  found = {"mean": mean}
  cells = [(w, c) for s in settings for w, c in s]
  if all(c.std is not None for _, c in cells):
    free = sum(c.n - 1 for _, c in cells)
    pooled = sum((c.n - 1) * c.std**2 for _, c in cells) / free
    error = math.sqrt(pooled * sum(w * w / c.n for w, c in cells)) / count
    found["std"] = math.sqrt(sum((w * c.std) ** 2 for w, c in cells) / count)
    found["p"] = _p(mean, error, free)
    found["low"], found["high"] = _interval(mean, error, free)
    found["sees"] = error * _noncentrality(free)
  return Difference(**found)._replace(**_paired(settings))


def _paired(settings):
  sums = []
  for s in settings:
    seeds = set.intersection(*(set(c.values) for _, c in s))
    sums.append(
      np.array([sum(w * c.values[k] for w, c in s) for k in sorted(seeds)])
    )
  pairs = sum(map(len, sums))
  if min(map(len, sums)) < 2:
    return {"pairs": pairs}
  free = sum(len(x) - 1 for x in sums)
  pooled = sum((len(x) - 1) * x.var(ddof=1) for x in sums) / free
  mean = float(np.mean([x.mean() for x in sums]))
  error = math.sqrt(pooled * sum(1 / len(x) for x in sums)) / len(sums)
  found = {
    "pairs": pairs,
    "paired_std": math.sqrt(pooled),
    "paired_p": _p(mean, error, free),
  }
  every = zip(sums, settings, strict=True)
  if any(c.n != len(x) for x, s in every for _, c in s):
    return found  # The interval would be of another difference than the mean.
  low, high = _interval(mean, error, free)
  return {
    **found,
    "low": low,
    "high": high,
    "sees": error * _noncentrality(free),
  }


def _p(mean, error, free):
  if error == 0:
    return 1.0 if mean == 0 else 0.0
  return float(2 * stats.t.sf(abs(mean) / error, free))


def _interval(mean, error, free):
  half = stats.t.ppf((1 + LEVEL) / 2, free) * error
  return mean - half, mean + half


@functools.cache
def _noncentrality(free):
  """Of a t statistic that exceeds its two-sided 5% point with `POWER`.

  The point of the other sign is left out: its share is below 1e-5.
  """
  least = stats.t.ppf((1 + LEVEL) / 2, free)
  lacks = lambda x: stats.nct.sf(least, free, x) - POWER
  return float(optimize.brentq(lacks, 0, 20))


def spearman(x: list[float], y: list[float]) -> tuple[float, float] | None:
  """Spearman's rank correlation and its two-sided p.

  None below three pairs, or if x or y is constant.
  """
  if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
    return None
  found = stats.spearmanr(x, y)
  return float(found.statistic), float(found.pvalue)


def holm(p: list[float | None]) -> list[float | None]:
  """Holm's step-down correction; None stays None and does not count.

  SciPy lacks it. statsmodels has it, but would install pandas and patsy.
  """
  known = [i for i, x in enumerate(p) if x is not None]
  out, least = list(p), 0.0
  for rank, i in enumerate(sorted(known, key=lambda i: p[i])):
    least = max(least, min(1.0, (len(known) - rank) * p[i]))
    out[i] = least
  return out


def benjamini_hochberg(p: list[float | None]) -> list[float | None]:
  """Benjamini and Hochberg's correction; None stays None and does not count."""
  known = [i for i, x in enumerate(p) if x is not None]
  out = list(p)
  if known:
    found = stats.false_discovery_control([p[i] for i in known], method="bh")
    for i, x in zip(known, found, strict=True):
      out[i] = float(x)
  return out
