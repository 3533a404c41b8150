"""Ops on two views of an image, as `pp_ops.views`."""

import jax.numpy as jnp

from big_crop.device_ops.registry import register
from pp_ops.checks import check_views
from pp_ops.laws import cropmix


@register("cut_in", inkey=None)
def get_cut_in(other: str, key: str = "image"):
  """Puts a box of one view into another; see `pp_ops.views.get_cut_in`."""

  def cut_in(features, rng):
    check_views(features, (key, other), "cut_in")
    image, new = features[key], features[other]
    box = cropmix.box_of(rng.uniform([3]), image.shape[:2], jnp)
    return {**features, key: jnp.where(box, new, image)}

  return cut_in
