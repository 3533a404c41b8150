"""Augmentation ops that move pixels, as `pp_ops.geometry`; and cutout.

A move is affine: the pixel in column x and row y comes from column
ax x + bx y + cx and row ay x + by y + cy. Positions are float32. Where tf.data
computes in float64, positions differ by 1e-5 pixels, which occasionally decides
on which side of a border a pixel falls.
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

# Added before truncating, because the weights sum to 1 only up to float32's
# rounding: a sum slightly below a grey level must become that level.
_ROUNDING = 2.0**-10


class _Move(NamedTuple):
  """An affine map from a pixel to where its value comes from; float32 scalars.

  Attributes:
    ax: source columns per column.
    bx: source columns per row.
    cx: source column of the origin.
    ay: source rows per column.
    by: source rows per row.
    cy: source row of the origin.
    start: what is added to the row that `bx` multiplies and to the column that
      `ay` multiplies: 0, or 0.5 for shears about the image's corner.
    cubic: whether to interpolate with the cubic kernel; bool scalar.
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
  """Source columns and rows of all pixels, each [H, W]."""
  y, x = (np.arange(n, dtype=np.float32) for n in image.shape[:2])
  # The barrier keeps XLA from fusing these products and the sums below into
  # multiply-adds, which round once where tf.data rounds twice. The rounding
  # decides ties between two pixels, and ties are common: a shear of 0.3 has
  # them in every tenth row.
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
  """Packs up to four uint8 arrays into one of uint32, for a single gather."""
  shifted = [x.astype(jnp.uint32) << (8 * i) for i, x in enumerate(parts)]
  return functools.reduce(jnp.bitwise_or, shifted)


def _unpack(words, i):
  return words >> (8 * i) & 255


def _gather(words, row, column):
  """words[row, column]; the indices must be within bounds."""
  flat = words.reshape(-1, *words.shape[2:])
  place = row * words.shape[1] + column
  return flat.at[place].get(mode="promise_in_bounds")


def _pick(image, move, fill):
  """The pixels nearest to positions. Halves round up, but -0.5 is outside."""
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
  """Weights of pixels -1 to 2, or of pixels 0 and 1, for a position at d.

  Args:
    d: float32, the position's distance from pixel 0, 0 <= d < 1.
    cubic: bool scalar: the kernel of Keys (1981) with a = -1 if true, else the
      triangle.
    four: False gives only the two weights of the triangle, whatever `cubic` is.

  Returns:
    A list of float32 arrays shaped like d.
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
  """Interpolates; pixels beyond an edge are replaced by those on it.

  The kernel covers 4x4 pixels if `four`, else 2x2; see `_kernel`.
  """
  height, width, _ = image.shape
  x, y = _positions(image, move)
  column, row = jnp.floor(x), jnp.floor(y)
  across, along = (
    _kernel(d[..., None], move.cubic, four) for d in (x - column, y - row)
  )
  taps = (-1, 0, 1, 2) if four else (0, 1)
  # One word packs all neighbours along a row, so that one gather reads them.
  # For positions inside the image, pixel 0 is in column -1 to width - 1.
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
  """The stage of all moves with a given fill and interpolation.

  The stage "bicubic" also does bilinear: `_Move.cubic` chooses.
  """
  if kind.startswith("nearest"):
    pick = _pick if kind == "nearest" else _pick_as_pillow
    sample = functools.partial(pick, fill=fill)
  else:
    sample = functools.partial(_interpolate, fill=fill, four=kind == "bicubic")
  # With these parameters sampling returns the image bit for bit. They are NumPy
  # scalars, because JAX's would belong to the first program that is traced and
  # this function's result is cached.
  nothing = _Move(*map(np.float32, _Move()[:-1]), np.bool_(False))
  return Stage(sample, lambda image: nothing)


def _moving(move_of, fill, interpolation) -> Part:
  """An op that moves pixels.

  Args:
    move_of: (height, width) -> dict of fields of `_Move`, without `cubic`.
    fill: grey level, or one per channel.
    interpolation: one of `pp_ops.checks.INTERPOLATIONS`; or a bool scalar that
      a policy draws, true for bicubic and false for bilinear.
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
  """Turns the image; see `pp_ops.geometry.get_rotate`."""
  check_number("degrees", degrees, -math.inf)
  angle = jnp.float32(degrees) * np.float32(math.pi / 180)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  if not (isinstance(interpolation, str) and interpolation == "nearest"):
    # tf.data rounds these doubles to 15 digits, which makes the cosine of 90
    # degrees exactly 0. The same for float32:
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
  """Registers shear and translation along an axis.

  `slope` and `offset` name the fields of `_Move` that they set.
  """

  @register_uint8(f"shear_{axis}")
  def get_shear(
    level: float,
    fill=128,
    interpolation: str = "nearest",
    corner: bool = False,
  ):
    """Shears the image; see `pp_ops.geometry`."""
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
  """The stage that fills a box (top, bottom, left, right) with `fill`."""

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
