"""Critters: the embedded default dataset, drawn on the fly.

A photograph-like scene holds one critter: fish, bird, butterfly, beetle or
snail, with a plain, striped, spotted or ringed coat. Its kind and coat are the
label. Critters differ in scale (5% to 60% of the scene), place, pose and
light, and sit among leaves, pebbles, flowers and twigs that wear the same
coats. So a coat shows in a small crop but may belong to the clutter; a kind
shows only if most of the critter is in the crop; and a crop that misses the
critter is label noise. Colour helps (each kind has a favourite hue, each coat
favourite marks) and does not suffice.

Every example is a pure function of `VERSION`, the split and the index: any one
can be drawn alone, in any process. The bytes are the same wherever NumPy and
Pillow are the same.
"""

import colorsys
import difflib
import functools
import io
import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw

VERSION = 1  # part of every seed: raise it when a drawing changes
KINDS = ("fish", "bird", "butterfly", "beetle", "snail")
COATS = ("plain", "striped", "spotted", "ringed")
CLASS_NAMES = tuple(f"{coat} {kind}" for kind in KINDS for coat in COATS)
NUM_CLASSES = len(CLASS_NAMES)
SPLIT_SIZES = {"train": 4000, "validation": 1000}

# Clutter by name: a range of hues, and the factor of its saturation.
_CLUTTER = (
  ("leaf", 0.12, 0.42, 0.6),
  ("pebble", 0.0, 1.0, 0.2),
  ("flower", 0.0, 1.0, 1.0),
  ("twig", 0.05, 0.12, 0.6),
)
_VARIANTS = 3  # of each coat
_SUPERSAMPLE = 2
_JPEG_QUALITY = 85
_FAVOURITE = 0.8  # probability of a kind's own hue, and of a coat's own marks
_HUE_SPREAD = 0.13  # in turns; kinds are 0.2 apart, so that neighbours overlap

# Aspect ratio (long side / short side) with its cumulative probability.
_ASPECTS = ((4 / 3, 0.64), (3 / 2, 0.80), (1.0, 0.92), (16 / 9, 1.0))
_PORTRAIT = 0.3

# Roles of the polygons in a figure, which index the colours it is drawn with.
_OUTLINE, _BODY, _MARK, _SKIN, _WHITE = range(5)


def example(split, index):
  """Draws one example.

  Args:
    split: "train" or "validation".
    index: int in [0, SPLIT_SIZES[split]).

  Returns:
    (jpeg, label): the JPEG file (RGB) as bytes, and an int in
    [0, NUM_CLASSES).

  Raises:
    ValueError: on an unknown split or an index outside of it.
  """
  size = _split_size(split)
  if not 0 <= index < size:
    raise ValueError(f"critters: no index {index} in {split!r} (0..{size - 1})")
  label = _label(split, index)
  image = _draw(_rng(split, "image", index), label)
  file = io.BytesIO()
  image.save(file, "JPEG", quality=_JPEG_QUALITY)
  return file.getvalue(), label


def generate(split, start=0, stop=None):
  """Draws the examples start..stop-1 of a split, about 1 ms each.

  Args:
    split: "train" or "validation".
    start: first index.
    stop: index after the last; None is the end of the split.

  Returns:
    (jpegs, labels): list of bytes, and int64[stop - start].

  Raises:
    ValueError: on an unknown split or an index outside of it.
  """
  size = _split_size(split)
  stop = size if stop is None else stop
  if not 0 <= start <= stop <= size:
    wrong = f"{start}..{stop} is not within 0..{size}"
    raise ValueError(f"critters: {wrong} in {split!r}")
  examples = [example(split, i) for i in range(start, stop)]
  jpegs = [jpeg for jpeg, _ in examples]
  return jpegs, np.array([label for _, label in examples], np.int64)


