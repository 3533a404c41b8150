"""Augmentation ops that move pixels, as `pp_ops.geometry`; and cutout.

A move is affine: the pixel in column x and row y comes from column
ax x + bx y + cx and row ay x + by y + cy. Positions are float32. Where tf.data
has float64 they differ by 1e-5 pixels, which now and then decides on which side
of a border a pixel falls.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_crop.device_ops.uint8_op import Part, Stage, register_uint8, run
from pp_ops.augmentations import (
  check_bool,
  check_cutout,
  check_fill_fits,
  fixed_point,
)
from pp_ops.checks import check_fill, check_interpolation, check_number

# float32 sums of weights that are 1 in truth; truncating needs them not below.
_ROUNDING = 2.0**-10


class _Move(NamedTuple):
  """Where pixels come from; float32 scalars.

  Attributes:
    ax: columns per column.
    bx: columns per row.
    cx: columns.
    ay: rows per column.
    by: rows per row.
    cy: rows.
    start: where the first pixel's centre is for `bx` and `ay`.
    cubic: whether to interpolate with the cubic kernel; bool.
  """

  ax: jax.Array | float = 1.0
  bx: jax.Array | float = 0.0
  cx: jax.Array | float = 0.0
  ay: jax.Array | float = 0.0
  by: jax.Array | float = 1.0
  cy: jax.Array | float = 0.0
  start: jax.Array | float = 0.0
  cubic: jax.Array | bool = False


def _positions(image, move):
  """Columns and rows [H, W] that pixels come from."""
  y, x = (np.arange(n, dtype=np.float32) for n in image.shape[:2])
  # The barrier keeps XLA from contracting these products and the sums below to
  # one operation that rounds once, whereas tf.data rounds twice. That decides
  # ties between two pixels, which are common: a shear of 0.3 has them in every
  # tenth row.
  products = jax.lax.optimization_barrier(
    (
      *(move.ax * x, move.bx * (y + move.start)),
      *(move.ay * (x + move.start), move.by * y),
    )
  )
  ax, bx, ay, by = products
  return (
    ax + bx[:, None] + move.cx,
    ay + by[:, None] + move.cy,
  )


def _or_fill(inside, pixels, fill):
  check_fill_fits(fill, pixels.shape[-1])
  return jnp.where(inside[..., None], pixels, jnp.asarray(fill, jnp.uint8))


def _pack(parts):
  """Up to four uint8 arrays as one of uint32, so as to gather all at once."""
  shifted = [x.astype(jnp.uint32) << (8 * i) for i, x in enumerate(parts)]
  return functools.reduce(jnp.bitwise_or, shifted)


def _unpack(words, i):
  return words >> (8 * i) & 255


def _gather(words, row, column):
  """words[row, column], for places that are there."""
  flat = words.reshape(-1, *words.shape[2:])
  place = row * words.shape[1] + column
  return flat.at[place].get(mode="promise_in_bounds")


def _pick(image, move, fill):
  """The pixels nearest to positions. Halves go up, but -0.5 is outside."""
  height, width, _ = image.shape
  x, y = _positions(image, move)
  inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
  row, column = (jnp.floor(a + 0.5).astype(jnp.int32) for a in (y, x))
  return _pixels_at(image, row, column, inside, fill)


def _pick_as_pillow(image, move, fill):
  """The pixels that `Image.transform` picks."""
  height, width, _ = image.shape
  y, x = (np.arange(n, dtype=np.int32) for n in image.shape[:2])
  column, row = (
    fixed_point(x, y[:, None], terms, jnp, lambda v: v.astype(jnp.int32))
    for terms in (
      (move.ax, move.bx, move.cx + move.bx * move.start + 0.5),
      (move.ay, move.by, move.cy + move.ay * move.start + 0.5),
    )
  )
  inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
  return _pixels_at(image, row, column, inside, fill)


def _pixels_at(image, row, column, inside, fill):
  """The pixels at int32 rows and columns, or `fill` where not `inside`."""
  height, width, channels = image.shape
  words = _pack([image[..., i] for i in range(channels)])
  found = _gather(
    jax.lax.optimization_barrier(words),
    jnp.clip(row, 0, height - 1),
    jnp.clip(column, 0, width - 1),
  )
  out = jnp.stack([_unpack(found, i) for i in range(channels)], -1)
  return _or_fill(inside, out.astype(jnp.uint8), fill)


def _kernel(d, cubic, four):
  """Weights of the pixels -1 to 2, or 0 and 1, at a distance d from pixel 0.

  They are float32 like d, 0 <= d < 1; `four` says how many. `cubic`, a bool
  scalar, chooses the kernel of Keys (1981) with a = -1, else it is the
  triangle.
  """
  linear = [1.0 - d, d]
  if not four:
    return linear
  left, inverse = d * d, 1.0 - d
  right = inverse * inverse
  keys = [
    -d * right,
    1.0 - left * (2.0 - d),
    1.0 - right * (2.0 - inverse),
    -inverse * left,
  ]
  zero = jnp.zeros_like(d)
  pairs = zip(keys, [zero, *linear, zero], strict=True)
  return [jnp.where(cubic, a, b) for a, b in pairs]


def _interpolate(image, move, fill, four):
  """Samples between pixels, those beyond an edge replaced by those on it.

  The kernel has four pixels by four, or two by two; see `_kernel`.
  """
  height, width, _ = image.shape
  x, y = _positions(image, move)
  column, row = jnp.floor(x), jnp.floor(y)
  across, along = (
    _kernel(d[..., None], move.cubic, four) for d in (x - column, y - row)
  )
  taps = (-1, 0, 1, 2) if four else (0, 1)
  # Neighbours along a row are in one word: all of them are gathered at once.
  # An inside position has its pixel 0 in column -1 to width - 1.
  padded = jnp.pad(image, [(0, 0), (2, 2), (0, 0)], "edge")
  words = _pack([padded[:, k + 1 :][:, : width + 1] for k in taps])
  words = jax.lax.optimization_barrier(words)
  column, row = column.astype(jnp.int32), row.astype(jnp.int32)
  column = jnp.clip(column + 1, 0, width)
  out = 0.0
  for k, weight in zip(taps, along, strict=True):
    found = _gather(words, jnp.clip(row + k, 0, height - 1), column)
    line = 0.0
    for i, part in enumerate(across):
      line += part * _unpack(found, i).astype(jnp.float32)
    out += weight * line
  out = jnp.clip(out + _ROUNDING, 0.0, 255.0).astype(jnp.uint8)
  inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
  return _or_fill(inside, out, fill)


@functools.cache
def _stage(fill, kind):
  """The stage of all moves with a fill and an interpolation.

  "bicubic" can be bilinear, too: the parameters say so.
  """
  if kind.startswith("nearest"):
    pick = _pick if kind == "nearest" else _pick_as_pillow
    sample = functools.partial(pick, fill=fill)
  else:
    sample = functools.partial(_interpolate, fill=fill, four=kind == "bicubic")
  # With these parameters sampling gives the image itself, to the last bit. They
  # are NumPy's because JAX's would belong to the program that is traced first.
  nothing = _Move(*map(np.float32, _Move()[:-1]), np.bool_(False))
  return Stage(sample, lambda image: nothing)


def _moving(move_of, fill, interpolation) -> Part:
  """An op that moves pixels.

  `move_of` is a function from (height, width) to the fields of `_Move` but
  `cubic`, by name. The interpolation is one of `pp_ops.checks.INTERPOLATIONS`;
  or a bool scalar, whether bicubic rather than bilinear, so that a policy can
  draw it.
  """
  check_fill(fill)
  fill = tuple(fill) if isinstance(fill, list) else fill
  if isinstance(interpolation, str):
    check_interpolation(interpolation)
    kind, cubic = interpolation, interpolation == "bicubic"
  else:
    kind, cubic = "bicubic", interpolation

  def parameters(image):
    fields = move_of(*image.shape[:2])
    move = _Move(**fields, cubic=cubic)
    return _Move(*map(jnp.float32, move[:-1]), jnp.asarray(cubic, bool))

  return Part(_stage(fill, kind), parameters)


@register_uint8("rotate")
def get_rotate(degrees: float, fill=128, interpolation: str = "nearest"):
  """Turns about the centre; see `pp_ops.geometry.get_rotate`."""
  check_number("degrees", degrees, -math.inf)
  angle = jnp.float32(degrees) * np.float32(math.pi / 180)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  if not (isinstance(interpolation, str) and interpolation == "nearest"):
    # As tf.data, which rounds doubles: whole turns by 90 degrees.
    cos, sin = (jnp.where(jnp.abs(a) < 1e-6, 0.0, a) for a in (cos, sin))

  def move(height, width):
    right, bottom = width - 1, height - 1
    return dict(
      ax=cos,
      bx=-sin,
      cx=(right - (cos * right - sin * bottom)) / 2,
      ay=sin,
      by=cos,
      cy=(bottom - (sin * right + cos * bottom)) / 2,
    )

  return _moving(move, fill, interpolation)


def _register_moves(axis, slope, offset):
  """Registers shear and translation along an axis, by what they change."""

  @register_uint8(f"shear_{axis}")
  def get_shear(
    level: float,
    fill=128,
    interpolation: str = "nearest",
    corner: bool = False,
  ):
    """Slides in proportion to the place; see `pp_ops.geometry`."""
    check_number("level", level, -math.inf)
    check_bool("corner", corner)
    fields = {slope: level, "start": 0.5 if corner else 0.0}
    return _moving(lambda height, width: fields, fill, interpolation)

  @register_uint8(f"translate_{axis}")
  def get_translate(pixels: float, fill=128, interpolation: str = "nearest"):
    """Moves the content towards the start; see `pp_ops.geometry`."""
    check_number("pixels", pixels, -math.inf)
    pixels = jnp.float32(pixels)
    if isinstance(interpolation, str) and interpolation.startswith("nearest"):
      pixels = jnp.floor(pixels + 0.5)
    return _moving(lambda height, width: {offset: pixels}, fill, interpolation)


_register_moves("x", "bx", "cx")
_register_moves("y", "ay", "cy")


@functools.cache
def _covering(fill):
  """The stage that covers a box (top, bottom, left, right) with a fill."""

  def cover(image, box):
    top, bottom, left, right = box
    y, x = (np.arange(n, dtype=np.int32) for n in image.shape[:2])
    y, x = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return _or_fill(~(y[:, None] & x), image, fill)

  return Stage(cover, lambda image: (jnp.int32(0),) * 4)


@register_uint8("cutout")
def get_cutout(pad_size: int, fill=128, place=None):
  """Covers a square; see `pp_ops.geometry.get_cutout`."""
  check_cutout(pad_size, fill, place)
  fill = tuple(fill) if isinstance(fill, list) else fill

  def cut_out(place):
    def box(image):
      sides = zip(place, image.shape[:2], strict=True)
      y, x = (jnp.int32(at * jnp.float32(n)) for at, n in sides)
      return y - pad_size, y + pad_size, x - pad_size, x + pad_size

    return Part(_covering(fill), box)

  if place is not None:
    return cut_out(place)
  return lambda image, rng: run(cut_out(rng.uniform([2])), image)
