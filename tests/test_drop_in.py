"""The drop-in runs where TensorFlow's op runs."""

import numpy as np
import pytest
import tensorflow as tf
from test_exact import ALARM, p_value

from pp_ops import drop_in, laws

SHAPE = (64, 96)
NO_BOXES = tf.zeros([0, 0, 4])


def test_same_signature_and_results_as_tensorflows():
  import inspect

  for name in (
    "sample_distorted_bounding_box",
    "stateless_sample_distorted_bounding_box",
  ):
    theirs = inspect.signature(getattr(tf.image, name)).parameters
    mine = inspect.signature(getattr(drop_in, name)).parameters
    assert [*theirs, "law"] == list(mine)
  kwargs = {"min_object_covered": 0.0, "use_image_if_no_bounding_boxes": True}
  for size in ([40, 50, 3], np.array([40, 50, 3], np.int64)):
    theirs = tf.image.sample_distorted_bounding_box(size, NO_BOXES, **kwargs)
    mine = drop_in.sample_distorted_bounding_box(size, NO_BOXES, **kwargs)
    for a, b in zip(theirs, mine, strict=True):
      assert a.shape == b.shape and a.dtype == b.dtype
    begin, size, box = mine
    assert begin[2] == 0 and size[2] == -1
    np.testing.assert_allclose(
      box[0, 0] * [40, 50, 40, 50],
      [begin[0], begin[1], begin[0] + size[0], begin[1] + size[1]],
      rtol=1e-6,
    )


def sizes_eager(num, attempts):
  many = tf.tile([[*SHAPE, 3]], [num, 1])
  _, size, _ = drop_in.sample_distorted_bounding_box(
    many,
    tf.zeros([0, 4]),
    seed=3,
    min_object_covered=0.0,
    max_attempts=attempts,
    use_image_if_no_bounding_boxes=True,
  )
  return size[:, 0], size[:, 1]


def sizes_function(num, attempts):
  return tf.function(lambda: sizes_eager(num, attempts))()


def sizes_tf_data(num, attempts):
  def one(i):
    _, size, _ = drop_in.stateless_sample_distorted_bounding_box(
      [*SHAPE, 3],
      NO_BOXES,
      tf.stack([i, 7]),
      min_object_covered=0.0,
      max_attempts=attempts,
      use_image_if_no_bounding_boxes=True,
    )
    return size

  ds = tf.data.Dataset.range(num).map(one, num_parallel_calls=2)
  size = np.concatenate(list(ds.batch(num).as_numpy_iterator()))
  return size[:, 0], size[:, 1]


@pytest.mark.parametrize(
  "draw, num, attempts",
  [
    # Ten, because all attempts are computed and few windows need more.
    (sizes_eager, 100_000, 10),
    (sizes_function, 100_000, 10),
    (sizes_eager, 10_000, None),
    (sizes_tf_data, 20_000, None),
  ],
)
@pytest.mark.first(1)
def test_the_exact_law(draw, num, attempts):
  h, w = draw(num, attempts)
  law = laws.FixedLaw(max_attempts=attempts or 100)  # TensorFlow's default
  assert p_value((np.asarray(h), np.asarray(w)), law, *SHAPE) > ALARM


def test_min_object_covered_as_tensorflow():
  """With a box, crops that cover less of it are rejected; two-sample means."""
  box = [[[0.25, 0.25, 0.75, 0.75]]]
  many = tf.tile([[*SHAPE, 3]], [20_000, 1])
  begin, size, _ = drop_in.sample_distorted_bounding_box(
    many, box[0], seed=1, min_object_covered=0.5
  )
  y, x = (begin[:, i].numpy() for i in (0, 1))
  h, w = (size[:, i].numpy() for i in (0, 1))
  rows = np.minimum(y + h, 48) - np.maximum(y, 16)
  columns = np.minimum(x + w, 72) - np.maximum(x, 24)
  covered = np.clip(rows, 0, None) * np.clip(columns, 0, None) / (32 * 48)
  assert covered.min() >= 0.5
  # The whole image as a box, and TensorFlow's default: no crop below a tenth.
  _, size, _ = drop_in.sample_distorted_bounding_box(
    many, [[0.0, 0.0, 1.0, 1.0]], seed=2
  )
  area = np.prod(size[:, :2], axis=1) / np.prod(SHAPE)
  assert 0.1 <= area.min() < 0.105


def test_mistakes():
  with pytest.raises(ValueError, match="no bounding boxes"):
    drop_in.sample_distorted_bounding_box([8, 8, 3], NO_BOXES)
  with pytest.raises(ValueError, match=r"area_min=0\.5, area_max=0\.2"):
    drop_in.sample_distorted_bounding_box(
      [8, 8, 3], [[[0.0, 0, 1, 1]]], area_range=(0.5, 0.2)
    )


def test_readme_example_of_the_signature():
  image = tf.zeros([40, 60, 3], tf.uint8)
  bbox = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
  from pp_ops.drop_in import sample_distorted_bounding_box

  begin, size, _ = sample_distorted_bounding_box(
    tf.shape(image), bbox, min_object_covered=0.0, area_range=(0.08, 1.0)
  )
  crop = tf.slice(image, begin, size)
  assert crop.shape[0] <= 40 and crop.shape[2] == 3
