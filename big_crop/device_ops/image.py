"""Ops on one image, as `pp_ops.image` has them: resize, crop, flip, scale.

There is one difference from tf.data. An op such as `resize_small` gives each
image a size of its own, so it only notes the resize. A crop to a fixed size
must follow, and does both at once. Of the ops on images, only flips and
`channel_permute` may come in between.
"""

import dataclasses

import jax
import jax.numpy as jnp

from big_crop.device_ops.canvas import Canvas
from big_crop.device_ops.registry import register
from big_crop.device_ops.resize import apply, resample, weights
from pp_ops.checks import check_method, check_rounding, check_size
from pp_ops.errors import UserError


def as_canvas(image: jax.Array | Canvas) -> Canvas:
  """Turns an array [H, W, C] into a `Canvas`; returns a `Canvas` unchanged."""
  if isinstance(image, Canvas):
    return image
  height, width = image.shape[:2]
  zero, height_, width_ = (jnp.int32(n) for n in (0, height, width))
  return Canvas(image, zero, zero, height_, width_, least=(height, width))


def not_resized(image: jax.Array | Canvas, op: str) -> Canvas:
  """The canvas of an image; raises if it has a pending resize."""
  canvas = as_canvas(image)
  if canvas.target is not None:
    raise UserError(
      f"op {op!r} after a resize by one side does not run on the device: pack "
      "the data at that size, or resize to a fixed one"
    )
  return canvas


@register("decode", canvas=True)
def get_decode(channels: int = 3, precise: bool = True):
  """Does nothing, because packed images are decoded RGB already."""
  del precise
  if channels != 3:
    raise UserError(f"channels={channels}: packed images have 3")
  return lambda image: image


def resize_to(canvas: Canvas, size, method, antialias, rng) -> jax.Array:
  """Resizes a window to a static (height, width), keeping the dtype.

  The method is one of `pp_ops.checks.METHODS`; or "random", which draws
  bilinear or bicubic from `rng`.
  """
  part = (0, size[0], 0, size[1])
  if method != "random":
    return resample(canvas, size, part, method, antialias)
  coin = rng.uniform() < 0.5
  axes = (
    ((canvas.y, canvas.height), canvas.pixels.shape[0], size[0]),
    ((canvas.x, canvas.width), canvas.pixels.shape[1], size[1]),
  )
  matrices = [
    jnp.where(
      coin,
      *(
        weights(place, length, jnp.int32(n), (0, n), m, antialias)
        for m in ("bilinear", "bicubic")
      ),
    )
    for place, length, n in axes
  ]
  return apply(canvas.pixels, *matrices)


@register("resize", canvas=True)
def get_resize(size, method: str = "bilinear", antialias: bool = False):
  """Resizes to exactly `size`; see `pp_ops.image.get_resize`."""
  size = check_size(size)
  check_method(method, random=True)

  def resize(image, rng):
    canvas = not_resized(image, "resize")
    return resize_to(canvas, size, method, antialias, rng)

  return resize


