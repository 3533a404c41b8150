"""Figures of `big_crop.saliency`, like the paper's 19 and 21 to 25."""

import itertools
import math

import numpy as np
from etils import epath

from big_crop import plots

_PER_ROW = 3  # pictures
_PANEL = 4.4  # inches
_TITLES = {
  "gradient": "gradient",
  "gradcam": "Grad-CAM",
  "relevance": "relevance",
}
_MOST_IN_LEGEND = 12


def save_all(out: epath.Path, found) -> None:
  """Draws every figure.

  Args:
    out: the folder; in it one for each run.
    found: `saliency.Measurement`s.
  """
  _save_histograms(out / "entropies.png", found)
  for m in found:
    if m.pictures:
      _save_maps(out / m.name / "maps.png", m)


def _save_maps(path, m):
  kinds = list(m.shapes)
  across = min(_PER_ROW, len(m.pictures))
  down = -(-len(m.pictures) // across)
  # Each image, its maps, and a gap before the next image.
  widths = [*[1] * (1 + len(kinds)), 0.15] * across
  axes = plots.axes(
    len(widths),
    down,
    size=(1.2 * sum(widths), 1.42 * down + 0.4),
    width_ratios=widths,
  )
  for ax in axes.flat:
    ax.set_axis_off()
  # The value range is the pp string's own.
  low = min(p.image.min() for p in m.pictures)
  high = max(p.image.max() for p in m.pictures)
  for i, picture in enumerate(m.pictures):
    row, column = divmod(i, across)
    first, *others = axes[row, column * (2 + len(kinds)) :]
    image = (picture.image - low) / max(high - low, 1e-9)
    first.imshow(image)
    first.set_title(_shortened(picture.title), fontsize=8)
    for ax, kind in zip(others, kinds, strict=False):
      _overlay(ax, image, picture.maps[kind])
      entropy = picture.entropies[kind]
      number = "zero map" if entropy is None else f"{entropy:.2f}"
      ax.set_title(f"{_TITLES[kind]} {number}", fontsize=8)
  budget = "" if m.epochs is None else f", {m.epochs:.4g} epochs"
  figure = axes[0, 0].figure
  figure.suptitle(
    f"{m.name}{budget}: maps of the label's logit, with their entropies in nats"
  )
  plots.save(figure, path)


def _shortened(title, length=18):
  return title if len(title) <= length else title[: length - 1] + "…"


def _overlay(ax, image, values):
  """A map over the faded grey image; the brightest 1% look the same."""
  height, width = image.shape[:2]
  ax.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=1.4)
  values = np.maximum(values, 0)
  # A sparse gradient has few bright pixels that would leave the others black.
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
  # The kinds side by side; or under one another, the crops side by side.
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
  # About as many columns as fit, in characters of the legend's font.
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
  """The runs of a crop; axes and colours are those of all runs."""
  limits = {math.log(math.prod(m.shapes[kind])) for m in runs}
  for limit in limits:
    ax.axvline(limit, color="0.6", linestyle=":", linewidth=1)
  everything = np.concatenate([m.entropies(kind) for m in runs] or [[0.0]])
  bins = np.linspace(everything.min(), max([*limits, everything.max()]), 60)
  title = _TITLES[kind] + (f": {crop or 'no crop'}" if several else "")
  q25, q50, q75 = np.percentile(everything, (25, 50, 75))
  if everything.min() < q50 - 10 * (q75 - q25):
    # Beside the peak at one end nothing else would be seen.
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
