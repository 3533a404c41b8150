"""Random Erasing (Zhong et al., 2020) with timm's boxes and noise."""

import tensorflow as tf

from pp_ops.augmentations import ERASING_ATTEMPTS, erased_boxes, erasing_law
from pp_ops.errors import UserError
from pp_ops.geometry import paste
from pp_ops.registry import register


def draw_boxes(
  height: tf.Tensor, width: tf.Tensor, rng, *, area, log_aspect, count
) -> tf.Tensor:
  """Draws boxes to erase by timm's law.

  The number of boxes is uniform in `count`. Each box has up to ten attempts.
  Its area is uniform in `area` (fractions of the image) divided by the number
  of boxes, its height / width is log-uniform, and both sides are rounded. An
  attempt succeeds if both sides are less than the image's; the box is then
  placed uniformly and may overlap others. `area`, `log_aspect` and `count` are
  pairs (least, most).

  Returns:
    int32 [count[1], 4]: top, left, height, width in pixels; all 0 beyond the
    drawn number and for boxes without a successful attempt.
  """
  num = count[1]
  # Two draws: one of the number, one for all boxes and attempts together.
  drawn = rng.uniform([], count[0], num + 1, tf.int32)
  u = rng.uniform([4, num, ERASING_ATTEMPTS], dtype=tf.float64)
  drawn, height, width = (
    tf.cast(n, tf.float64) for n in (drawn, height, width)
  )
  boxes = erased_boxes(drawn, u, height, width, area, log_aspect, tf)
  return tf.cast(tf.stack(boxes, -1), tf.int32)


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
  """Covers boxes of an image with noise; use it after normalisation.

  timm's `--reprob 0.35 --remode pixel --recount 3` is
  `random_erasing(0.35, max_count=3)`.

  Args:
    probability: probability that boxes of an image are covered at all.
    mode: "pixel": normal noise of mean 0 and variance 1, drawn for each value;
      "rand": one such colour per box; "const": 0.
    min_area: least area of all boxes together, as a fraction of the image.
    max_area: greatest area of all boxes together, likewise.
    min_aspect: least height / width.
    max_aspect: greatest height / width; 1 / min_aspect by default.
    min_count: least number of boxes.
    max_count: greatest number of boxes; min_count by default.

  Returns:
    A random op on float [height, width, channels].
  """
  law = erasing_law(
    *(probability, mode, min_area, max_area),
    *(min_aspect, max_aspect, min_count, max_count),
  )

  def fill(image, height, width, rng):
    channels = image.shape[-1]
    if mode == "pixel":
      noise = rng.normal([height, width, channels])
    elif mode == "rand":
      noise = tf.broadcast_to(rng.normal([channels]), [height, width, channels])
    else:
      noise = tf.zeros([height, width, channels])
    return tf.cast(noise, image.dtype)

  def erase(image, rng):
    height, width = tf.unstack(tf.shape(image)[:2])
    out = image
    for box in tf.unstack(draw_boxes(height, width, rng, **law)):
      top, left, h, w = tf.unstack(box)
      out = paste(out, fill(image, h, w, rng), top, left)
    return tf.ensure_shape(out, image.shape)

  def random_erasing(image, rng):
    image = tf.convert_to_tensor(image)
    good = image.shape.rank == 3 and image.shape[-1] is not None
    if not (image.dtype.is_floating and good):
      raise UserError(
        f"op 'random_erasing' got {image.dtype.name} {image.shape}: need float "
        "[height, width, channels], after vgg_value_range or the like"
      )
    return tf.cond(
      rng.uniform() < probability, lambda: erase(image, rng), lambda: image
    )

  return random_erasing