def _split_size(split):
  if split not in SPLIT_SIZES:
    near = difflib.get_close_matches(str(split), SPLIT_SIZES, 1, 0)[0]
    raise ValueError(f"critters: no split {split!r}; did you mean {near!r}?")
  return SPLIT_SIZES[split]


def _rng(split, purpose, index):
  stream = list(SPLIT_SIZES).index(split) * 2 + (purpose == "image")
  key = np.array([VERSION << 32 | stream, index], np.uint64)
  return np.random.Generator(np.random.Philox(key=key))


def _label(split, index):
  """A permutation of the classes in each run of NUM_CLASSES indices.

  So that every class has the same count in a split, and nearly so in any
  contiguous part of it.
  """
  block, place = divmod(index, NUM_CLASSES)
  return int(_rng(split, "label", block).random(NUM_CLASSES).argsort()[place])


# The scene.


def _draw(rng, label):
  # Uniforms only: their stream does not change between NumPy releases.
  uniform = lambda low, high: low + (high - low) * rng.random()
  kind, coat = divmod(label, len(COATS))
  width, height = _image_size(rng.random(3))
  short = min(width, height) * _SUPERSAMPLE
  background = _background(rng, width, height)
  canvas = background.resize(
    (width * _SUPERSAMPLE, height * _SUPERSAMPLE), Image.Resampling.NEAREST
  )
  draw = ImageDraw.Draw(canvas)

  def clutter(x, y, radius):
    name, low, high, vivid = _CLUTTER[int(rng.random() * len(_CLUTTER))]
    figure = _figure(name, *_coat_and_variant(rng.random(2)))
    pose = _pose(rng.random(4), radius, turn=math.pi)
    colours = _colours(rng.random(8), uniform(low, high), rng.random(), vivid)
    _paint(draw, figure, pose, x, y, colours)

  for _ in range(int(uniform(3, 9))):
    x, y = rng.random() * canvas.width, rng.random() * canvas.height
    clutter(x, y, uniform(0.06, 0.2) * short)

  radius = uniform(0.24, 0.5) * short
  x, y = (
    uniform(0.9 * radius, side - 0.9 * radius)
    if side > 1.8 * radius
    else side / 2
    for side in canvas.size
  )
  hue, marks = rng.random(2)
  if rng.random() < _FAVOURITE:
    hue = kind / len(KINDS) + uniform(-_HUE_SPREAD, _HUE_SPREAD)
  if rng.random() < _FAVOURITE:
    marks = (coat - 0.5) / 3  # plain has none to colour
  figure = _figure(KINDS[kind], COATS[coat], int(rng.random() * _VARIANTS))
  pose = _pose(rng.random(4), radius, turn=math.pi / 10)
  _paint(draw, figure, pose, x, y, _colours(rng.random(8), hue, marks))

  if rng.random() < 0.35:
    angle, far = uniform(0, 2 * math.pi), uniform(0.6, 1.0) * radius
    x, y = x + far * math.cos(angle), y + far * math.sin(angle)
    clutter(x, y, uniform(0.25, 0.45) * radius)
  image = canvas.reduce(_SUPERSAMPLE)
  return ImageChops.multiply(image, _light(rng, image.size))


def _image_size(u):
  aspect = next(ratio for ratio, below in _ASPECTS if u[0] < below)
  long = 96 + int(u[1] * 105)
  size = long, round(long / aspect)
  return size[::-1] if u[2] < _PORTRAIT else size


def _noise(rng, columns, rows, size):
  cells = (rng.random((rows, columns)) * 256).astype(np.uint8)
  return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


def _background(rng, width, height):
  """Smooth patches under a grain that is finer along one direction."""
  cell_x, cell_y = 2 + 8 * rng.random(2) ** 2
  size = width, height
  patches = _noise(rng, 4, 4, size)
  grain = _noise(rng, int(width / cell_x), int(height / cell_y), size)
  field = Image.blend(patches, grain, 0.2 + 0.4 * rng.random())
  dark, pale = (
    Image.new("RGB", size, _rgb(u[0], 0.05 + 0.2 * u[1], 0.25 + 0.65 * u[2]))
    for u in rng.random((2, 3))
  )
  return Image.composite(dark, pale, field)