def _later(image, op, size, reduce, how, rounding="big_vision"):
  """The image with a pending resize, so that reduce(its sides) becomes `size`.

  `reduce` is jnp.min or jnp.max.
  """
  canvas = not_resized(image, op)
  shape = jnp.stack([canvas.height, canvas.width])
  if rounding == "torchvision":
    target = jnp.maximum(shape * size // reduce(shape), 1)
  else:
    factor = jnp.float32(size) / reduce(shape).astype(jnp.float32)
    target = jnp.maximum(jnp.round(shape.astype(jnp.float32) * factor), 1)
  target = target.astype(jnp.int32)
  static = isinstance(size, int) and reduce is jnp.min
  return dataclasses.replace(
    canvas,
    target=(target[0], target[1]),
    how=(*how, rounding == "torchvision"),
    least=(size, size) if static else (1, 1),
  )


@register("resize_small", canvas=True)
def get_resize_small(
  size: int,
  method: str = "area",
  antialias: bool = False,
  rounding: str = "big_vision",
):
  """The shorter side becomes `size`; see `pp_ops.image.get_resize_small`."""
  check_size((size, size))
  check_method(method)
  check_rounding(rounding)
  return lambda image: _later(
    image, "resize_small", size, jnp.min, (method, antialias), rounding
  )


@register("resize_long", canvas=True)
def get_resize_long(size: int, method: str = "area", antialias: bool = True):
  """The longer side becomes `size`; see `pp_ops.image.get_resize_long`."""
  check_size((size, size))
  check_method(method)
  return lambda image: _later(
    image, "resize_long", size, jnp.max, (method, antialias)
  )


@register("random_resize_small", canvas=True)
def get_random_resize_small(
  min_size: int, max_size: int, method: str = "area", antialias: bool = False
):
  """The shorter side becomes uniform; see `pp_ops.image`.

  Unlike in tf.data, the method may not be "random".
  """
  check_size((min_size, max_size), "(min_size, max_size)")
  check_method(method)
  if min_size > max_size:
    raise UserError(f"min_size={min_size} is above max_size={max_size}")

  def resize(image, rng):
    size = rng.integers(min_size, max_size + 1)
    out = _later(
      image, "random_resize_small", size, jnp.min, (method, antialias)
    )
    return dataclasses.replace(out, least=(min_size, min_size))

  return resize


def _window(image, size, offset_of):
  """The window of `size` at offset_of(image's size - window's size)."""
  canvas = as_canvas(image)
  if any(n < s for n, s in zip(canvas.least, size, strict=True)):
    raise UserError(
      f"an image may be {canvas.least[0]}x{canvas.least[1]}, smaller than the "
      f"crop of {size}: resize it first"
    )
  height, width = canvas.size
  room = jnp.stack([height - size[0], width - size[1]])
  y, x = offset_of(room)
  if canvas.target is not None:
    method, antialias, as_pillow = canvas.how
    part = (y, size[0], x, size[1])
    return resample(canvas, canvas.target, part, method, antialias, as_pillow)
  return jax.lax.dynamic_slice(
    canvas.pixels, (canvas.y + y, canvas.x + x, 0), (*size, canvas.channels)
  )


@register("central_crop", canvas=True)
def get_central_crop(size=None, rounding: str = "big_vision"):
  """The centre window; see `pp_ops.image.get_central_crop`."""
  check_rounding(rounding)
  to_even = int(rounding == "torchvision")
  offset = lambda room: room // 2 + to_even * (room % 4 == 3)
  if size is not None:
    size = check_size(size)
    return lambda image: _window(image, size, offset)

  def square(image):
    canvas = not_resized(image, "central_crop")
    side = jnp.minimum(canvas.height, canvas.width)
    return dataclasses.replace(
      canvas,
      y=canvas.y + offset(canvas.height - side),
      x=canvas.x + offset(canvas.width - side),
      height=side,
      width=side,
      least=(min(canvas.least),) * 2,
    )

  return square


@register("random_crop", canvas=True)
def get_random_crop(size):
  """A window at a uniform place; see `pp_ops.image.get_random_crop`."""
  size = check_size(size)

  def crop(image, rng):
    u = rng.uniform([2], "float64")

    def offset(room):
      # u * n can round up to n in float32.
      return jnp.minimum((u * (room + 1)).astype(jnp.int32), room)

    return _window(image, size, offset)

  return crop


def _get_flip(axis):
  def flip(image, rng):
    mirrored = rng.uniform() < 0.5
    if not isinstance(image, Canvas):
      return jnp.where(mirrored, jnp.flip(image, axis), image)
    first = (image.y, image.x)[axis]
    end = first + (image.height, image.width)[axis]
    place = jnp.arange(image.pixels.shape[axis])
    inside = (place >= first) & (place < end)
    place = jnp.where(inside & mirrored, first + end - 1 - place, place)
    pixels = jnp.take(image.pixels, place, axis, mode="clip")
    return dataclasses.replace(image, pixels=pixels)

  return flip


@register("flip_lr", canvas=True)
def get_flip_lr():
  """Mirrors left and right with probability one half."""
  return _get_flip(1)


@register("flip_ud", canvas=True)
def get_flip_ud():
  """Mirrors top and bottom with probability one half."""
  return _get_flip(0)
