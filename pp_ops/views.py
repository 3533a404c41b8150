"""Ops on two views of an image."""

import tensorflow as tf

from pp_ops.checks import check_views
from pp_ops.laws import cropmix
from pp_ops.registry import register


@register("cut_in", inkey=None)
def get_cut_in(other: str, key: str = "image"):
  """Puts a box of the view `other` into the view `key`: CutMix of two views.

  The box covers a uniform part of the image, about a uniform centre, and is cut
  off at the edges. CropMix (arXiv:2205.15955) makes a contrastive query so:
  `other` is the view of the larger scale, and both are fully augmented.

  Args:
    other: name of the view that the box is taken from; it stays as it is.
    key: name of the view that receives it.

  Returns:
    A random op on the features.
  """

  def cut_in(features, rng):
    check_views(features, (key, other), "cut_in")
    image, new = features[key], features[other]
    size = tuple(image.shape[:2])
    box = cropmix.box_of(rng.uniform([3]), size, tf)
    return {**features, key: tf.where(box, new, image)}

  return cut_in
