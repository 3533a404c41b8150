"""A report's figures, like the paper's 4-11, 16-18, 20 and 26, as SVG.

The same numbers give the same bytes: no dates, and fixed ids.
"""

import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from big_crop.study import ablation as ablation_lib
from big_crop.study import analysis, statistics
from big_crop.study import layout as layouts
from big_crop.study import results as results_lib
from big_crop.study.layout import Ablation, Comparison, Family, Layout, Scatter
from big_crop.study.results import Metric, Results

_STYLE = {
  "svg.hashsalt": "big_crop",
  "svg.fonttype": "path",
  "font.size": 9,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "grid.alpha": 0.25,
  "legend.frameon": False,
  "figure.constrained_layout.use": True,
}
_LINES = ("-", "--", ":", "-.")
_MARKERS = "osD^vP"
_BARS = {"capsize": 2, "linewidth": 1.2, "markersize": 3.5}


def color_of(position, count):
  return plt.get_cmap("viridis")(0.82 * position / max(count - 1, 1))


def draw(panels, paint, height=3.4):
  """One SVG with `panels` axes, painted by `paint(*axes)`."""
  with matplotlib.rc_context(_STYLE):
    figure, axes = plt.subplots(
      1, panels, figsize=(4.5 * panels + 0.9, height), squeeze=False
    )
    paint(*axes[0])
    data = io.BytesIO()
    figure.savefig(data, format="svg", metadata={"Date": None})
    plt.close(figure)
  return data.getvalue().decode()


def _curve(ax, points, label, style, marker, color):
  """(x, mean, deviation) with error bars; points without a mean left out."""
  points = [p for p in points if p[1] is not None]
  if points:
    x, mean, std = zip(*points, strict=True)
    ax.errorbar(
      x,
      mean,
      yerr=[s or 0 for s in std],
      label=label,
      linestyle=style,
      marker=marker,
      color=color,
      **_BARS,
    )


def _family_curves(ax, family, layout, results, metric, place, style=0):
  """A line for each budget; `place(setting)` gives the abscissa."""
  budgets = family.levels(results, layout.budget)
  for j, by in enumerate(family.levels(results, family.by)):
    for i, budget in enumerate(budgets):
      points = []
      for x in family.levels(results, family.x):
        setting = family.setting(results, {layout.budget: budget}, x, by)
        if setting is not None:
          cell = results.cell(setting, metric)
          points.append((place(setting), cell.mean, cell.std))
      label = [analysis.level(layout.budget, budget)]
      label += [analysis.level(family.by, by)] if family.by else []
      _curve(
        ax,
        sorted(points, key=lambda p: p[0]),
        ", ".join(label),
        _LINES[(style + j) % len(_LINES)],
        _MARKERS[(style + j) % len(_MARKERS)],
        color_of(i, len(budgets)),
      )


def _axis(factor):
  return {"area_min": "area_min (%)"}.get(factor, factor)


def family(f: Family, layout: Layout, results: Results, metric: Metric) -> str:
  """A metric against a family's factor, a line for each budget."""

  def paint(ax):
    _family_curves(ax, f, layout, results, metric, lambda s: s[f.x])
    ax.set(xlabel=_axis(f.x), ylabel=metric.label, title=f.label)
    legend(ax)

  return draw(1, paint, height=3.8)


def difference(
  c: Comparison, layout: Layout, results: Results, metric: Metric
) -> str:
  """Two families and their difference (Figures 4, 5 and 8).

  Error bars of the difference are sqrt(s_a^2 + s_b^2), as in the paper.
  """
  first, second = layout.families[c.a], layout.families[c.b]
  pairs = layouts.pairs(c, layout, results)
  # Where their own factors differ, b's setting stands over a's.
  place = {results_lib.key_of(p.b): p.a[first.x] for p in pairs}

  def paint(left, right):
    own = lambda s: s[first.x]
    _family_curves(left, first, layout, results, metric, own, style=1)
    over = lambda s: place.get(results_lib.key_of(s), np.nan)
    _family_curves(left, second, layout, results, metric, over)
    left.set(
      xlabel=_axis(first.x),
      ylabel=metric.label,
      title=f"dashed: {first.label}\nsolid: {second.label}",
    )
    budgets = first.levels(results, layout.budget)
    for i, budget in enumerate(budgets):
      points = []
      for p in (p for p in pairs if p.budget == budget):
        d = statistics.compare(
          results.cell(p.a, metric), results.cell(p.b, metric)
        )
        points.append((p.a[first.x], d.mean, d.std))
      label = analysis.level(layout.budget, budget)
      color = color_of(i, len(budgets))
      _curve(right, points, label, "-", "o", color)
    right.axhline(0, color="0.4", linewidth=0.8)
    right.set(
      xlabel=_axis(first.x), ylabel="difference", title="solid minus dashed"
    )
    legend(right)

  return draw(2, paint, height=3.8)


