"""Figures of `big_crop.measure`, like the paper's 1, 2, 3, 13 and 15."""

import numpy as np
from etils import epath
from matplotlib.patches import Rectangle
from PIL import Image

from big_crop.display import plots
from big_crop.display.tables import file_name
from pp_ops import laws as crop_laws
from pp_ops.errors import UserError

_BINS = np.linspace(0, 1, 101)
_DRAWN = 1000  # windows that are drawn at random for a picture
_OUTLINES = 12  # how many of them are outlined on the picture
# Crops with these percentiles of the area are shown.
_SHOWN = (5, 15, 25, 35, 45, 55, 65, 75, 85, 95)


def save_all(out: epath.Path, found) -> None:
  """Draws every figure.

  Args:
    out: the folder.
    found: list of `measurement.Measurement`.
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
  """Heatmaps of the window size (h, w); portrait shapes are transposed."""
  tables = []
  for m in found:
    ((height, width),) = m.shapes
    prob = m.best().parts[0][1].prob
    name = m.images
    if height > width:
      prob, name = prob.T, f"{name}, transposed"
    tables.append((name, prob))
  # One colour scale for all. A quantile, because otherwise a peak at a single
  # size, that of the fallback, would stretch it.
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


def read_picture(path: str) -> np.ndarray:
  """An image file as uint8 [H, W, 3]."""
  try:
    with Image.open(path) as image:
      return np.asarray(image.convert("RGB"))
  except (OSError, Image.DecompressionBombError) as e:
    reason = getattr(e, "strerror", None) or "no image that Pillow can read"
    raise UserError(f"--picture {path}: {reason}") from None


def save_windows(path: epath.Path, found, picture: np.ndarray, seed: int):
  """Each law's windows on a picture, and its crops from small to large.

  Args:
    path: the PNG.
    found: list of `measurement.Measurement`; laws of several windows are left
      out.
    picture: uint8 [H, W, 3].
    seed: seed of the random numbers, which are the same for all laws.
  """
  laws = {m.crop: m.law for m in found if isinstance(m.law, crop_laws.Law)}
  height, width, _ = picture.shape
  columns = len(_SHOWN) // 2
  axes = plots.axes(
    columns + 2,
    2 * len(laws),
    size=(1.7 * (columns + 2), 2 * len(laws) * 1.35),
    grid=False,
  )
  figure, grid = axes[0, 0].figure, axes[0, 0].get_gridspec()
  for ax in axes.flat:
    ax.set_axis_off()
  for row, (crop, law) in enumerate(laws.items()):
    rng = np.random.default_rng(seed)
    windows = np.stack(crop_laws.sample(law, _DRAWN, height, width, rng)[:4], 1)
    whole = figure.add_subplot(grid[2 * row : 2 * row + 2, :2])
    whole.imshow(picture)
    whole.set_title(crop, loc="left", fontsize=10)
    whole.set_axis_off()
    for y, x, h, w in windows[:_OUTLINES]:
      whole.add_patch(
        Rectangle((x - 0.5, y - 0.5), w, h, fill=False, color="w", linewidth=1)
      )
    areas = windows[:, 2] * windows[:, 3] / (height * width)
    order = np.argsort(areas)
    for i, percentile in enumerate(_SHOWN):
      k = order[len(order) * percentile // 100]
      y, x, h, w = windows[k]
      ax = axes[2 * row + i // columns, 2 + i % columns]
      ax.imshow(picture[y : y + h, x : x + w], aspect="auto")
      ax.set_title(f"{areas[k]:.0%} of the image", fontsize=8)
  plots.save(figure, path, dpi=110)
