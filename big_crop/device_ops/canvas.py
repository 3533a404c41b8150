"""Images of different sizes in arrays of one: a window within a canvas."""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Canvas:
  """An image that is a window of an array, its resizing perhaps still to come.

  Attributes:
    pixels: [S, T, C], uint8 or float.
    y: int32, the window's first row in it; a scalar like the next ones.
    x: its first column.
    height: its rows.
    width: its columns.
    target: (height, width), int32 scalars, to which the window is to be
      resized; None where it is not.
    how: (method, antialias, as_pillow) of that.
    least: the smallest (height, width) that the image may have, as far as is
      known when the program is built.
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
    """(height, width) of the image, resized if it is to be."""
    return self.target or (self.height, self.width)

  @property
  def channels(self) -> int:
    return self.pixels.shape[-1]


def unpack(
  images: jax.Array, shapes: jax.Array, least: tuple[int, int] = (1, 1)
) -> Canvas:
  """A batch of packed images as a `Canvas` of arrays with a batch axis.

  Images are uint8 [B, short, long, C]; one that is higher than wide is
  transposed, see `big_crop.data.packed`. `shapes` are the true heights and
  widths, int32 [B, 2], and `least` the smallest that occur in the dataset. The
  pixels of the canvas are [B, side, side, C].
  """
  _, short, long, _ = images.shape
  height, width = shapes[:, 0], shapes[:, 1]
  if short < long:
    images = jnp.pad(images, [(0, 0), (0, long - short), (0, 0), (0, 0)])
  tall = (height > width)[:, None, None, None]
  pixels = jnp.where(tall, images.swapaxes(1, 2), images)
  zero = jnp.zeros_like(height)
  return Canvas(pixels, zero, zero, height, width, least=least)
