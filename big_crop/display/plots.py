"""What all figures have in common: style, legend, saving.

Figures are made without pyplot, because pyplot needs a backend chosen for the
whole process and keeps every figure until it is closed.
"""

import io

import matplotlib
import numpy as np
from etils import epath
from matplotlib.figure import Figure


def axes(
  columns: int = 1,
  rows: int = 1,
  *,
  size: tuple[float, float],
  grid: bool = True,
  **kw,
) -> np.ndarray:
  """The axes [rows, columns] of a new figure.

  Args:
    columns: number of columns.
    rows: number of rows.
    size: width and height of the figure in inches.
    grid: whether to draw grid lines at the ticks.
    **kw: further arguments of `Figure.subplots`.
  """
  figure = Figure(figsize=size, layout="constrained")
  found = figure.subplots(rows, columns, squeeze=False, **kw)
  for ax in found.flat:
    ax.spines[["top", "right"]].set_visible(False)
    # Ticks show whole values, such as 62.5, rather than 0.5 with offset +62.
    ax.ticklabel_format(useOffset=False)
    if grid:
      ax.grid(alpha=0.25)
  return found


def color_of(position: int, count: int):
  """The colour of level `position` of `count` ordered levels."""
  return matplotlib.colormaps["viridis"](0.82 * position / max(count - 1, 1))


def legend(figure: Figure, **kw) -> None:
  """One legend for all axes, outside of them, where it hides no line.

  It is beside the axes, or below them if long labels would leave them no room.
  """
  first = {}
  for ax in figure.axes:
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
      first.setdefault(label, handle)
  if first:
    beside = max(map(len, first)) < 16
    loc = "outside right upper" if beside else "outside lower center"
    style = {"loc": loc, "fontsize": 8, "frameon": False, **kw}
    figure.legend(first.values(), first, **style)


def save(figure: Figure, path: epath.Path, dpi: int = 120) -> None:
  """Writes a PNG."""
  data = io.BytesIO()
  figure.savefig(data, dpi=dpi, format="png")
  path.write_bytes(data.getvalue())


def svg(figure: Figure) -> str:
  """The figure as SVG text, without dates and random ids: reproducible."""
  data = io.BytesIO()
  with matplotlib.rc_context({"svg.hashsalt": "big_crop"}):
    figure.savefig(data, format="svg", metadata={"Date": None})
  return data.getvalue().decode()
