"""Critters: the embedded default dataset, drawn on the fly.

A photograph-like scene holds one critter: fish, bird, butterfly, beetle or
snail, with a plain, striped, spotted or ringed coat. Its kind and coat are the
label. Critters differ in scale (5% to 60% of the scene), place, pose and
light, and sit among leaves, pebbles, flowers and twigs that wear the same
coats. Therefore a small crop shows a coat, but one that may belong to the
clutter; the kind is visible only if most of the critter is in the crop; and a
crop that misses the critter is label noise. Colour helps (each kind has a
favourite hue, each coat favourite marks) but does not suffice.

Every example is a pure function of `VERSION`, the split and the index, so any
example can be drawn alone, in any process. Its bytes are the same wherever the
versions of NumPy and Pillow are the same.
"""

import colorsys
import functools
import io
import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from big_crop.data import base
from big_crop.data.figures import COATS, KINDS, VARIANTS, figure_of

VERSION = 1  # part of every seed: raise it when a drawing changes
CLASS_NAMES = tuple(f"{coat} {kind}" for kind in KINDS for coat in COATS)
NUM_CLASSES = len(CLASS_NAMES)
SPLIT_SIZES = {"train": 4000, "validation": 1000}

# Clutter: (name, lowest hue, highest hue, factor of the saturation).
_CLUTTER = (
  ("leaf", 0.12, 0.42, 0.6),
  ("pebble", 0.0, 1.0, 0.2),
  ("flower", 0.0, 1.0, 1.0),
  ("twig", 0.05, 0.12, 0.6),
)
_SUPERSAMPLE = 2
_JPEG_QUALITY = 85
_FAVOURITE = 0.8  # probability of a kind's own hue, and of a coat's own marks
# Half range of a kind's hue, in turns; kinds are 0.2 apart, so neighbours
# overlap.
_HUE_SPREAD = 0.13

# (aspect ratio as long side / short side, cumulative probability).
_ASPECTS = ((4 / 3, 0.64), (3 / 2, 0.80), (1.0, 0.92), (16 / 9, 1.0))
_PORTRAIT = 0.3


def example(split, index):
  """Draws one example, in about 1 ms.

  Args:
    split: "train" or "validation".
    index: int in [0, SPLIT_SIZES[split]).

  Returns:
    (jpeg, label): the JPEG file (RGB) as bytes, and an int in
    [0, NUM_CLASSES).
  """
  label = _label(split, index)
  image = _draw(_rng(split, "image", index), label)
  file = io.BytesIO()
  image.save(file, "JPEG", quality=_JPEG_QUALITY)
  return file.getvalue(), label


@functools.cache  # Training and evaluation often share a range.
def generate(split, start, stop):
  """(jpegs, labels), two lists, of the examples start..stop-1 of a split."""
  examples = [example(split, i) for i in range(start, stop)]
  return [jpeg for jpeg, _ in examples], [label for _, label in examples]


def open_critters(split: str, shard: tuple[int, int]) -> base.IndexedSource:
  """The dataset as a source; see `sources.get_source`."""
  names = [
    f"critters {s}[{i}]" for s, n in SPLIT_SIZES.items() for i in range(n)
  ]
  # Only the split's images are drawn. The others have empty places, so that an
  # index means the same image whatever the split.
  images, labels = [b""] * len(names), [-1] * len(names)
  ranges = base.check_split(split, SPLIT_SIZES, "dataset 'critters'")
  for name, start, stop in ranges:
    first = names.index(f"critters {name}[0]")
    place = slice(first + start, first + stop)
    images[place], labels[place] = generate(name, start, stop)
  return base.IndexedSource(
    images,
    labels,
    SPLIT_SIZES,
    ranges,
    CLASS_NAMES,
    shard,
    describe=names.__getitem__,
  )


def _rng(split, purpose, index):
  stream = list(SPLIT_SIZES).index(split) * 2 + (purpose == "image")
  key = np.array([VERSION << 32 | stream, index], np.uint64)
  return np.random.Generator(np.random.Philox(key=key))


def _label(split, index):
  """The label of an example.

  Each run of NUM_CLASSES indices has a permutation of the classes, so that
  every class has the same count in a split, and nearly so in any contiguous
  part of it.
  """
  block, place = divmod(index, NUM_CLASSES)
  return int(_rng(split, "label", block).random(NUM_CLASSES).argsort()[place])


# The scene.


def _draw(rng, label):
  # Only uniforms are drawn, because NumPy does not change their stream between
  # releases.
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
    figure = figure_of(name, *_coat_and_variant(rng.random(2)))
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
    # The coat "plain", number 0, has no marks to colour.
    marks = (coat - 0.5) / 3
  figure = figure_of(KINDS[kind], COATS[coat], int(rng.random() * VARIANTS))
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
  return COATS[int(u[0] * len(COATS))], int(u[1] * VARIANTS)


def _pose(u, radius, turn):
  """(2x2 matrix of a turn by up to `turn`, a squash and a mirroring; bend)."""
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
    u: float[8] in [0, 1): the random variations.
    hue: hue of the body, in turns.
    marks: in [0, 1): in the first third the marks are dark, in the second pale,
      in the last of another hue.
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
