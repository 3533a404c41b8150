"""Random Erasing on the accelerator, as `pp_ops.random_erasing`."""

import jax
import jax.numpy as jnp
import numpy as np

from big_crop.device_ops.philox import Rng, normal_at
from big_crop.device_ops.registry import register
from pp_ops.augmentations import ERASING_ATTEMPTS, erased_boxes, erasing_law
from pp_ops.errors import UserError


def draw_boxes(
  height: int, width: int, rng: Rng, *, area, log_aspect, count
) -> jax.Array:
  """Boxes to erase; see `pp_ops.random_erasing.draw_boxes`."""
  drawn = rng.integers(count[0], count[1] + 1).astype(jnp.float32)
  u = rng.uniform([4, count[1], ERASING_ATTEMPTS], "float64")
  boxes = erased_boxes(
    drawn, u, float(height), float(width), area, log_aspect, jnp
  )
  return jnp.stack(boxes, -1).astype(jnp.int32)


@register("random_erasing")
def get_random_erasing(
  probability: float = 0.5,
  mode: str = "pixel",
  min_area: float = 0.02,
  max_area: float = 1 / 3,
  min_aspect: float = 0.3,
  max_aspect: float | None = None,
  min_count: int = 1,
  max_count: int | None = None,
):
  """Covers boxes; see `pp_ops.random_erasing.get_random_erasing`."""
  law = erasing_law(
    *(probability, mode, min_area, max_area),
    *(min_aspect, max_aspect, min_count, max_count),
  )

  def erase(image, rng):
    height, width, channels = image.shape
    y = np.arange(height, dtype=np.int32)[:, None, None]
    x = np.arange(width, dtype=np.int32)[:, None]
    boxes = draw_boxes(height, width, rng, **law)
    if mode == "pixel":
      streams = rng.streams(len(boxes)).T
    elif mode == "rand":
      streams = rng.streams(len(boxes))[:, :, None]
      colours = normal_at(np.arange(channels)[None], streams)
    else:
      colours = jnp.zeros(len(boxes))
    # Each pixel is filled by the last box that covers it. In mode "pixel" we
    # keep the index of each value in the noise of its box, and the stream of
    # that noise; the noise itself is computed once, after the loop.
    covered, found = False, None
    for i, (top, left, h, w) in enumerate(boxes):
      row, column = y - top, x - left
      inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
      if mode == "pixel":
        place = (row * w + column) * channels + np.arange(channels)
        own = (place, *streams[i])
      else:
        own = colours[i]
      pick = lambda new, old: jnp.where(inside, new, old)
      found = jax.tree.map(pick, own, found) if i else own
      covered |= inside
    noise = normal_at(found[0], found[1:]) if mode == "pixel" else found
    return jnp.where(covered, noise.astype(image.dtype), image)

  def random_erasing(image, rng):
    if not (jnp.issubdtype(image.dtype, jnp.floating) and image.ndim == 3):
      raise UserError(
        f"op 'random_erasing' got {image.dtype.name} {image.shape}: need float "
        "[height, width, channels], after vgg_value_range or the like"
      )
    # The probability is drawn first, as in tf.data.
    return jnp.where(rng.uniform() < probability, erase(image, rng), image)

  return random_erasing
