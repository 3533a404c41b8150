"""Figures of the embedded dataset: critters and clutter, as polygons.

A figure roughly fills [-1, 1]^2, with x to the right and y down. A coat is a
list of polygons in the unit disc; a body part that wears the coat is a warped
image of that disc.
"""

import functools
import math

import numpy as np

KINDS = ("fish", "bird", "butterfly", "beetle", "snail")
COATS = ("plain", "striped", "spotted", "ringed")
VARIANTS = 3  # variants of each coat
_RIM = 0.06  # width of the outline

# Roles of the polygons in a figure, as indices into the figure's colours.
_OUTLINE, _BODY, _MARK, _SKIN, _WHITE = range(5)


def _disc(count=18):
  angle = np.arange(count) * (2 * math.pi / count)
  return np.stack([np.cos(angle), np.sin(angle)], 1)


def _band(left, right):
  """The part of the unit disc with left <= x <= right."""
  x = np.linspace(left, right, 5)
  y = np.sqrt(np.maximum(1 - x * x, 0))
  return np.concatenate([np.stack([x, y], 1), np.stack([x, -y], 1)[::-1]])


def _coat(name, variant):
  """The polygons of a coat as a list of (role, points in the unit disc)."""
  if name == "striped":
    count = 3 + variant
    edges = np.linspace(-1, 1, 2 * count + 2)[1:-1]
    return [(_MARK, _band(*edge)) for edge in edges.reshape(-1, 2)]
  if name == "spotted":
    count = 5 + variant
    ring = _disc(count) * 0.62
    dots = [(0.0, 0.0), *ring]
    return [(_MARK, dot + 0.2 * _disc(8)) for dot in dots]
  if name == "ringed":
    outer = 0.86 - 0.06 * variant
    radii = (outer, 0.68 * outer, 0.36 * outer)
    roles = (_MARK, _BODY, _MARK)
    return [(role, r * _disc(14)) for role, r in zip(roles, radii, strict=True)]
  return []


def _warp(
  points, x, y, rx, ry, turn=0.0, taper=0.0, pinch=0.0, lobes=0, depth=0.0
):
  """Maps points of the unit disc to a body part.

  Args:
    points: float[n, 2] in the unit disc.
    x: centre of the part.
    y: centre of the part.
    rx: half extent along the part's own axis.
    ry: half extent across the axis.
    turn: angle of the axis, in radians.
    taper: at the axis' end the part is 1 + taper times as wide.
    pinch: 0 is an ellipse; larger is more pointed at both ends.
    lobes: number of petals around the part.
    depth: depth of the cuts between petals.

  Returns:
    float[n, 2] in the frame of the figure.
  """
  u, v = points.T
  if lobes:
    petal = 1 - depth * (1 - np.cos(lobes * np.arctan2(v, u))) / 2
    u, v = u * petal, v * petal
  v = v * (1 + taper * u) * np.maximum(1 - u * u, 0) ** pinch
  u, v = u * rx, v * ry
  cos, sin = math.cos(turn), math.sin(turn)
  return np.stack([x + u * cos - v * sin, y + u * sin + v * cos], 1)


@functools.cache
def figure_of(name, coat, variant):
  """The polygons of a figure.

  Args:
    name: one of `KINDS`, or "leaf", "pebble", "flower" or "twig".
    coat: one of `COATS`.
    variant: int in [0, VARIANTS).

  Returns:
    (points, polygons): points is float[n, 2], those of all polygons. polygons
    is a list of (start, stop, role), in the order of drawing, where start and
    stop index the ravelled points. Roles are 0 outline, 1 body, 2 marks,
    3 skin, 4 white.
  """
  polygons = []

  def worn(*place, **shape):
    x, y, rx, ry = place
    disc = _disc(14 * shape["lobes"]) if "lobes" in shape else _disc()
    outline = _warp(disc, x, y, rx + _RIM, ry + _RIM, **shape)
    polygons.append((_OUTLINE, outline))
    polygons.append((_BODY, _warp(disc, *place, **shape)))
    for role, points in _coat(coat, variant):
      polygons.append((role, _warp(points, *place, **shape)))

  def bare(role, *place, **shape):
    polygons.append((role, _warp(_disc(12), *place, **shape)))

  def shape(role, *corners):
    polygons.append((role, np.array(corners, float)))

  def line(x0, y0, x1, y1, thick=0.05):
    length = math.hypot(x1 - x0, y1 - y0)
    nx, ny = thick * (y0 - y1) / length, thick * (x1 - x0) / length
    shape(
      _OUTLINE,
      (x0 + nx, y0 + ny),
      (x1 + nx, y1 + ny),
      (x1 - nx, y1 - ny),
      (x0 - nx, y0 - ny),
    )

  def eye(x, y, size=0.09):
    bare(_WHITE, x, y, size, size)
    bare(_OUTLINE, x, y, size / 2, size / 2)

  _FIGURES[name](worn, bare, shape, line, eye)
  stops = np.cumsum([2 * len(points) for _, points in polygons]).tolist()
  spans = zip([0, *stops], stops, [role for role, _ in polygons], strict=False)
  return np.concatenate([points for _, points in polygons]), list(spans)


