"""Images of different sizes in arrays of one shape: windows of a canvas."""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Canvas:
  """An image that is a window of an array, perhaps with a pending resize.

  Attributes:
    pixels: [S, T, C], uint8 or float.
    y: int32 scalar, the window's first row in `pixels`.
    x: int32 scalar, the window's first column.
    height: int32 scalar, the window's rows.
    width: int32 scalar, the window's columns.
    target: (height, width), int32 scalars, that the window is to be resized to
      later; None without a pending resize.
    how: (method, antialias, as_pillow) of the pending resize.
    least: lower bound of the image's (height, width) that is known when the
      program is traced.
  """

  pixels: jax.Array
  y: jax.Array
  x: jax.Array
  height: jax.Array
  width: jax.Array
  target: tuple[jax.Array, jax.Array] | None = None
  how: tuple | None = dataclasses.field(default=None, metadata={"static": True})
  least: tuple[int, int] = dataclasses.field(
    default=(1, 1), metadata={"static": True}
  )

  @property
  def size(self) -> tuple[jax.Array, jax.Array]:
    """(height, width) of the image after its pending resize, if any."""
    return self.target or (self.height, self.width)

  @property
  def channels(self) -> int:
    return self.pixels.shape[-1]


def unpack(
  images: jax.Array, shapes: jax.Array, least: tuple[int, int] = (1, 1)
) -> Canvas:
  """A batch of packed images as a `Canvas` of arrays with a batch axis.

  Args:
    images: uint8 [B, short, long, C]; portrait images are stored transposed,
      see `big_crop.data.packed`.
    shapes: int32 [B, 2], the true (height, width), not transposed.
    least: the smallest height and width that occur in the dataset.

  Returns:
    A canvas whose pixels are [B, side, side, C], all images upright.
  """
  _, short, long, _ = images.shape
  height, width = shapes[:, 0], shapes[:, 1]
  if short < long:
    images = jnp.pad(images, [(0, 0), (0, long - short), (0, 0), (0, 0)])
  tall = (height > width)[:, None, None, None]
  pixels = jnp.where(tall, images.swapaxes(1, 2), images)
  zero = jnp.zeros_like(height)
  return Canvas(pixels, zero, zero, height, width, least=least)
