"""A report's figures, like the paper's 4-11, 14, 16-18, 20 and 26, as SVG.

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
from big_crop.study.layout import (
  BUDGET,
  Ablation,
  Comparison,
  Family,
  Layout,
  Scatter,
)
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


def _curve(ax, points, label, color, style=0):
  """(x, mean, deviation) with error bars; points without a mean left out."""
  points = [p for p in points if p[1] is not None]
  if points:
    x, mean, std = zip(*points, strict=True)
    ax.errorbar(
      x,
      mean,
      yerr=[s or 0 for s in std],
      label=label,
      linestyle=_LINES[style % len(_LINES)],
      marker=_MARKERS[style % len(_MARKERS)],
      color=color,
      **_BARS,
    )


def _family_curves(ax, family, results, metric, place, style=0):
  """A line for each budget; `place(x, setting)` gives the abscissa."""
  budgets = family.levels(results, BUDGET)
  groups = family.levels(results, family.by)
  for by, budget in family.lines(results):
    points = []
    for x in family.levels(results, family.x):
      setting = family.setting(results, budget, x, by)
      if setting is not None:
        cell = results.cell(setting, metric)
        points.append((place(x, setting), cell.mean, cell.std))
    points.sort(key=lambda p: p[0])
    label = analysis.level(BUDGET, budget)
    label += f", {analysis.level(family.by, by)}" if family.by else ""
    color = color_of(budgets.index(budget), len(budgets))
    _curve(ax, points, label, color, style + groups.index(by))


def _axis(factor):
  return {"area_min": "area_min (%)"}.get(factor, factor)


def family(f: Family, results: Results, metric: Metric) -> str:
  """A metric against a family's factor, a line for each budget."""

  def paint(ax):
    _family_curves(ax, f, results, metric, lambda x, _: x)
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
    own = lambda x, _: x
    _family_curves(left, first, results, metric, own, style=1)
    over = lambda _, s: place.get(results_lib.key_of(s), np.nan)
    _family_curves(left, second, results, metric, over)
    title = f"dashed: {first.label}\nsolid: {second.label}"
    left.set(xlabel=_axis(first.x), ylabel=metric.label, title=title)
    budgets = first.levels(results, BUDGET)
    for i, budget in enumerate(budgets):
      points = []
      for p in (p for p in pairs if p.budget == budget):
        cells = (results.cell(s, metric) for s in (p.a, p.b))
        d = statistics.compare(*cells)
        points.append((p.a[first.x], d.mean, d.std))
      color = color_of(i, len(budgets))
      _curve(right, points, analysis.level(BUDGET, budget), color)
    right.axhline(0, color="0.4", linewidth=0.8)
    title = "solid minus dashed"
    right.set(xlabel=_axis(first.x), ylabel="difference", title=title)
    legend(right)

  return draw(2, paint, height=3.8)


def strength(layout: Layout, results: Results, metric: Metric) -> str:
  """A metric against the 5th-percentile crop scale (Figure 16)."""
  families = [layout.families[name] for name in layout.strength]
  styles = ("solid", "dashed", "dotted", "dash-dotted")

  def paint(ax):
    for i, f in enumerate(families):
      place = lambda _, s: results_lib.crop_scale_percentile(s)
      _family_curves(ax, f, results, metric, place, style=i)
    ax.set(
      xlabel="5th-percentile crop scale (%), ideal law",
      ylabel=metric.label,
      title="\n".join(
        f"{style}: {f.label}"
        for style, f in zip(styles, families, strict=False)
      ),
    )
    ax.title.set_fontsize(7)
    legend(ax)

  return draw(1, paint, height=4.2)


