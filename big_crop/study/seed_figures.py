"""Figures of seed statistics, like 1-3 of "ResNet strikes back"."""

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from big_crop.display.plots import color_of, legend
from big_crop.study import seed_statistics
from big_crop.study.figures import axes_of
from big_crop.study.layout import SeedStatistics
from big_crop.study.results import Results

# The right panel shows this last fraction of the epochs: 50 of the paper's 300.
_LAST = 1 / 6


def _label(*parts):
  return ", ".join(filter(None, parts))


def _seeds(count):
  return f"{count} seed" + "s" * (count != 1)


def _colored(found):
  """Pairs each item with a colour; a single item gets the first of two."""
  return [(color_of(i, max(len(found), 2)), x) for i, x in enumerate(found)]


def histogram(s: SeedStatistics, results: Results) -> Figure | None:
  """Histogram over seeds, with the normal distribution of the same moments."""
  if not s.histogram:
    return None
  metric = results.metric(s.histogram)
  found = seed_statistics.samples(s, results, metric)
  found = [x for x in found if x.cell.std]
  if not found:
    return None
  edges = [np.histogram_bin_edges(x.values(), "scott") for x in found]
  # All levels share the narrowest bins, which suit each distribution even where
  # the distributions are far apart.
  width = min(e[1] - e[0] for e in edges)
  low, high = min(e[0] for e in edges), max(e[-1] for e in edges)
  bins = low + width * np.arange(np.ceil((high - low) / width) + 2)

  (ax,) = axes_of(height=4.2)
  for color, x in _colored(found):
    cell = x.cell
    label = _label(x.level, _seeds(cell.n))
    ax.hist(x.values(), bins, color=color, alpha=0.35, label=label)
    law = stats.norm(cell.mean, cell.std)
    grid = np.linspace(*law.ppf([1e-3, 1 - 1e-3]), 201)
    label = f"N({cell.mean:.{metric.digits}f}, {cell.std:.{metric.digits}f}²)"
    p = seed_statistics.normality(cell)
    label += "" if p is None else f", Shapiro-Wilk p = {p:.2g}"
    ax.plot(grid, cell.n * width * law.pdf(grid), color=color, label=label)
    if x.chosen is not None:
      label = _label(x.level, f"seed {s.chosen}")
      style = {"color": color, "linestyle": "--", "linewidth": 1}
      ax.axvline(x.chosen, label=label, **style)
  ax.yaxis.get_major_locator().set_params(integer=True)
  ax.set(xlabel=metric.label, ylabel="seeds")
  legend(ax.figure)
  return ax.figure


def scatter(s: SeedStatistics, results: Results) -> Figure | None:
  """One metric against another, a point for each seed."""
  if not s.scatter:
    return None
  metrics = [results.metric(key) for key in s.scatter]
  across, up = (seed_statistics.samples(s, results, m) for m in metrics)
  if not all(any(z.cell.n for z in found) for found in (across, up)):
    return None
  (ax,) = axes_of(height=4.2)
  for color, (x, y) in _colored(list(zip(across, up, strict=True))):
    seeds = sorted(x.cell.values.keys() & y.cell.values.keys())
    c = seed_statistics.correlation(x.cell, y.cell)
    r = c and f"r = {c.r:+.2f}"
    if c and c.low is not None:
      r += f" ({c.low:+.2f} … {c.high:+.2f})"
    points = [[z.cell.values[k] for k in seeds] for z in (x, y)]
    label = _label(x.level, _seeds(len(seeds)), r)
    ax.plot(*points, "o", color=color, markersize=3.5, label=label)
    if x.chosen is not None and y.chosen is not None:
      label = _label(x.level, f"seed {s.chosen}")
      style = {"markersize": 11, "markerfacecolor": "w", "color": color}
      ax.plot(x.chosen, y.chosen, "*", label=label, **style)
  ax.set(xlabel=metrics[0].label, ylabel=metrics[1].label)
  legend(ax.figure)
  return ax.figure


def along_epochs(s: SeedStatistics, results: Results) -> Figure | None:
  """Mean, std, max and min by epoch; the right panel shows the last epochs."""
  found = seed_statistics.curves(s, results) if s.curves else []
  if not found:
    return None
  metric = results.metric(s.curves)
  # With `tail`, the label describes the mean over the tail, not a single value.
  label_of = metric.label if metric.tail is None else metric.key
  axes = axes_of(2, height=4.2)
  for ax, title, since in zip(
    axes, ("whole run", "its end"), (0, 1 - _LAST), strict=True
  ):
    for color, c in _colored(found):
      # Start at the last point before `since`, so that the line reaches the
      # panel's left edge.
      first = np.searchsorted(c.epochs, since * c.epochs[-1], "right") - 1
      epochs, values = c.epochs[max(first, 0) :], c.values[:, max(first, 0) :]
      mean = values.mean(0)
      label = _label(c.level, f"mean of {_seeds(len(values))}")
      ax.plot(epochs, mean, color=color, linewidth=1.2, label=label)
      if len(values) > 1:
        std = values.std(0, ddof=1)
        for low, high, alpha, what in (
          (mean - std, mean + std, 0.35, "mean ± std"),
          (values.min(0), values.max(0), 0.15, "min to max"),
        ):
          style = {"color": color, "alpha": alpha, "linewidth": 0}
          label = _label(c.level, what)
          ax.fill_between(epochs, low, high, label=label, **style)
    ax.set(xlabel="epoch", ylabel=label_of, title=title)
  legend(ax.figure)
  return ax.figure


def along_x(s: SeedStatistics, results: Results) -> Figure | None:
  """Draws `s.along`: each metric's mean is a point of a curve, with its std."""
  if not s.along:
    return None
  label, places = s.along
  found = {}  # {level: [(x, cell)]}
  for x, key in sorted(zip(places, s.metrics, strict=True)):
    for sample in seed_statistics.samples(s, results, results.metric(key)):
      if sample.cell.n:
        found.setdefault(sample.level, []).append((x, sample.cell))
  if not found:
    return None
  (ax,) = axes_of(height=4.2)
  for color, (level, points) in _colored(list(found.items())):
    x = [x for x, _ in points]
    y, std = [c.mean for _, c in points], [c.std or 0 for _, c in points]
    text = _label(level, f"mean ± std of {_seeds(points[0][1].n)}")
    ax.errorbar(x, y, std, fmt="o-", markersize=3.5, color=color, label=text)
  ax.set(xlabel=label, ylabel=results.metric(s.base or s.metrics[0]).label)
  legend(ax.figure)
  return ax.figure


FIGURES = (histogram, scatter, along_epochs, along_x)
