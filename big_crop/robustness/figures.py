"""Draws the first images of each test as the model gets them, and its top-1."""

import numpy as np
from etils import epath

from big_crop.display import plots
from big_crop.robustness.suite import NONE, Measurement, label

_WIDTH = 9.0  # inches
_GAP = 2  # pixels


def save(path: epath.Path, m: Measurement) -> None:
  """Draws a row of images for each test, and one for each corruption.

  A corruption is shown at its highest severity.

  Args:
    path: the PNG.
    m: the run's measurement.
  """
  highest = {}
  for test in m.results:
    name, severity = (test, 0) if isinstance(test, str) else test
    highest[name] = max(severity, highest.get(name, 0))
  shown = [
    test
    for test in m.results
    if isinstance(test, str) or (test != NONE and highest[test[0]] == test[1])
  ]
  strips = [_strip(m.results[test].images) for test in shown]
  height = sum(_WIDTH * s.shape[0] / s.shape[1] + 0.04 for s in strips)
  axes = plots.axes(1, len(strips), size=(_WIDTH + 2.2, height + 0.5))[:, 0]
  for ax, test, strip in zip(axes, shown, strips, strict=True):
    ax.imshow(strip, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    top1 = m.results[test].metrics["top1"]
    text = f"{label(test)}\n{100 * top1:.1f}%"
    ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)
  axes[0].figure.suptitle(f"{m.name}: images of each test, top-1", fontsize=11)
  plots.save(axes[0].figure, path)


def _strip(images):
  """Images [n, H, W, C] side by side, with white gaps between them."""
  gap = [(0, 0), (0, 0), (0, _GAP), (0, 0)]
  padded = np.pad(images, gap, constant_values=255)
  return np.concatenate(list(padded), 1)[:, :-_GAP]