def scatter(c: Scatter, results: Results) -> str | None:
  """One metric against another (Figures 9, 10, 20 and 26).

  Coloured by the 5th-percentile crop scale or a factor, and by the budget;
  dashed lines are the averages of a budget. None if there are no runs.
  """
  across, up = map(results.metric, (c.x, c.y))
  points = analysis.points(c, results)
  if not points:
    return None
  settings, x, y = zip(*points, strict=True)

  def paint(left, right):
    label = f"{analysis.STRENGTH} (%)" if c.color is None else _axis(c.color)
    shade = analysis.shade(c, settings)
    dots = left.scatter(x, y, c=shade, s=12, cmap="viridis")
    left.figure.colorbar(dots, ax=left, label=label)
    budgets = sorted({s[BUDGET] for s in settings})
    for i, budget in enumerate(budgets):
      mine = [k for k, s in enumerate(settings) if s[BUDGET] == budget]
      own, color = [x[k] for k in mine], color_of(i, len(budgets))
      label = analysis.level(BUDGET, budget)
      right.scatter(own, [y[k] for k in mine], s=12, color=color, label=label)
      right.axvline(np.mean(own), color=color, linestyle="--", linewidth=0.8)
    legend(right)
    for ax in (left, right):
      ax.set(xlabel=across.label, ylabel=up.label)

  return draw(2, paint)


def ablation(a: Ablation, results: Results, metric: Metric) -> str | None:
  """What each row of an ablation changes, with Welch's 95% intervals.

  None if no row can be told from the default.
  """
  rows = [r for r in ablation_lib.rows(a, results, metric) if r.changes]
  place = range(len(rows))
  d = [r.difference for r in rows]
  theirs = [r.reference_difference for r in rows]
  number = lambda x: np.nan if x is None else x
  if all(x.mean is None for x in d):
    return None

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


# Sixteen colours, light and dark, grey and not.
_COLORS = np.array(
  [
    [(32, 32, 32), (96, 96, 96), (160, 160, 160), (224, 224, 224)],
    [(96, 32, 32), (160, 64, 64), (224, 96, 32), (224, 160, 128)],
    [(32, 96, 32), (64, 160, 64), (96, 224, 32), (160, 224, 128)],
    [(32, 32, 96), (64, 64, 160), (32, 96, 224), (128, 160, 224)],
  ],
  np.uint8,
)


def contrasts(factor: float = 1.9) -> dict[str, np.ndarray]:
  """A grid of colours before and after RandAugment's `Contrast` (appendix D).

  The broken one takes the number of pixels / 256 for the mean grey. An image of
  224x224 therefore gets darker and one of 64x64 lighter.

  Args:
    factor: the op's.

  Returns:
    {title: uint8 [4, 4, 3]}
  """
  from pp_ops import pixels  # loads TensorFlow

  def after(size, **kw):
    image = np.kron(_COLORS, np.ones((size // 4, size // 4, 1), np.uint8))
    out = np.asarray(pixels.get_contrast(factor, **kw)(image))
    return out[:: size // 4, :: size // 4]

  name = f"Contrast(., {factor:g})"
  return {
    "before": _COLORS,
    f"broken {name}, 224x224": after(224, legacy=True),
    f"broken {name}, 64x64": after(64, legacy=True),
    f"right {name}, any size": after(224),
  }


def contrast() -> str:
  """What `contrasts` gives, with the RGB values (Figure 14)."""
  panels = contrasts()

  def paint(*axes):
    for ax, (title, colors) in zip(axes, panels.items(), strict=True):
      ax.imshow(colors)
      luma = colors @ np.array([0.299, 0.587, 0.114])
      for (y, x), grey in np.ndenumerate(luma):
        ink = "w" if grey < 128 else "k"
        text = "\n".join(map(str, colors[y, x]))
        ax.text(x, y, text, ha="center", va="center", color=ink, fontsize=8)
      ax.set_axis_off()
      ax.set_title(title)

  return draw(len(panels), paint)


def legend(ax, loc="outside right upper"):
  """One legend outside of the axes, where it hides no line."""
  handles, labels = ax.get_legend_handles_labels()
  first = {}
  for label, handle in zip(labels, handles, strict=True):
    first.setdefault(label, handle)
  if first:
    ax.figure.legend(first.values(), first, loc=loc, fontsize=7)
