"""How much a result depends on its seed, for one setting or a few.

The statistics of "ResNet strikes back" (section 4.2, Figures 1-3, Table 9).
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from big_crop.study import analysis, statistics
from big_crop.study.layout import SeedStatistics
from big_crop.study.results import Factors, Metric, Results
from big_crop.study.statistics import LEVEL, Cell


class Sample(NamedTuple):
  """The values of one metric of one setting.

  Attributes:
    level: level of the factor `by`, as text; None if there is no `by`.
    setting: the factors.
    cell: the cell of the counted seeds.
    chosen: the value of the chosen seed; None if it has none.
  """

  level: str | None
  setting: Factors
  cell: Cell
  chosen: float | None

  def values(self) -> np.ndarray:
    """The values of the counted seeds, in the order of the seeds."""
    return np.array([self.cell.values[k] for k in sorted(self.cell.values)])


def samples(
  s: SeedStatistics, results: Results, metric: Metric
) -> list[Sample]:
  """A metric's samples, one for each level of `by`."""
  factors = {*s.where, *([s.by] if s.by else [])}
  out = []
  # `find` also returns settings that have further factors; these are left out.
  for setting in (f for f in results.find(s.where) if f.keys() == factors):
    cell = results.cell(setting, metric)
    chosen = cell.values.get(s.chosen)
    if not s.count_chosen:
      rest = {k: v for k, v in cell.values.items() if k != s.chosen}
      counted = s.chosen in {state.run.seed for state in results.states}
      cell = statistics.cell(rest, cell.wanted - counted)
    level = analysis.amount(s.by, setting[s.by]) if s.by else None
    out.append(Sample(level, setting, cell, chosen))
  return out


def keys(s: SeedStatistics, results: Results) -> list[str]:
  """The metrics that have a value, or all metrics if none has one."""
  found = {k: samples(s, results, results.metric(k)) for k in s.metrics}
  return [k for k, v in found.items() if any(x.cell.n for x in v)] or s.metrics


def std_interval(cell: Cell) -> tuple[float | None, float | None]:
  """95% confidence interval of the standard deviation, for normal values."""
  if cell.std is None:
    return None, None
  free = cell.n - 1
  tails = stats.chi2.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], free)
  low, high = cell.std * np.sqrt(free / tails)
  return float(low), float(high)


def normality(cell: Cell) -> float | None:
  """p of Shapiro and Wilk's test that the values are normally distributed."""
  values = list(cell.values.values())
  if len(set(values)) < 3:
    return None
  return float(stats.shapiro(values).pvalue)


def spread(a: Cell, b: Cell) -> tuple[float | None, float | None]:
  """std of b over std of a, and Brown and Forsythe's p that they are equal.

  p is None if one has fewer than three values, because two values are equally
  far from their median.
  """
  if not a.std or not b.std:
    return None, None
  if min(a.n, b.n) < 3:
    return b.std / a.std, None
  test = stats.levene(*(list(c.values.values()) for c in (a, b)))
  return b.std / a.std, float(test.pvalue)


class Correlation(NamedTuple):
  """Pearson's r with its 95% interval and p, over n seeds."""

  r: float
  low: float | None
  high: float | None
  p: float
  n: int


def correlation(x: Cell, y: Cell) -> Correlation | None:
  """The correlation over seeds that have both metrics; None if undefined.

  The interval is by Fisher's z and needs at least four seeds.
  """
  seeds = sorted(x.values.keys() & y.values.keys())
  a, b = ([c.values[k] for k in seeds] for c in (x, y))
  if len(seeds) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
    return None
  found = stats.pearsonr(a, b)
  ends = (None, None)
  if len(seeds) > 3:
    ends = map(float, found.confidence_interval(LEVEL))
  r, p = float(found.statistic), float(found.pvalue)
  return Correlation(r, *ends, p, len(seeds))


class Curve(NamedTuple):
  """A metric [seeds, k] at the epochs [k] at which every seed has a value."""

  level: str | None
  epochs: np.ndarray
  values: np.ndarray


def curves(s: SeedStatistics, results: Results) -> list[Curve]:
  """The logged metric of the counted seeds, one curve for each level."""
  metric = results.metric(s.curves)
  out = []
  for x in samples(s, results, metric):
    series = results.series(x.setting, metric)
    series = [v for seed, v in series.items() if seed in x.cell.values]
    epochs = sorted(set.intersection(*map(set, series))) if series else []
    if len(epochs) > 1:
      values = np.array([[v[e] for e in epochs] for v in series])
      out.append(Curve(x.level, np.array(epochs), values))
  return out
