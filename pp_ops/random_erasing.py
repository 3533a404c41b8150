"""Random Erasing (Zhong et al., 2020) with timm's boxes and timm's noise."""

import math

import tensorflow as tf

from pp_ops.errors import UserError
from pp_ops.geometry import paste
from pp_ops.registry import did_you_mean, register
from pp_ops.uint8_op import check_number

_MODES = ("pixel", "rand", "const")
_ATTEMPTS = 10


def draw_boxes(
  height: tf.Tensor, width: tf.Tensor, rng, *, area, log_aspect, count
) -> tf.Tensor:
  """Boxes to erase; timm's law.

  The number of boxes is uniform in `count`. Each box has up to ten attempts:
  its area is uniform in `area` of the image's, divided by the number of boxes,
  its height / width log-uniform; both sides are rounded, and the box taken if
  both are less than the image's, at a uniform place. It may overlap the others.

  Args:
    height: int32 scalar, the image's.
    width: int32 scalar.
    rng: `pp_ops.random.Rng`.
    area: (least, most) fraction of the image.
    log_aspect: (least, most).
    count: (least, most).

  Returns:
    int32 [count[1], 4]: top, left, height, width; no height and width for the
    boxes that are not there.
  """
  num = count[1]
  # One draw each: of the number, and of all boxes and attempts.
  drawn = rng.uniform([], count[0], num + 1, tf.int32)
  u = rng.uniform([4, num, _ATTEMPTS], dtype=tf.float64)
  between = lambda u, low, high: low + u * (high - low)
  pixels = tf.cast(height * width, tf.float64) / tf.cast(drawn, tf.float64)
  target = between(u[0], *area) * pixels
  aspect = tf.exp(between(u[1], *log_aspect))
  h = tf.cast(tf.round(tf.sqrt(target * aspect)), tf.int32)
  w = tf.cast(tf.round(tf.sqrt(target / aspect)), tf.int32)
  fits = (h < height) & (w < width)
  room = tf.stack([height - h, width - w]) + 1
  top, left = tf.unstack(tf.cast(u[2:] * tf.cast(room, tf.float64), tf.int32))
  # The first attempt that fits; argmax gives the first of equals.
  first = tf.argmax(tf.cast(fits, tf.int32), 1)
  there = tf.reduce_any(fits, 1) & (tf.range(num) < drawn)
  boxes = tf.stack([top, left, h, w], -1)
  boxes = tf.gather(boxes, first, batch_dims=1)
  return tf.where(there[:, None], boxes, 0)


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
  """Covers boxes of an image with noise; for after its normalisation.

  timm's `--reprob 0.35 --remode pixel --recount 3` is
  `random_erasing(0.35, max_count=3)`.

  Args:
    probability: chance that an image loses any box.
    mode: "pixel": normal noise, mean 0 and variance 1, anew for each value;
      "rand": one such colour per box; "const": 0.
    min_area: least area of all boxes together, as a fraction of the image.
    max_area: most.
    min_aspect: least height / width.
    max_aspect: most; 1 / min_aspect by default.
    min_count: least number of boxes.
    max_count: most; min_count by default.

  Returns:
    A random op on float [height, width, channels].
  """
  check_number("probability", probability, 0, 1)
  if mode not in _MODES:
    raise UserError(f"unknown mode {mode!r}: {did_you_mean(str(mode), _MODES)}")
  check_number("min_area", min_area, 0)
  check_number("max_area", max_area, min_area)
  check_number("min_aspect", min_aspect, 1e-6)
  max_aspect = 1 / min_aspect if max_aspect is None else max_aspect
  check_number("max_aspect", max_aspect, min_aspect)
  check_number("min_count", min_count, 1, whole=True)
  max_count = min_count if max_count is None else max_count
  check_number("max_count", max_count, min_count, whole=True)
  law = {
    "area": (min_area, max_area),
    "log_aspect": (math.log(min_aspect), math.log(max_aspect)),
    "count": (min_count, max_count),
  }

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