def _fish(worn, bare, shape, line, eye):
  shape(_SKIN, (0.45, 0), (1.0, -0.5), (0.86, 0), (1.0, 0.5))
  shape(_SKIN, (-0.35, -0.3), (0.15, -0.72), (0.45, -0.2))
  shape(_SKIN, (-0.1, 0.3), (0.25, 0.66), (0.35, 0.2))
  worn(-0.2, 0, 0.78, 0.46, taper=-0.25, pinch=0.12)
  eye(-0.72, -0.1)


def _bird(worn, bare, shape, line, eye):
  line(0.05, 0.4, 0.0, 0.95)
  line(0.22, 0.4, 0.22, 0.95)
  shape(_SKIN, (0.4, 0.0), (1.0, -0.42), (1.0, -0.05), (0.5, 0.35))
  shape(_WHITE, (-0.8, -0.62), (-1.05, -0.42), (-0.74, -0.36))
  worn(0.08, 0.1, 0.66, 0.44, turn=-0.2, taper=-0.2)
  bare(_SKIN, -0.56, -0.48, 0.3, 0.28)
  eye(-0.62, -0.54)


def _butterfly(worn, bare, shape, line, eye):
  for side in (-1, 1):
    line(side * 0.03, -0.5, side * 0.3, -0.95, 0.03)
    turn = math.pi / 2 + side * (-math.pi / 2)
    worn(side * 0.42, 0.42, 0.44, 0.34, turn=turn + side * 0.8, taper=0.4)
    worn(side * 0.54, -0.28, 0.56, 0.38, turn=turn - side * 0.5, taper=0.5)
  bare(_OUTLINE, 0, 0.02, 0.1, 0.62)


def _beetle(worn, bare, shape, line, eye):
  for side in (-1, 1):
    for y0, y1 in ((-0.2, -0.5), (0.1, 0.15), (0.4, 0.8)):
      line(0, y0, side * 0.85, y1)
    line(0, -0.7, side * 0.4, -1.0, 0.03)
  bare(_OUTLINE, 0, -0.68, 0.3, 0.26)
  worn(0, 0.12, 0.76, 0.54, turn=math.pi / 2)
  line(0, -0.6, 0, 0.88, 0.025)


def _snail(worn, bare, shape, line, eye):
  line(-0.7, 0.4, -0.62, -0.25, 0.035)
  line(-0.85, 0.4, -0.95, -0.2, 0.035)
  shape(
    _SKIN,
    *((-1.0, 0.3), (-0.66, 0.2), (-0.4, 0.5), (0.6, 0.5), (1.05, 0.8)),
    *((-0.7, 0.8), (-0.98, 0.6)),
  )
  worn(0.12, -0.02, 0.64, 0.6)
  eye(-0.62, -0.28, 0.08)
  eye(-0.95, -0.23, 0.08)


def _leaf(worn, bare, shape, line, eye):
  worn(0, 0, 0.95, 0.5, pinch=0.5)


def _pebble(worn, bare, shape, line, eye):
  worn(0, 0, 0.85, 0.65, taper=0.2)


def _flower(worn, bare, shape, line, eye):
  worn(0, 0, 0.9, 0.9, lobes=6, depth=0.4)
  bare(_WHITE, 0, 0, 0.2, 0.2)


def _twig(worn, bare, shape, line, eye):
  shape(_SKIN, (-1.6, 0), (0, -0.12), (1.6, 0), (0, 0.12))
  shape(_SKIN, (0, 0.05), (0.7, -0.6), (0.25, -0.05))


_FIGURES = {
  f.__name__.removeprefix("_"): f
  for f in (
    *(_fish, _bird, _butterfly, _beetle, _snail),
    *(_leaf, _pebble, _flower, _twig),
  )
}
