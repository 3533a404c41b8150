"""Recommends a crop for a training budget, from the paper's data.

A family is a crop with one free factor: area_min, or alpha for Beta crop of
matching strength. Its accuracy is fitted as a quadratic in the log of that
factor. The coefficients of the linear and the quadratic term are quadratics in
the log of the budget; the constant term is free at each trained budget. The fit
is by least squares, weighted with each budget's pooled variance. The
recommendation is the maximum of the quadratic within the range of the factor
that was trained. For a budget between two trained ones, the constant term,
which matters when families are compared, is interpolated in the log of the
budget.

Intervals come from a parametric bootstrap: every mean is drawn again from a
normal distribution with its standard error, widened by the square root of the
fit's reduced chi^2 where that is above 1, and the fit is repeated.
"""

from typing import NamedTuple

import numpy as np

from big_crop.display import tables
from big_crop.study import paper
from big_crop.study.layout import Family
from big_crop.study.results import Metric
from pp_ops.errors import UserError

# {family: its op, with a place for the level of its factor}
FAMILIES = {
  "fixed": "inception_crop_fixed(area_min={:.3g})",
  "matched": "beta_crop(alpha={:.3g}, beta=1, area_min=0)",
  "native": "inception_crop_port(area_min={:.3g})",
}
_DEGREE = 2  # of the coefficients as polynomials in log epochs
_DRAWS = 2000
_GRID = 401
_INTERVAL = (5, 95)  # percent


class Recommendation(NamedTuple):
  """A setting for a budget.

  Attributes:
    family: one of `FAMILIES`. The factor of `matched` is alpha; that of the
      others is area_min in percent.
    metric: label of the metric that is maximised.
    best: the recommended level of the factor.
    low: 5th percentile of `best` in the bootstrap.
    high: 95th percentile.
    lowest: the lowest level of the factor that the paper trained.
    highest: the highest.
    accuracy: [1 + draws], the metric at the maximum: of the fit, then of each
      draw of the bootstrap.
  """

  family: str
  metric: str
  best: float
  low: float
  high: float
  lowest: float
  highest: float
  accuracy: np.ndarray

  def op(self) -> str:
    """The op, for a pp string."""
    return FAMILIES[self.family].format(self.best)

  def at_the_edge(self) -> bool:
    """Whether `best` is the lowest or highest level that the paper trained."""
    return not self.lowest * 1.001 < self.best < self.highest * 0.999


def _data(family: Family, metric: Metric):
  """log levels, log epochs, means and standard errors of a family."""
  results = paper.load()
  settings = results.find(family.where)
  cells = [results.cell(s, metric) for s in settings]
  x = np.log([s[family.x] for s in settings])
  epochs = np.array([s["epochs"] for s in settings], float)
  variance = np.array([c.std**2 for c in cells])
  # A variance estimated from three seeds is poor, so the variances of all
  # settings of a budget are averaged.
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
  # Levels are centred, so that the columns of the design are not collinear.
  middle, t = x.mean(), np.log(budgets / 100)
  powers = t[:, None] ** np.arange(_DEGREE + 1)
  z = x - middle
  trained = np.unique(budgets)
  levels = (budgets[:, None] == trained).astype(float)
  design = np.concatenate(
    [levels, z[:, None] * powers, z[:, None] ** 2 * powers], 1
  )
  solve = np.linalg.pinv(design / error[:, None]) / error
  fit = solve @ mean
  free = len(mean) - design.shape[1]
  chi2 = float((((mean - design @ fit) / error) ** 2).sum() / free)

  # A seed for each family, because the runs of families are independent.
  rng = np.random.default_rng(list(FAMILIES).index(family))
  noise = rng.standard_normal((_DRAWS, len(mean))) * error * max(chi2, 1) ** 0.5
  fits = np.concatenate([fit[None], (mean + noise) @ solve.T])
  count = levels.shape[1]
  at = np.log(epochs / 100) ** np.arange(_DEGREE + 1)
  slope = fits[:, count : count + _DEGREE + 1] @ at
  bend = fits[:, count + _DEGREE + 1 :] @ at
  grid = np.linspace(z.min(), z.max(), _GRID)
  curves = slope[:, None] * grid + bend[:, None] * grid**2
  peaks = np.exp(grid[curves.argmax(1)] + middle)
  between = [
    np.interp(np.log(epochs), np.log(trained), one) for one in np.eye(count)
  ]
  interval = np.percentile(peaks[1:], _INTERVAL)
  return Recommendation(
    family,
    paper.load().metric(metric).label,
    float(peaks[0]),
    *map(float, interval),
    float(np.exp(x.min())),
    float(np.exp(x.max())),
    fits[:, :count] @ between + curves.max(1),
  )


def text(epochs: float) -> str:
  """What `recommend --epochs E` prints.

  Raises:
    ValueError: see `recommend`.
  """
  metrics = paper.load().metrics
  found = [recommend(epochs, f, m.key) for m in metrics for f in FAMILIES]
  rows = [["best for", "crop", "90% interval of its number", "accuracy"]]
  for r in found:
    crop = r.op() + ("*" if r.at_the_edge() else "")
    interval = f"{r.low:.3g} to {r.high:.3g}"
    rows.append([r.metric, crop, interval, f"{r.accuracy[0]:.2f}"])
  edge = any(r.at_the_edge() for r in found)
  note = "* at the edge of what the paper tried: the best may lie beyond\n"
  # Families are compared by the paper's first metric, accuracy on the original
  # labels.
  first = found[: len(FAMILIES)]
  best, second, *_ = sorted(first, key=lambda r: -r.accuracy[0])
  lead = best.accuracy - second.accuracy
  low, high = np.percentile(lead[1:], _INTERVAL)
  unclear = "" if low > 0 else ", so that the data do not tell the two apart"
  return (
    f"ViT-S/16 on ImageNet-1k, {epochs:g} epochs, fitted to the paper's data:\n"
    f"\n{tables.markdown(rows)}{note if edge else ''}\n"
    f"Recommended for {epochs:g} epochs: {best.op()}, whose top-1 is "
    f"{lead[0]:.2f} points above that of the next, {second.op()} (90% interval "
    f"{low:+.2f} to {high:+.2f}){unclear}."
  )
