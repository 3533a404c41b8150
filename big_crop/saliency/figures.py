"""Figures of `big_crop.saliency`.

They correspond to Figures 19 and 21 to 25 of "You May Be Running the Wrong
Inception Crop", and to Figures 4 and 5 of the CropMix paper.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from etils import epath

from big_crop.display import plots
from big_crop.saliency import measurement

_PER_ROW = 12  # panels per row; images and maps both count
_PANEL = 4.4  # inches
_TITLES = {
  "gradient": "gradient",
  "gradcam": "Grad-CAM",
  "relevance": "relevance",
}
_MOST_IN_LEGEND = 12


class _Panel(NamedTuple):
  """An image [H, W, C] in [0, 1], and perhaps a map [h, w] to draw over it."""

  title: str
  image: np.ndarray
  values: np.ndarray | None = None


def save_all(out: epath.Path, found) -> None:
  """Draws every figure.

  Args:
    out: the folder; it has a subfolder for each run.
    found: `saliency.Measurement`s.
  """
  _save_histograms(out / "entropies.png", found)
  for m in found:
    if m.pictures:
      _save_maps(out / m.name / "maps.png", m)
  same, _ = measurement.comparable(found)
  some = [m for m in same if "gradcam" in m.shapes and m.pictures]
  if some[1:]:
    _save_side_by_side(out / "gradcam.png", some)
  for m in same[1:]:
    if m.differing:
      _save_differing(out / m.name / "differing.png", same[0], m)


def _save_maps(path, m):
  rows = []
  for picture, image in _images(m.pictures):
    row = [_Panel(_shortened(m.class_name("label", picture.place)), image)]
    for kind in m.shapes:
      empty = m.rows[f"{kind}_empty"][picture.place]
      entropy = m.rows[f"{kind}_entropy"][picture.place]
      number = "zero map" if empty else f"{entropy:.2f}"
      row.append(_Panel(f"{_TITLES[kind]} {number}", image, picture.maps[kind]))
    rows.append(row)
  budget = "" if m.epochs is None else f", {m.epochs:.4g} epochs"
  title = "maps of the label's logit, with their entropies in nats"
  _save_panels(path, f"{m.name}{budget}: {title}", rows)


def _save_side_by_side(path, found):
  rows = [
    [_Panel(_shortened(found[0].class_name("label", picture.place)), image)]
    for picture, image in _images(found[0].pictures)
  ]
  for m in found:
    for row, (picture, image) in zip(rows, _images(m.pictures), strict=True):
      title = f"{_shortened(m.name)}\n{_verdict(m, picture.place)}"
      row.append(_Panel(title, image, picture.maps["gradcam"]))
  title = "Grad-CAM of the label's logit, and each run's prediction"
  _save_panels(path, title, rows)


def _save_differing(path, first, other):
  sides = [[], []]
  for picture, image in _images(other.differing):
    i = picture.place
    lines = [_shortened(first.class_name("label", i))]
    for letter, m in (("A", first), ("B", other)):
      confidence = m.rows["confidence"][i]
      lines.append(f"{letter} {_verdict(m, i)} {confidence:.0%}")
    sides[int(other.hits[i])].append([_Panel("\n".join(lines), image)])
  across = min(6, max(map(len, sides)))
  # Images that only A classifies rightly come first; the gap fills their last
  # row, so that the images that only B classifies rightly start a new row.
  gap = [[]] * (-len(sides[0]) % across)
  title = f"A: {first.name}, B: {other.name}; their predictions and confidence"
  _save_panels(path, title, [*sides[0], *gap, *sides[1]], across, 1.6)


def _verdict(m, place):
  mark = "\N{CHECK MARK}" if m.hits[place] else "\N{BALLOT X}"
  return f"{mark} {_shortened(m.class_name('prediction', place))}"


def _images(pictures):
  """Yields (picture, its image scaled to [0, 1]).

  The images have the value range of the pp string, so the smallest and the
  largest value of all pictures are mapped to 0 and 1.
  """
  low = min((p.image.min() for p in pictures), default=0)
  high = max((p.image.max() for p in pictures), default=1)
  for p in pictures:
    yield p, (p.image - low) / max(high - low, 1e-9)


def _save_panels(path, title, rows, most=None, side=1.2):
  """Draws rows of panels, with as many rows side by side as there is room for.

  Args:
    path: the PNG.
    title: title of the figure.
    rows: lists of `_Panel`.
    most: how many rows are put side by side; by default as many as fit.
    side: side of an image, in inches.
  """
  num = max(map(len, rows))
  across = min(len(rows), most or max(1, _PER_ROW // num))
  down = -(-len(rows) // across)
  # 0.15 is a narrow empty column, a gap between rows that share a line.
  widths = [*[1] * num, 0.15] * across
  lines = max(p.title.count("\n") for row in rows for p in row)
  height = (side + 0.22 + 0.13 * lines) * down + 0.4
  size = (side * sum(widths), height)
  axes = plots.axes(len(widths), down, size=size, width_ratios=widths)
  for ax in axes.flat:
    ax.set_axis_off()
  for i, row in enumerate(rows):
    y, x = divmod(i, across)
    for ax, panel in zip(axes[y, x * (num + 1) :], row, strict=False):
      if panel.values is None:
        ax.imshow(panel.image)
      else:
        _overlay(ax, panel.image, panel.values)
      ax.set_title(panel.title, fontsize=8)
  figure = axes[0, 0].figure
  figure.suptitle(title, fontsize=10)
  plots.save(figure, path)


def _shortened(title, length=18):
  return title if len(title) <= length else title[: length - 1] + "…"


def _overlay(ax, image, values):
  """Draws a map over the faded grey image; its largest 1% are saturated."""
  height, width = image.shape[:2]
  ax.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=1.4)
  values = np.maximum(values, 0)
  # A sparse gradient has a few very large values. Scaled by the largest, all
  # other pixels would be black.
  top = np.percentile(values, 99) or values.max()
  values = np.minimum(values / max(top, np.finfo(np.float32).tiny), 1)
  ax.imshow(
    values,
    cmap="inferno",
    vmin=0,
    vmax=1,
    alpha=0.25 + 0.65 * values,
    extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    interpolation="nearest",
  )


def _save_histograms(path, found):
  kinds = list(dict.fromkeys(kind for m in found for kind in m.shapes))
  crops = list(dict.fromkeys(m.crop for m in found))
  # With one crop, the kinds of map are side by side. With several, each kind is
  # a row of panels and each crop a column.
  down, across = (len(kinds), len(crops)) if crops[1:] else (1, len(kinds))
  shared = "row" if crops[1:] else False
  size = (_PANEL * across, 3.6 * down)
  axes = plots.axes(
    across, down, size=size, grid=False, sharex=shared, sharey=shared
  )
  panels = itertools.product(kinds, crops)
  for ax, (kind, crop) in zip(axes.flat, panels, strict=True):
    runs = [m for m in found if kind in m.shapes and m.entropies(kind).size]
    _histograms(ax, kind, runs, crop, crops[1:])
  labels = {x for ax in axes.flat for x in ax.get_legend_handles_labels()[1]}
  # About as many columns as fit. A character of the legend is about 0.09 inches
  # wide.
  room = _PANEL * across / 0.09
  ncols = max(1, int(room // (8 + max(map(len, labels), default=1))))
  figure = axes[0, 0].figure
  figure.set_figheight(3.6 * down + 0.22 * -(-len(labels) // ncols))
  plots.legend(figure, loc="outside lower center", ncols=ncols, fontsize=10)
  figure.suptitle(
    "entropy of each image's map (dashed: means; dotted: largest possible)",
    fontsize=10,
  )
  plots.save(figure, path)


def _histograms(ax, kind, runs, crop, several):
  """Draws the histograms of one crop's runs.

  Limits, bins and colours depend on all runs, so that panels are comparable.
  """
  limits = {math.log(math.prod(m.shapes[kind])) for m in runs}
  for limit in limits:
    ax.axvline(limit, color="0.6", linestyle=":", linewidth=1)
  everything = np.concatenate([m.entropies(kind) for m in runs] or [[0.0]])
  bins = np.linspace(everything.min(), max([*limits, everything.max()]), 60)
  title = _TITLES[kind] + (f": {crop or 'no crop'}" if several else "")
  q25, q50, q75 = np.percentile(everything, (25, 50, 75))
  if everything.min() < q50 - 10 * (q75 - q25):
    # On a linear axis nothing but the peak at the upper end would be visible.
    ax.set_yscale("log")
    title += " (logarithmic)"
  # Colour is the training budget, as in the paper.
  budgets = sorted({m.epochs or 0 for m in runs})
  for m in (m for m in runs if m.crop == crop):
    color = plots.color_of(budgets.index(m.epochs or 0), len(budgets))
    density, _ = np.histogram(m.entropies(kind), bins, density=True)
    budget = "" if m.epochs is None else f"{m.epochs:.4g} epochs"
    label = f"{m.name} ({budget})" if len(runs) <= _MOST_IN_LEGEND else budget
    ax.stairs(density, bins, color=color, label=label, linewidth=1.3)
    ax.axvline(m.entropies(kind).mean(), color=color, linestyle="--", alpha=0.7)
  ax.margins(x=0.02)
  ax.set(xlabel="entropy (nats)", ylabel="density")
  ax.set_title(title, fontsize=10)
