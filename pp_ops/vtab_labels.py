"""Ops that make VTAB's labels from the features of TFDS datasets.

Zhai et al., "A Large-scale Study of Representation Learning with the Visual
Task Adaptation Benchmark", https://arxiv.org/abs/1910.04867; the bins are those
of https://github.com/google-research/task_adaptation.
"""

import tensorflow as tf

from pp_ops.checks import check_number
from pp_ops.registry import register


def _bin(value, starts):
  """Number of the last bin whose start is below a value, int64."""
  starts = tf.constant(starts, value.dtype)
  return tf.reduce_sum(tf.cast(starts < value, tf.int64)) - 1


@register("clevr_count", inkey="objects", outkey="label")
def get_clevr_count():
  """The number of objects in an image of `clevr`, less 3: 8 classes."""
  return lambda objects: tf.size(objects["size"], tf.int64) - 3


@register("clevr_distance", inkey="objects", outkey="label")
def get_clevr_distance():
  """How far the nearest object of `clevr` is, in 6 bins.

  The bins start at 0, 8, 8.5, 9, 9.5 and 10.
  """
  return lambda objects: _bin(
    tf.reduce_min(objects["pixel_coords"][:, 2]), [0, 8, 8.5, 9, 9.5, 10]
  )


@register("kitti_distance", inkey="objects", outkey="label")
def get_kitti_distance():
  """How far the nearest car, van or truck of `kitti` is, in 4 bins.

  The bins start at -100, 8, 20 and 999 metres; the last is for no vehicle.
  """

  def distance(objects):
    z = objects["location"][:, 2]
    is_vehicle = objects["type"] < 3
    nearest = tf.reduce_min(tf.where(is_vehicle, z, 1000.0))
    # The minimum over no objects is infinite.
    return _bin(tf.minimum(nearest, 1000.0), [-100, 8, 20, 999])

  return distance


@register("coarse_label", inkey="label")
def get_coarse_label(values: int, classes: int):
  """Groups labels 0..values - 1 into `classes` groups of adjacent labels."""
  check_number("values", values, 2, whole=True)
  check_number("classes", classes, 2, values, whole=True)
  return lambda label: tf.cast(label, tf.int64) * classes // values
