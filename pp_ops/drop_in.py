"""The fixed law behind the signature of TensorFlow's own crop sampler.

Callers of `tf.image.sample_distorted_bounding_box` need only change the module
that they call it from.
"""

import tensorflow as tf

from pp_ops.errors import UserError
from pp_ops.laws import FixedLaw, Law, first_admissible
from pp_ops.random import Rng


def sample_distorted_bounding_box(
  image_size,
  bounding_boxes,
  seed=None,
  min_object_covered=0.1,
  aspect_ratio_range=None,
  area_range=None,
  max_attempts=None,
  use_image_if_no_bounding_boxes=None,
  name=None,
  law: Law | None = None,
):
  """`tf.image.sample_distorted_bounding_box` with the area drawn uniformly.

  Args:
    image_size: [..., 3] integers: height, width, channels of one image or of a
      batch of them.
    bounding_boxes: [..., N, 4] float32 in [0, 1], (y_min, x_min, y_max, x_max);
      N may be 0. For one image all leading axes are flattened into N.
    seed: as in TensorFlow; None or 0 for a random one.
    min_object_covered: a crop is rejected unless it covers at least this
      fraction of some box, as in TensorFlow. Note the default, 0.1: if the box
      is the whole image, all crops below a tenth of the image are rejected.
    aspect_ratio_range: width / height. Default (3/4, 4/3); TensorFlow's is
      (0.75, 1.33).
    area_range: fractions of the image. Default (0.05, 1).
    max_attempts: default 100, like TensorFlow's.
    use_image_if_no_bounding_boxes: must be true when N is 0, as in TensorFlow.
    name: name scope of the graph ops.
    law: a law to use instead of the fixed one. It brings its own ranges, so
      aspect_ratio_range, area_range and max_attempts must be left out.

  Returns:
    begin [..., 3] and size [..., 3], of image_size's dtype, for `tf.slice` (the
    channel entries are 0 and -1), and bboxes [..., 1, 4] float32; for one image
    [1, 1, 4], as in TensorFlow.

  Raises:
    ValueError: bad ranges, or no boxes without use_image_if_no_bounding_boxes.
  """
  draw = lambda shape: tf.random.uniform(
    shape, dtype=tf.float64, seed=seed or None
  )
  law = _make_law(law, aspect_ratio_range, area_range, max_attempts)
  with tf.name_scope(name or "sample_distorted_bounding_box"):
    return _sample(
      image_size,
      bounding_boxes,
      draw,
      min_object_covered,
      bool(use_image_if_no_bounding_boxes),
      law,
    )


def stateless_sample_distorted_bounding_box(
  image_size,
  bounding_boxes,
  seed,
  min_object_covered=0.1,
  aspect_ratio_range=None,
  area_range=None,
  max_attempts=None,
  use_image_if_no_bounding_boxes=None,
  name=None,
  law: Law | None = None,
):
  """`sample_distorted_bounding_box` as a pure function of `seed`, int [2].

  It stands in for TensorFlow's function of the same name.
  """
  rng = Rng(tf.cast(tf.convert_to_tensor(seed), tf.int64))
  law = _make_law(law, aspect_ratio_range, area_range, max_attempts)
  with tf.name_scope(name or "stateless_sample_distorted_bounding_box"):
    return _sample(
      image_size,
      bounding_boxes,
      lambda shape: rng.uniform(shape, dtype=tf.float64),
      min_object_covered,
      bool(use_image_if_no_bounding_boxes),
      law,
    )


def _make_law(law, aspect_ratio_range, area_range, max_attempts):
  ranges = (aspect_ratio_range, area_range, max_attempts)
  if law is not None:
    if any(r is not None for r in ranges):
      raise UserError(
        "law brings its own ranges: leave out aspect_ratio_range, area_range "
        "and max_attempts"
      )
    return law
  area_min, area_max = area_range or (0.05, 1.0)
  ratio_min, ratio_max = aspect_ratio_range or (3 / 4, 4 / 3)
  return FixedLaw(area_min, area_max, ratio_min, ratio_max, max_attempts or 100)


def _sample(image_size, boxes, draw, min_covered, use_image, law):
  image_size = tf.convert_to_tensor(image_size)
  boxes = tf.convert_to_tensor(boxes, tf.float32)
  if boxes.shape[-2] == 0:
    if not use_image:
      raise UserError(
        "no bounding boxes: pass some, or use_image_if_no_bounding_boxes=True"
      )
    boxes = tf.constant([[0.0, 0.0, 1.0, 1.0]])
  one_image = len(image_size.shape) == 1
  if one_image:
    boxes = tf.reshape(boxes, [-1, 4])
  size = tf.cast(image_size, tf.float64)
  height, width = size[..., 0, None], size[..., 1, None]  # [..., attempts]
  lead = tf.shape(image_size)[:-1]
  shape = lambda *last: tf.concat([lead, [law.max_attempts, *last]], 0)

  h, w, ok = law.propose(draw(shape(law.draws)), height, width, tf)
  y, x = law.place(draw(shape(2)), h, w, height, width, tf)
  ok &= _covers(y, x, h, w, boxes, height, width, min_covered)
  fallback = law.fallback(size[..., 0], size[..., 1], tf)
  y, x, h, w, _ = first_admissible(ok, (y, x, h, w), fallback, tf)
  channel = tf.zeros_like(y)
  cast = lambda *parts: tf.cast(tf.stack(parts, -1), image_size.dtype)
  box = tf.stack([y, x, y + h, x + w], -1)
  box = box / tf.stack([size[..., 0], size[..., 1]] * 2, -1)
  return (
    cast(y, x, channel),
    cast(h, w, channel - 1),
    tf.cast(box[None, None] if one_image else box[..., None, :], tf.float32),
  )


def _covers(y, x, h, w, boxes, height, width, min_covered):
  """bool [..., attempts]: whether a window covers enough of some box.

  y, x, h, w are in pixels, [..., attempts]; boxes are fractions, [..., N, 4].
  """
  boxes = tf.cast(boxes, tf.float64)[..., None, :, :]  # [..., 1, N, 4]
  # TensorFlow truncates the corners to pixels.
  top, left, bottom, right = (
    tf.floor(boxes[..., i] * side[..., None])
    for i, side in enumerate([height, width] * 2)
  )
  y, x, h, w = (a[..., None] for a in (y, x, h, w))
  rows = tf.minimum(y + h, bottom) - tf.maximum(y, top)
  columns = tf.minimum(x + w, right) - tf.maximum(x, left)
  common = tf.nn.relu(rows) * tf.nn.relu(columns)
  area = (bottom - top) * (right - left)
  enough = common >= tf.cast(min_covered, tf.float64) * area
  return tf.reduce_any((area >= 1) & enough, axis=-1)
