"""A report's figures, like the paper's 4-11, 14, 16-18, 20 and 26."""

import numpy as np
from matplotlib.figure import Figure

from big_crop.display import plots
from big_crop.display.plots import color_of, legend
from big_crop.study import ablation as ablation_lib
from big_crop.study import analysis, statistics
from big_crop.study import layout as layouts
from big_crop.study.grid import is_number, key_of
from big_crop.study.layout import BUDGET, Layout
from big_crop.study.results import Metric, Results

_STYLES = ("solid", "dashed", "dotted", "dashdot")
_MARKERS = "osD^vP"


def axes_of(panels: int = 1, height: float = 3.8) -> np.ndarray:
  """The axes of a new figure, side by side, in the size of the page."""
  return plots.axes(panels, size=(4.5 * panels + 0.9, height))[0]


def _curve(ax, points, label, color, style=0):
  """Draws points (x, mean, std) with error bars; skips those without a mean."""
  points = [p for p in points if p[1] is not None]
  if points:
    x, mean, std = zip(*points, strict=True)
    ax.errorbar(
      x,
      mean,
      yerr=[s or 0 for s in std],
      label=label,
      linestyle=_STYLES[style % len(_STYLES)],
      marker=_MARKERS[style % len(_MARKERS)],
      color=color,
      capsize=2,
      linewidth=1.2,
      markersize=3.5,
    )


def _color_of_line(family, results, by, budget):
  """The colour shows the budget or, if there is only one, the level of `by`."""
  budgets = family.levels(results, BUDGET)
  groups = family.levels(results, family.by)
  levels, level = (budgets, budget) if budgets[1:] else (groups, by)
  return color_of(levels.index(level), len(levels))


def _label_of_line(family, by, budget):
  names = analysis.level(BUDGET, budget), analysis.level(family.by, by)
  return ", ".join(filter(None, names))


def _family_curves(ax, family, results, metric, place, style=None):
  """Draws a line for each budget; `place(x, setting)` gives the x coordinate.

  Settings for which `place` returns None are left out. The style of a line is
  `style` or, by default, shows the level of `by`.
  """
  groups = family.levels(results, family.by)
  for by, budget in family.lines(results):
    points = []
    for x in family.levels(results, family.x):
      setting = family.setting(results, budget, x, by)
      if setting is not None and place(x, setting) is not None:
        cell = results.cell(setting, metric)
        points.append((place(x, setting), cell.mean, cell.std))
    points.sort(key=lambda p: p[0])
    color = _color_of_line(family, results, by, budget)
    label = _label_of_line(family, by, budget)
    own = groups.index(by) if style is None else style
    _curve(ax, points, label, color, own)


def _axis(factor):
  return {"area_min": "area_min (%)"}.get(factor, factor)


def _places(family, results, *axes):
  """{level of x: its x coordinate}; also labels the axes.

  Numbers are their own coordinates; if any level is no number, all levels are
  spaced evenly.
  """
  levels = family.levels(results, family.x)
  numbers = all(map(is_number, levels))
  for ax in axes:
    ax.set_xlabel(_axis(family.x))
    if not numbers:
      names = [analysis.amount(family.x, x) for x in levels]
      ax.set_xticks(range(len(names)), names, rotation=20, ha="right")
  return {x: x if numbers else i for i, x in enumerate(levels)}


def family(f: layouts.Family, results: Results, metric: Metric) -> Figure:
  """A metric against a family's factor, a line for each budget."""
  (ax,) = axes_of()
  places = _places(f, results, ax)
  _family_curves(ax, f, results, metric, lambda x, _: places[x])
  ax.set(ylabel=metric.label, title=f.label)
  legend(ax.figure)
  return ax.figure


def difference(
  c: layouts.Comparison, layout: Layout, results: Results, metric: Metric
) -> Figure:
  """Two families and their difference (Figures 4, 5 and 8).

  Error bars of the difference are sqrt(s_a^2 + s_b^2), as in the paper.
  """
  first, second = layout.families[c.a], layout.families[c.b]
  pairs = layouts.pairs(c, layout, results)
  left, right = axes_of(2)
  places = _places(first, results, left, right)
  # If the families have different x, each setting of b is drawn at the x of the
  # setting of a that it is paired with.
  over = {key_of(p.b): places[p.x_a] for p in pairs}
  own = lambda x, _: places[x]
  _family_curves(left, first, results, metric, own, style=1)
  place = lambda _, s: over.get(key_of(s))
  _family_curves(left, second, results, metric, place, style=0)
  title = f"dashed: {first.label}\nsolid: {second.label}"
  left.set(ylabel=metric.label, title=title)
  for by, budget in first.lines(results):
    points = []
    for p in (p for p in pairs if (p.by, p.budget) == (by, budget)):
      d = statistics.compare(*(results.cell(s, metric) for s in (p.a, p.b)))
      points.append((places[p.x_a], d.mean, d.std))
    color = _color_of_line(first, results, by, budget)
    _curve(right, points, _label_of_line(first, by, budget), color)
  right.axhline(0, color="0.4", linewidth=0.8)
  right.set(ylabel="difference", title="solid minus dashed")
  legend(left.figure)
  return left.figure


