"""Figures of `big_crop.measure`, like the paper's 1, 2, 3, 13 and 15."""

import numpy as np
from etils import epath

from big_crop.display import plots
from big_crop.display.tables import file_name

_BINS = np.linspace(0, 1, 101)


def save_all(out: epath.Path, found) -> None:
  """Draws every figure.

  Args:
    out: the folder.
    found: `measure.Measurement`s.
  """
  for images in dict.fromkeys(m.images for m in found):
    some = [m for m in found if m.images == images]
    _save_areas(out / f"areas_{file_name(images)}.png", some, lambda m: m.crop)
  for crop in dict.fromkeys(m.crop for m in found):
    some = [m for m in found if m.crop == crop]
    if len(some) > 1:
      _save_areas(
        out / f"areas_{file_name(crop)}.png", some, lambda m: m.images
      )
    single = [m for m in some if len(m.shapes) == 1 and m.has_sizes]
    if single:
      _save_heatmaps(out / f"sizes_{file_name(crop)}.png", crop, single)


def _save_areas(path, found, label):
  ((ax,),) = plots.axes(size=(8, 4), grid=False)
  exact = [m for m in found if m.exact is not None]
  for i, m in enumerate(found):
    color = f"C{i}"
    sampled, best = (
      d.binned(_BINS) / np.diff(_BINS) for d in (m.sampled, m.best())
    )
    ax.stairs(sampled, _BINS, fill=True, color=color, alpha=0.25)
    name = label(m) if m in exact or not exact else f"{label(m)} (sampled)"
    ax.stairs(best, _BINS, color=color, label=name, linewidth=1.3)
  kind = "exact (line) over sampled (filled)" if exact else "sampled"
  ax.set(xlabel="crop area / image area", ylabel="density", title=kind)
  ax.set_xlim(0, 1)
  ax.legend(frameon=False)
  plots.save(ax.figure, path, dpi=130)


def _save_heatmaps(path, crop, found):
  """Window sizes, (h, w); a portrait image beside its landscape, transposed."""
  tables = []
  for m in found:
    ((height, width),) = m.shapes
    prob = m.best().parts[0][1].prob
    name = m.images
    if height > width:
      prob, name = prob.T, f"{name}, transposed"
    tables.append((name, prob))
  # One scale for all, that a heap at one size (a fallback) does not stretch.
  top = max(np.quantile(p[p > 0], 0.999) for _, p in tables)
  (axes,) = plots.axes(len(tables), size=(5 * len(tables) + 1, 3.2), grid=False)
  for ax, (name, prob) in zip(axes, tables, strict=True):
    picture = ax.imshow(prob, origin="lower", cmap="viridis", vmin=0, vmax=top)
    ax.set(xlabel="width", ylabel="height", title=name)
    if "transposed" in name:
      ax.set(xlabel="height", ylabel="width")
  figure = axes[0].figure
  bar = figure.colorbar(picture, ax=axes, label="probability")
  bar.formatter.set_powerlimits((-3, 3))  # shorter ticks than 0.000175
  kind = "sampled" if found[0].exact is None else "exact"
  figure.suptitle(f"{crop}: window sizes, {kind}")
  plots.save(figure, path, dpi=130)
