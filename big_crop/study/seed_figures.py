"""Figures of seed statistics, like 1-3 of "ResNet strikes back", as SVG."""

import numpy as np
from scipy import stats

from big_crop.study import seed_statistics
from big_crop.study.figures import color_of, draw, legend
from big_crop.study.layout import SeedStatistics
from big_crop.study.results import Results

_BELOW = "outside lower center"  # long labels leave no room beside
_LAST = 1 / 6  # of the epochs: 50 of the paper's 300


def _label(*parts):
  return ", ".join(filter(None, parts))


def _chosen_line(ax, s, sample, color):
  """Where the chosen seed is, if it has a value."""
  if sample.chosen is not None:
    label = _label(sample.level, f"seed {s.chosen}")
    style = {"color": color, "linestyle": "--", "linewidth": 1}
    ax.axvline(sample.chosen, label=label, **style)


def histogram(s: SeedStatistics, results: Results) -> str | None:
  """The distribution over seeds, with the normal law of its moments."""
  if not s.histogram:
    return None
  metric = results.metric(s.histogram)
  found = seed_statistics.samples(s, results, metric)
  found = [x for x in found if x.cell.std]
  if not found:
    return None
  edges = [np.histogram_bin_edges(x.values(), "scott") for x in found]
  # The finest, for all: laws that are far apart need not be wide.
  width = min(e[1] - e[0] for e in edges)
  low, high = min(e[0] for e in edges), max(e[-1] for e in edges)
  bins = low + width * np.arange(np.ceil((high - low) / width) + 2)

  def paint(ax):
    for i, x in enumerate(found):
      color, cell = color_of(i, max(len(found), 2)), x.cell
      label = _label(x.level, f"{cell.n} seeds")
      ax.hist(x.values(), bins, color=color, alpha=0.35, label=label)
      law = stats.norm(cell.mean, cell.std)
      grid = np.linspace(*law.ppf([1e-3, 1 - 1e-3]), 201)
      label = f"N({cell.mean:.{metric.digits}f}, {cell.std:.{metric.digits}f}²)"
      p = seed_statistics.normality(cell)
      label += "" if p is None else f", Shapiro-Wilk p = {p:.2g}"
      ax.plot(grid, cell.n * width * law.pdf(grid), color=color, label=label)
      _chosen_line(ax, s, x, color)
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel=metric.label, ylabel="seeds")
    legend(ax, _BELOW)

  return draw(1, paint, height=4.2)


def scatter(s: SeedStatistics, results: Results) -> str | None:
  """One metric against another, a point for each seed."""
  if not s.scatter:
    return None
  metrics = [results.metric(key) for key in s.scatter]
  across, up = (seed_statistics.samples(s, results, m) for m in metrics)
  if not all(any(z.cell.n for z in found) for found in (across, up)):
    return None

  def paint(ax):
    for i, (x, y) in enumerate(zip(across, up, strict=True)):
      color = color_of(i, max(len(across), 2))
      seeds = sorted(x.cell.values.keys() & y.cell.values.keys())
      c = seed_statistics.correlation(x.cell, y.cell)
      r = c and f"r = {c.r:+.2f}"
      if c and c.low is not None:
        r += f" ({c.low:+.2f} … {c.high:+.2f})"
      points = [[z.cell.values[k] for k in seeds] for z in (x, y)]
      label = _label(x.level, f"{len(seeds)} seeds", r)
      ax.plot(*points, "o", color=color, markersize=3.5, label=label)
      if x.chosen is not None and y.chosen is not None:
        label = _label(x.level, f"seed {s.chosen}")
        style = {"markersize": 11, "markerfacecolor": "w", "color": color}
        ax.plot(x.chosen, y.chosen, "*", label=label, **style)
    ax.set(xlabel=metrics[0].label, ylabel=metrics[1].label)
    legend(ax, _BELOW)

  return draw(1, paint, height=4.2)


def along_epochs(s: SeedStatistics, results: Results) -> str | None:
  """Mean, std, max and min along the epochs; right: the last of them."""
  found = seed_statistics.curves(s, results) if s.curves else []
  if not found:
    return None
  metric = results.metric(s.curves)
  # The label of a metric with a tail is of its average over that.
  label_of = metric.label if metric.tail is None else metric.key

  def paint(*axes):
    for ax, since in zip(axes, (0, 1 - _LAST), strict=True):
      for i, c in enumerate(found):
        color = color_of(i, max(len(found), 2))
        # The point before, so that the line comes from somewhere.
        first = np.searchsorted(c.epochs, since * c.epochs[-1], "right") - 1
        epochs, values = c.epochs[max(first, 0) :], c.values[:, max(first, 0) :]
        mean = values.mean(0)
        label = _label(c.level, f"mean of {len(values)} seeds")
        ax.plot(epochs, mean, color=color, linewidth=1.2, label=label)
        if len(values) > 1:
          std, ends = values.std(0, ddof=1), (values.min(0), values.max(0))
          band = {"color": color, "linewidth": 0}
          label = _label(c.level, "mean ± std")
          ax.fill_between(
            epochs, mean - std, mean + std, alpha=0.35, label=label, **band
          )
          label = _label(c.level, "min to max")
          ax.fill_between(epochs, *ends, alpha=0.15, label=label, **band)
      ax.set(xlabel="epoch", ylabel=label_of)
    axes[0].set_title("whole run")
    axes[1].set_title("its end")
    legend(axes[0], _BELOW)

  return draw(2, paint, height=4.2)


FIGURES = (histogram, scatter, along_epochs)