def strength(layout: Layout, results: Results, metric: Metric) -> Figure:
  """A metric against the 5th-percentile crop scale (Figure 16)."""
  (ax,) = axes_of(height=4.2)
  families = [layout.families[name] for name in layout.strength]
  place = lambda _, setting: results.crop_scale_percentile(setting)
  for i, f in enumerate(families):
    _family_curves(ax, f, results, metric, place, style=i)
  named = zip(_STYLES, families, strict=False)
  ax.set_title("\n".join(f"{s}: {f.label}" for s, f in named), fontsize=8)
  across = f"{analysis.STRENGTH} (%), ideal law"
  ax.set(xlabel=across, ylabel=metric.label)
  legend(ax.figure)
  return ax.figure


def scatter(c: layouts.Scatter, results: Results) -> Figure | None:
  """One metric against another (Figures 9, 10, 11, 20 and 26).

  Coloured by the 5th-percentile crop scale or a factor, and by the budget;
  dashed lines are the averages of a budget. None if there are no runs.
  """
  across, up = map(results.metric, (c.x, c.y))
  points = analysis.points(c, results)
  if not points:
    return None
  settings, x, y = zip(*points, strict=True)
  left, right = axes_of(2, height=3.4)
  label = f"{analysis.STRENGTH} (%)" if c.color is None else _axis(c.color)
  shade = analysis.shade(c, settings, results)
  dots = left.scatter(x, y, c=shade, s=12, cmap="viridis")
  left.figure.colorbar(dots, ax=left, label=label)
  budgets = layouts.ordered(s.get(BUDGET) for s in settings)
  for i, budget in enumerate(budgets):
    mine = [k for k, s in enumerate(settings) if s.get(BUDGET) == budget]
    own, color = [x[k] for k in mine], color_of(i, len(budgets))
    label = analysis.level(BUDGET, budget)
    right.scatter(own, [y[k] for k in mine], s=12, color=color, label=label)
    right.axvline(np.mean(own), color=color, linestyle="--", linewidth=0.8)
  legend(left.figure)
  for ax in (left, right):
    ax.set(xlabel=across.label, ylabel=up.label)
  return left.figure


def ablation(
  a: layouts.Ablation, results: Results, metric: Metric
) -> Figure | None:
  """The difference of each row from the default, with Welch's 95% intervals.

  None if no row has a difference, because values are missing.
  """
  rows = [r for r in ablation_lib.records(a, results, metric) if r["_changes"]]
  if all(r["difference"] is None for r in rows):
    return None
  (ax,) = axes_of(height=1.5 + 0.2 * len(rows))
  here, there = color_of(0, 2), color_of(1, 2)
  for i, r in enumerate(rows):
    if r["low"] is not None:
      ax.plot([r["low"], r["high"]], [i, i], color=here, linewidth=1)
    if (x := r["difference"]) is not None:
      label = "here, with 95% interval"
      ax.plot(x, i, "o", color=here, markersize=4, label=label)
    if (x := r["reference_difference"]) is not None:
      style = {"color": there, "markerfacecolor": "none"}
      ax.plot(x, i, "D", label=results.theirs.title, **style)
  ax.axvline(0, color="0.4", linewidth=0.8)
  ax.set_yticks(range(len(rows)), [r["_changes"] for r in rows])
  ax.set_ylim(len(rows) - 0.5, -0.5)
  ax.set(xlabel="difference from the default")
  legend(ax.figure)
  return ax.figure


# Sixteen colours: four greys, and four each of reds, greens and blues.
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

  The broken op uses the number of pixels / 256 in place of the mean grey. An
  image of 224x224 therefore gets darker and one of 64x64 lighter.

  Args:
    factor: factor of the op.

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


def contrast() -> Figure:
  """Draws `contrasts`, with the RGB values (Figure 14)."""
  panels = contrasts()
  axes = axes_of(len(panels), height=3.4)
  for ax, (title, colors) in zip(axes, panels.items(), strict=True):
    ax.imshow(colors)
    luma = colors @ np.array([0.299, 0.587, 0.114])
    for (y, x), grey in np.ndenumerate(luma):
      ink = "w" if grey < 128 else "k"
      text = "\n".join(map(str, colors[y, x]))
      ax.text(x, y, text, ha="center", va="center", color=ink, fontsize=8)
    ax.set_axis_off()
    ax.set_title(title)
  return ax.figure
