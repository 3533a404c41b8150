"""CropMix on the accelerator, as `pp_ops.cropmix`.

Under `jax.vmap` the largest number of views is made of every image; views
beyond an image's own number are computed but not mixed in.
"""

import dataclasses
import inspect

import jax
import jax.numpy as jnp

from big_crop.device_ops import crops
from big_crop.device_ops import image as image_ops
from big_crop.device_ops.canvas import Canvas
from big_crop.device_ops.color import permute_channels
from big_crop.device_ops.philox import Rng
from big_crop.device_ops.registry import lookup, register
from big_crop.device_ops.resize import to_dtype
from pp_ops import registry as host
from pp_ops.laws import cropmix
from pp_ops.laws.cropmix import CropMix, Steps
from pp_ops.laws.names import FUSED


def plan(
  law: CropMix, u: jax.Array, canvas: Canvas, size: tuple[int, int], rng: Rng
) -> tuple[jax.Array, list[Canvas], Steps]:
  """Draws the views of an image and how to mix them.

  Args:
    law: what to draw.
    u: float32 [law.draws], uniform; None if the law has one view.
    canvas: the image.
    size: (height, width) of the views in pixels.
    rng: source of the windows.

  Returns:
    num: int32 scalar, the number of views.
    windows: `law.most` of them, in the order of mixing; those beyond `num` are
      padding.
    steps: arrays of length `law.most` - 1; those beyond `num` - 1 are padding.
  """
  any_view = law.views(law.most)[0]
  shape = [any_view.max_attempts, any_view.draws]
  uniforms = [
    (rng.uniform(shape, "float64"), rng.uniform([2], "float64"))
    for _ in range(law.most)
  ]

  def padded(x, length):
    return jnp.pad(x, [(0, length - len(x)), *[(0, 0)] * (x.ndim - 1)])

  def plan_of(n):
    windows = [
      crops.cut(view, canvas, *own)
      for view, own in zip(law.views(n), uniforms, strict=False)
    ]
    windows = jnp.array([[w.y, w.x, w.height, w.width] for w in windows])
    if law.most == 1:
      return windows, ()
    windows = windows[law.order(n, u, jnp)]
    steps = [padded(x, law.most - 1) for x in law.steps(n, u, size, jnp)]
    return padded(windows, law.most), Steps(*steps)

  which = 0
  if len(law.num) > 1:
    which = law.number(u, jnp).astype(jnp.int32)
  plans = jax.tree.map(lambda *x: jnp.stack(x)[which], *map(plan_of, law.num))
  windows = [
    dataclasses.replace(canvas, y=y, x=x, height=h, width=w, least=(1, 1))
    for y, x, h, w in plans[0]
  ]
  return jnp.array(law.num)[which], windows, plans[1]


def mix_views(views, num, steps: Steps, law: CropMix, before=None) -> jax.Array:
  """Mixes the views of one image; see `pp_ops.cropmix.mix_views`.

  Args:
    views: list of [H, W, C], in the order of mixing.
    num: int32 scalar, how many of the views to mix.
    steps: how to mix them.
    law: the law that views and steps were drawn from.
    before: augmentation of the lighter image of each step.

  Returns:
    [H, W, C] of the views' dtype.
  """
  dtype = views[0].dtype
  mixed = views[0].astype(jnp.float32)
  height, width, channels = mixed.shape
  y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
  for k, view in enumerate(views[1:], 1):
    newer, weight, box, permutation = (s[k - 1] for s in steps)
    view = view.astype(jnp.float32)
    lighter = jnp.where(newer, view, mixed)
    heavier = jnp.where(newer, mixed, view)
    if before is not None:
      lighter = before(to_dtype(lighter, dtype)).astype(jnp.float32)
    if law.permute and channels == 3:
      lighter = permute_channels(lighter, permutation.astype(jnp.int32))
    if law.mix == "cutmix":
      top, left, bottom, right = box
      inside = (top <= y) & (y < bottom) & (left <= x) & (x < right)
      new = jnp.where(inside, lighter, heavier)
    else:
      new = weight * lighter + (1 - weight) * heavier
    mixed = jnp.where(k < num, new, mixed)
  return to_dtype(mixed, dtype)


def get_cropmix(*args, **kwargs):
  """CropMix of one image; see `pp_ops.cropmix.get_cropmix`."""
  law, size, method, antialias, before = cropmix.read_arguments(*args, **kwargs)
  inner = host.build(before, lookup) if before else []

  def mixed(image, rng):
    canvas = image_ops.not_resized(image, "cropmix")
    u = rng.uniform([law.draws], "float64") if law.draws else None
    own = Rng(rng.reserve(2 * law.most))
    num, windows, steps = plan(law, u, canvas, size, own)
    views = [
      image_ops.resize_to(window, size, method, antialias, None)
      for window in windows
    ]
    if law.most == 1:
      return views[0]

    def augment(image):
      features = {"image": image}
      for op in inner:
        features = op(features, lambda position: rng)
      return features["image"]

    return mix_views(views, num, steps, law, augment if inner else None)

  return mixed


get_cropmix.__signature__ = inspect.signature(cropmix.read_arguments)
for _name in ("cropmix", f"{FUSED}cropmix"):
  register(_name, canvas=True)(get_cropmix)