def _light(rng, size):
  corners = (160 + 95 * rng.random((2, 2))).astype(np.uint8)
  light = Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)
  return Image.merge("RGB", (light,) * 3)


def _coat_and_variant(u):
  return COATS[int(u[0] * len(COATS))], int(u[1] * _VARIANTS)


def _pose(u, radius, turn):
  """2x2 matrix: a turn up to `turn`, a squash, a mirror; and a bend."""
  angle = turn * (2 * u[0] - 1)
  squash = 0.8 + 0.4 * u[1]
  mirror = -1 if u[2] < 0.5 else 1
  cos, sin = math.cos(angle) * radius, math.sin(angle) * radius
  matrix = np.array(
    [[mirror * cos, mirror * sin], [-sin * squash, cos * squash]]
  )
  return matrix, 0.4 * u[3] - 0.2


def _colours(u, hue, marks, vivid=1.0):
  """The colours of a figure by role, as (r, g, b) in 0..255.

  Args:
    u: float[8] in [0, 1): what varies.
    hue: of the body, in turns.
    marks: in thirds of [0, 1), marks are dark, pale, or of another hue.
    vivid: factor of the saturation.
  """
  body = (hue, 0.6 + 0.4 * u[0], 0.5 + 0.35 * u[1])
  mark = (
    (hue + 0.2 * (u[2] - 0.5), 0.6, 0.05 + 0.2 * u[3]),
    (hue + 0.2 * (u[2] - 0.5), 0.2 * u[3], 0.85 + 0.15 * u[4]),
    (hue + 0.35 + 0.3 * u[2], 0.6 + 0.4 * u[3], 0.6 + 0.35 * u[4]),
  )[int(3 * marks)]
  outline = (hue + 0.1 * u[5], 0.6, 0.1 + 0.15 * u[6])
  skin = (hue + 0.15 * (u[7] - 0.5), 0.5, 0.7 * body[2])
  figure = outline, body, mark, skin, (0, 0, 0.95)
  return [_rgb(h % 1, vivid * s, v) for h, s, v in figure]


def _rgb(hue, saturation, value):
  red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
  return int(255 * red), int(255 * green), int(255 * blue)


def _paint(draw, figure, pose, x, y, colours):
  points, polygons = figure
  matrix, bend = pose
  points = np.stack([points[:, 0], points[:, 1] + bend * points[:, 0] ** 2], 1)
  flat = (points @ matrix + (x, y)).ravel().tolist()
  for start, stop, role in polygons:
    draw.polygon(flat[start:stop], fill=colours[role])


# Figures: polygons in a frame where the figure about fills [-1, 1]^2, x to the
# right and y down. A coat is polygons in the unit disc, and what wears it is
# an image of that disc.


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
  """Carries points of the unit disc to a body part.

  Args:
    points: float[n, 2] in the unit disc.
    x: centre of the part.
    y: centre of the part.
    rx: half extent along the part's own axis.
    ry: half extent across it.
    turn: angle of the axis, in radians.
    taper: the part is 1 + taper times as wide at the axis' end.
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
def _figure(name, coat, variant):
  """Points of all polygons, and (start, stop, role) of each in their ravel."""
  polygons = []

  def worn(*place, rim=0.06, **shape):
    x, y, rx, ry = place
    disc = _disc(14 * shape["lobes"]) if "lobes" in shape else _disc()
    polygons.append((_OUTLINE, _warp(disc, x, y, rx + rim, ry + rim, **shape)))
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
  "fish": _fish,
  "bird": _bird,
  "butterfly": _butterfly,
  "beetle": _beetle,
  "snail": _snail,
  "leaf": _leaf,
  "pebble": _pebble,
  "flower": _flower,
  "twig": _twig,
}
