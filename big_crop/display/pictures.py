"""The two pictures of a run: its curves, and images as the model sees them."""

import importlib.util
import io

import numpy as np
from etils import epath
from PIL import Image


def save_curves(path: epath.Path, records: list[dict[str, float]]) -> None:
  """Plots the training loss, and a metric of each evaluator, against the step.

  The metric is top-1, or the first one of an evaluator that has no top-1.
  Without matplotlib, which training does not need, nothing is drawn.

  Args:
    path: the PNG.
    records: the records of metrics.jsonl.
  """
  if importlib.util.find_spec("matplotlib") is None:
    return
  from big_crop.display import plots

  (axes,) = plots.axes(2, size=(10, 4))
  _plot(axes[0], records, ["training_loss"])
  axes[0].set(xlabel="step", ylabel="training loss")
  names = {}
  for key in (k for r in records for k in r if "/" in k):
    name, _, metric = key.partition("/")
    if metric == "top1" or name not in names:
      names[name] = key
  names = sorted(names.values())
  top1 = all(name.endswith("/top1") for name in names)
  _plot(axes[1], records, names)
  axes[1].set(xlabel="step", ylabel="top-1" if top1 else "metric")
  if names:
    axes[1].legend(frameon=False)
  plots.save(axes[0].figure, path)


def _plot(ax, records, names):
  for name in names:
    points = [(r["step"], r[name]) for r in records if name in r]
    ax.plot(
      *np.transpose(points),
      label=name,
      marker="." if len(points) < 30 else None,
    )


def save_image_grid(path: epath.Path, images: np.ndarray) -> None:
  """Draws a grid of images, with their value range stretched to [0, 255].

  Args:
    path: the PNG.
    images: [N, H, W, 3 or 1] float; the first 32 are drawn.
  """
  columns, gap = 8, 2
  images = np.asarray(images[: 4 * columns], np.float32)
  low, high = images.min(), images.max()
  images = (images - low) / max(high - low, 1e-9) * np.ones(3, np.float32)
  # White gaps between images, and white places at the end of the last row.
  padding = [(0, -len(images) % columns), (0, gap), (0, gap), (0, 0)]
  images = np.pad(images, padding, constant_values=1)
  _, height, width, _ = images.shape
  grid = images.reshape(-1, columns, height, width, 3).swapaxes(1, 2)
  grid = grid.reshape(-1, columns * width, 3)[:-gap, :-gap]
  # Small images are enlarged by whole factors, without smoothing.
  zoom = max(1, round(800 / grid.shape[1]))
  levels = np.round(grid * 255).astype(np.uint8)
  data = io.BytesIO()
  Image.fromarray(levels.repeat(zoom, 0).repeat(zoom, 1)).save(data, "PNG")
  path.write_bytes(data.getvalue())
