"""Simulates random search: the accuracy that it finds for a given compute.

"How to train your ViT?" (arXiv:2106.10270), Figure 2, right: finished runs are
drawn at random as long as the budget lasts. The one that is best on the
validation set is chosen, and its test accuracy is reported.
"""

import numpy as np
from matplotlib.figure import Figure

from big_crop.display import tables
from big_crop.display.tables import Table
from big_crop.study.figures import axes_of
from big_crop.study.layout import Selection
from big_crop.study.results import Results

_SAMPLES = 1000
_BAND = (5, 50, 95)  # percentiles: the median, and a band of 90% of searches
_BUDGETS = 40


def runs(s: Selection, results: Results) -> np.ndarray:
  """[runs, 3], for each finished run: cost, metric `by`, metric `report`.

  The metric `by` has a minus sign if lower is better.
  """
  by, report = results.metric(s.by), results.metric(s.report)
  sign = -1 if by.better == "lower" else 1
  found = []
  for f in results.find(s.where):
    chooses, reported = results.cell(f, by), results.cell(f, report)
    for seed in sorted(chooses.values.keys() & reported.values.keys()):
      values = sign * chooses.values[seed], reported.values[seed]
      found.append((f[s.cost], *values))
  return np.array(found, float).reshape(-1, 3)


def simulate(found: np.ndarray, budgets: np.ndarray, seed: int = 0):
  """Simulates 1000 random searches, each without drawing a run twice.

  A search ends when the next run costs more than what is left of the budget.

  Args:
    found: as `runs` returns it.
    budgets: [n], in units of the cost; none is below the most expensive run.
    seed: seed of the searches.

  Returns:
    [3, n]: percentiles 5, 50 and 95 of what the searches report.
  """
  rng = np.random.default_rng(seed)
  reported = np.empty((_SAMPLES, len(budgets)))
  for i in range(_SAMPLES):
    cost, chooses, value = found[rng.permutation(len(found))].T
    best = np.maximum.accumulate(chooses)
    # Of runs with an equal metric the one drawn first is chosen, as a person
    # would who looks at each result in turn.
    first = np.maximum.accumulate(
      np.where(np.r_[True, best[1:] > best[:-1]], np.arange(len(found)), 0)
    )
    last = np.searchsorted(np.cumsum(cost), budgets, side="right") - 1
    reported[i] = value[first[np.maximum(last, 0)]]
  return np.percentile(reported, _BAND, axis=0)


def make(s: Selection, results: Results) -> tuple[Table, Figure] | None:
  """The table for a few budgets, and the figure; None below two runs."""
  found = runs(s, results)
  if len(found) < 2:
    return None
  cost, report = found[:, 0], results.metric(s.report)
  budgets = np.geomspace(cost.max(), cost.sum(), _BUDGETS)
  band = simulate(found, budgets)
  [ax] = axes_of()
  ax.fill_between(budgets, band[0], band[2], alpha=0.25, label="90%")
  ax.plot(budgets, band[1], label="median")
  ax.set(xscale="log", xlabel=f"{s.cost} of all runs", ylabel=report.label)
  ax.legend(frameon=False)
  records = [
    {"budget": float(b), "low": low, "median": mid, "high": high}
    for b, low, mid, high in zip(budgets, *band.tolist(), strict=True)
  ]
  shown = [f"{r['budget']:,.0f}" for r in records[::13]]
  number = lambda r, k: f"{r[k]:.{report.digits}f}"
  rows = [
    ["median", *(number(r, "median") for r in records[::13])],
    [
      "90%",
      *(f"{number(r, 'low')}…{number(r, 'high')}" for r in records[::13]),
    ],
  ]
  table = Table(
    tables.file_name("search", s.title, s.report),
    f"{s.title}, random search: {report.label}",
    [s.cost, *shown],
    rows,
    records,
    f"{_SAMPLES} searches among {len(found)} runs, which stop when the next "
    f"run is beyond the budget; chosen by the {results.metric(s.by).label}",
  )
  return table, ax.figure