def strength(layout: Layout, results: Results, metric: Metric) -> str:
  """A metric against the 5th-percentile crop scale (Figure 16)."""
  shape = layout.image_shape
  place = lambda s: results_lib.crop_scale_percentile(s, shape)
  families = [layout.families[name] for name in layout.strength]

  def paint(ax):
    for i, f in enumerate(families):
      _family_curves(ax, f, layout, results, metric, place, style=i)
    on = f"a {shape[0]}x{shape[1]} image" if shape else "ideal law"
    ax.set(
      xlabel=f"5th-percentile crop scale (%), {on}",
      ylabel=metric.label,
      title="; ".join(
        f"{name}: {f.label}"
        for f, name in zip(
          families, ("solid", "dashed", "dotted", "dash-dotted"), strict=False
        )
      ),
    )
    ax.title.set_fontsize(7)
    legend(ax)

  return draw(1, paint, height=4.2)


def scatter(c: Scatter, layout: Layout, results: Results) -> str | None:
  """One metric against another (Figures 9, 10, 20 and 26).

  Coloured by the 5th-percentile crop scale or a factor, and by the budget;
  dashed lines are the averages of a budget. None if there are no runs.
  """
  metrics = {m.key: m for m in results.metrics}
  across, up = metrics[c.x], metrics[c.y]
  points = []
  for setting in results.find(c.where):
    x, y = results.cell(setting, across), results.cell(setting, up)
    both = sorted(set(x.values) & set(y.values))
    points += [(setting, x.values[s], y.values[s]) for s in both]
  if not points:
    return None
  settings, x, y = zip(*points, strict=True)

  def paint(left, right):
    label = _axis(c.color)
    if c.color is None:
      label = "5th-percentile crop scale (%)"
    shade = [
      results_lib.crop_scale_percentile(s, layout.image_shape)
      if c.color is None
      else s[c.color]
      for s in settings
    ]
    dots = left.scatter(x, y, c=shade, s=12, cmap="viridis")
    left.figure.colorbar(dots, ax=left, label=label)
    budgets = sorted({s[layout.budget] for s in settings})
    for i, budget in enumerate(budgets):
      mine = [k for k, s in enumerate(settings) if s[layout.budget] == budget]
      own, color = [x[k] for k in mine], color_of(i, len(budgets))
      right.scatter(
        own,
        [y[k] for k in mine],
        s=12,
        color=color,
        label=analysis.level(layout.budget, budget),
      )
      right.axvline(np.mean(own), color=color, linestyle="--", linewidth=0.8)
    legend(right)
    for ax in (left, right):
      ax.set(xlabel=across.label, ylabel=up.label)

  return draw(2, paint)


def ablation(a: Ablation, results: Results, metric: Metric) -> str:
  """What each row of an ablation changes, with Welch's 95% intervals."""
  rows = [r for r in ablation_lib.rows(a, results, metric) if r.changes]
  place = range(len(rows))
  d = [r.difference for r in rows]
  theirs = [r.reference_difference for r in rows]
  number = lambda x: np.nan if x is None else x

  def paint(ax):
    for i in (i for i in place if d[i].low is not None):
      ax.plot([d[i].low, d[i].high], [i, i], color=color_of(0, 2), linewidth=1)
    mean = [number(x.mean) for x in d]
    ax.plot(mean, place, "o", color=color_of(0, 2), markersize=4, label="here")
    if any(x is not None for x in theirs):
      style = {"markerfacecolor": "none", "color": color_of(1, 2)}
      ax.plot(list(map(number, theirs)), place, "D", label=a.source, **style)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(place, [r.label() for r in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel="difference from the default")
    legend(ax, "outside lower center")

  return draw(1, paint, height=1.5 + 0.2 * len(rows))


def legend(ax, loc="outside right upper"):
  """One legend outside of the axes, where it hides no line."""
  handles, labels = ax.get_legend_handles_labels()
  first = {}
  for label, handle in zip(labels, handles, strict=True):
    first.setdefault(label, handle)
  if first:
    ax.figure.legend(first.values(), first, loc=loc, fontsize=7)
