"""Which crop the paper's data favour for a budget.

The accuracy of a family (the fixed crop by area_min, or Beta crop of matching
strength by alpha) is fitted as a quadratic in the log of that factor whose
coefficients are quadratics in the log of the budget, with a free level at each
budget trained, by least squares weighted with each budget's pooled variance.
The recommendation is where the quadratic is highest within the levels that were
trained.

Its interval comes from a parametric bootstrap: every mean is drawn again from a
normal distribution with its standard error, widened by the square root of the
fit's reduced chi^2 where that is above 1, and fitted again.
"""

from typing import NamedTuple

import numpy as np

from big_crop.study import paper
from big_crop.study.layout import Family
from big_crop.study.results import Metric
from pp_ops.errors import UserError

FAMILIES = ("fixed", "matched")
_DEGREE = 2  # of the coefficients, in log epochs
_DRAWS = 2000
_GRID = 401
_INTERVAL = (5, 95)  # percent


class Recommendation(NamedTuple):
  """A setting for a budget.

  Attributes:
    family: `fixed` (its factor is area_min in percent) or `matched` (alpha).
    metric: the accuracy that it is best for.
    best: the level of the factor.
    low: 5th percentile of the bootstrap.
    high: 95th percentile.
    lowest: least level that the paper trained.
    highest: greatest level.
    chi2: reduced chi^2 of the fit.
  """

  family: str
  metric: str
  best: float
  low: float
  high: float
  lowest: float
  highest: float
  chi2: float


def _data(family: Family, metric: Metric):
  """log levels, log epochs, means and standard errors of a family."""
  results = paper.load()
  settings = results.find(family.where)
  cells = [results.cell(s, metric) for s in settings]
  x = np.log([s[family.x] for s in settings])
  epochs = np.array([s["epochs"] for s in settings], float)
  variance = np.array([c.std**2 for c in cells])
  # Three seeds say little of a deviation: it is pooled over a budget.
  pooled = np.array([variance[epochs == e].mean() for e in epochs])
  error = np.sqrt(pooled / np.array([c.n for c in cells]))
  return x, epochs, np.array([c.mean for c in cells]), error


def recommend(epochs: float, family: str, metric: str) -> Recommendation:
  """The favoured level of a family's factor for a budget.

  Args:
    epochs: the budget, ViT-S/16 on ImageNet-1k.
    family: one of `FAMILIES`.
    metric: key of one of the paper's metrics.

  Returns:
    The recommendation.

  Raises:
    ValueError: if the budget is outside of what the paper trained.
  """
  low, high = paper.BUDGETS[0], paper.BUDGETS[-1]
  if not low <= epochs <= high:
    raise UserError(
      f"--epochs {epochs:g}: the paper's budgets are {low} to {high} epochs, "
      "and beyond them its data say nothing"
    )
  chosen = paper.layout_of_paper().families[family]
  x, budgets, mean, error = _data(chosen, paper.load().metric(metric))
  # Centred, so that the columns are not nearly parallel.
  middle, t = x.mean(), np.log(budgets / 100)
  powers = t[:, None] ** np.arange(_DEGREE + 1)
  z = x - middle
  levels = (budgets[:, None] == np.unique(budgets)).astype(float)
  design = np.concatenate(
    [levels, z[:, None] * powers, z[:, None] ** 2 * powers], 1
  )
  solve = np.linalg.pinv(design / error[:, None]) / error
  fit = solve @ mean
  free = len(mean) - design.shape[1]
  chi2 = float((((mean - design @ fit) / error) ** 2).sum() / free)

  rng = np.random.default_rng(0)
  noise = rng.standard_normal((_DRAWS, len(mean))) * error * max(chi2, 1) ** 0.5
  fits = np.concatenate([fit[None], (mean + noise) @ solve.T])
  count = levels.shape[1]
  at = np.log(epochs / 100) ** np.arange(_DEGREE + 1)
  slope = fits[:, count : count + _DEGREE + 1] @ at
  bend = fits[:, count + _DEGREE + 1 :] @ at
  grid = np.linspace(z.min(), z.max(), _GRID)
  curves = slope[:, None] * grid + bend[:, None] * grid**2
  peaks = np.exp(grid[curves.argmax(1)] + middle)
  interval = np.percentile(peaks[1:], _INTERVAL)
  return Recommendation(
    family,
    metric,
    float(peaks[0]),
    *map(float, interval),
    float(np.exp(x.min())),
    float(np.exp(x.max())),
    chi2,
  )


_OPS = {
  "fixed": "inception_crop_fixed(area_min={})",
  "matched": "beta_crop(alpha={}, beta=1, area_min=0)",
}


def text(epochs: float) -> str:
  """What `recommend --epochs E` prints.

  Raises:
    ValueError: see `recommend`.
  """
  lines = [
    f"ViT-S/16 on ImageNet-1k, {epochs:g} epochs, from the paper's data:"
  ]
  edge = False
  for family in FAMILIES:
    for metric in paper.load().metrics:
      r = recommend(epochs, family, metric.key)
      op = _OPS[family].format(f"{r.best:.3g}")
      mark = " " if r.lowest * 1.001 < r.best < r.highest * 0.999 else "*"
      edge |= mark == "*"
      lines.append(
        f"  {op:44}{mark} 90% interval {r.low:.3g} to {r.high:.3g}   "
        f"({metric.label})"
      )
  if edge:
    lines.append(
      "  * at the edge of what the paper tried: the best may lie beyond"
    )
  return "\n".join(lines)
