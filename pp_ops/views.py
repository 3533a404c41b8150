"""Ops that mix two views of an image, for example into a contrastive query."""

from pp_ops.checks import check_number, check_views
from pp_ops.errors import UserError
from pp_ops.laws import cropmix


def get_cut_in(engine, other: str, key: str = "image"):
  """Puts a box of the view `other` into the view `key`: CutMix of two views.

  The box covers a uniformly drawn fraction of the image around a uniform
  centre, and is cut off at the edges. CropMix (arXiv:2205.15955) makes
  contrastive queries in this way: `other` is the view of the larger scale, and
  both are fully augmented.

  Args:
    engine: see `pp_ops.engines`.
    other: name of the view that the box is taken from; it stays as it is.
    key: name of the view that receives it.

  Returns:
    A random op on the features.
  """

  def cut_in(features, rng):
    check_views(features, (key, other), "cut_in")
    image, new = features[key], features[other]
    size = tuple(image.shape[:2])
    box = cropmix.box_of(rng.uniform([3]), size, engine.xp)
    return {**features, key: engine.xp.where(box, new, image)}

  return cut_in


def get_mix_in(engine, other: str, alpha: float = 0.2, key: str = "image"):
  """Mixes the view `other` into the view `key`: Mixup of two views.

  CropMix compares with this (Table 8). The weights' distribution is that of
  CropMix's Mixup of two views, Beta(0.4 / 2, 0.4 / 2), because the paper names
  no other.

  Args:
    engine: see `pp_ops.engines`.
    other: name of the view that is mixed in; it stays as it is.
    alpha: the weights are drawn from Beta(alpha, alpha).
    key: name of the view that receives it, of a float dtype.

  Returns:
    A random op on the features.
  """
  check_number("alpha", alpha, 0.01)

  def mix_in(features, rng):
    check_views(features, (key, other), "mix_in")
    image, new = features[key], features[other]
    if "float" not in str(image.dtype):
      raise UserError(
        f"mix_in needs float views, {key!r} is {image.dtype}: put it after "
        "vgg_value_range or value_range"
      )
    u = rng.uniform([1])
    smaller = cropmix.smaller_weight(u, alpha, engine.xp)
    weight = engine.xp.where(u < 0.5, smaller, 1 - smaller)
    return {**features, key: image + weight * (new - image)}

  return mix_in


OPS = {"cut_in": get_cut_in, "mix_in": get_mix_in}
