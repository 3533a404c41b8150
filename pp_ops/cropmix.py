"""CropMix: mixes several crops of an image, which is decoded once.

"CropMix: Sampling a Rich Input Distribution via Multi-Scale Cropping", section
3.2. `pp_ops.laws.cropmix` defines the distribution of windows and weights.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from pp_ops import crops, registry
from pp_ops import image as image_ops
from pp_ops.augmentations import PERMUTATIONS
from pp_ops.laws import cropmix
from pp_ops.laws.cropmix import CropMix, Steps
from pp_ops.laws.names import FUSED
from pp_ops.random import Rng
from pp_ops.resize import columns_first, resize_antialiased, rows_first
from pp_ops.uint8_op import one_of


class Plan(NamedTuple):
  """What is drawn for one image.

  `most`, the largest number of views that the law allows, fixes the shapes.

  Attributes:
    num: int32 scalar, the number of views.
    windows: int32 [most, 4], (y, x, h, w) of the views in the order of mixing;
      rows beyond `num` repeat the first one.
    steps: float32 arrays of length most - 1; zero beyond `num` - 1.
  """

  num: tf.Tensor
  windows: tf.Tensor
  steps: Steps


def get_planner(
  law: CropMix, size: tuple[int, int]
) -> Callable[[tf.Tensor, Rng], Plan]:
  """Returns a function from an image's shape, (height, width, ...), to a plan.

  Args:
    law: what to draw; its largest number of views is at least two.
    size: (height, width) of the views.
  """

  def plan_of(n, stateless, u, shape, seed):
    """The plan of n views."""
    rng = Rng(seed if stateless else None)
    windows = tf.stack(
      [
        tf.stack(crops.get_sampler(view)(shape[0], shape[1], rng))
        for view in law.views(n)
      ]
    )
    steps = [tf.zeros([0, *tail], tf.float32) for tail in ([], [], [4], [])]
    if n > 1:
      windows = tf.gather(windows, law.order(n, u, tf))
      steps = [tf.cast(x, tf.float32) for x in law.steps(n, u, size, tf)]
    if more := law.most - n:
      windows = tf.concat([windows, *[windows[:1]] * more], 0)
      ends = [[0, more]], [[0, more]], [[0, more], [0, 0]], [[0, more]]
      steps = map(tf.pad, steps, ends)
    return Plan(tf.constant(n), windows, Steps(*steps))

  draw = {
    stateless: one_of(
      [functools.partial(plan_of, n, stateless) for n in law.num],
      tf.TensorSpec([None], tf.int32),
      tf.TensorSpec([2], tf.int64),
    )
    for stateless in (False, True)
  }

  def plan(shape, rng):
    u = rng.uniform([law.draws], dtype=tf.float64)
    seed = rng.reserve(2 * law.most)
    stateless = seed is not None
    seed = seed if stateless else tf.zeros([2], tf.int64)
    if len(law.num) == 1:
      return plan_of(law.most, stateless, u, shape, seed)
    which = tf.cast(law.number(u, tf), tf.int32)
    return draw[stateless](which, u, shape, seed)

  return plan


def mix_views(
  view: Callable[[int], tf.Tensor],
  plan: Plan,
  law: CropMix,
  before: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.Tensor:
  """Mixes the views of one image.

  Args:
    view: function from k to view k in the order of mixing, float32 [W, C, H].
      The resizes give this layout. It makes permuting channels fast, because
      each piece that is gathered has H consecutive values.
    plan: what was drawn for the image.
    law: the law that `plan` was drawn from.
    before: augmentation of the lighter image of each step, applied before its
      channels are permuted.

  Returns:
    The mixed image, float32 [W, C, H].
  """
  mixed = view(0)
  permute = law.permute and mixed.shape[1] == 3

  def step(mixed, k):
    newer, weight, box, permutation = (x[k - 1] for x in plan.steps)
    # This dependency makes TensorFlow compute one view after the other. Other
    # images keep the threads busy anyway, and handing the decoded image to
    # another thread costs more than it gains.
    with tf.control_dependencies([mixed]):
      new = view(k)
    lighter, heavier = tf.cond(
      newer > 0, lambda: (new, mixed), lambda: (mixed, new)
    )
    if before is not None:
      lighter = before(lighter)
    if permute:
      order = tf.gather(PERMUTATIONS, tf.cast(permutation, tf.int32))
      lighter = tf.gather(lighter, order, axis=1)
    if law.mix == "mixup":
      return weight * lighter + (1 - weight) * heavier
    top, left, bottom, right = tf.unstack(tf.cast(box, tf.int32))
    columns = heavier[left:right]
    patch = lighter[left:right, :, top:bottom]
    columns = [columns[..., :top], patch, columns[..., bottom:]]
    columns = [heavier[:left], tf.concat(columns, 2), heavier[right:]]
    return tf.concat(columns, 0)

  for k in range(1, law.most):
    if k < min(law.num):
      mixed = step(mixed, k)
    else:
      mixed = tf.cond(
        k < plan.num, functools.partial(step, mixed, k), lambda: mixed
      )
  return mixed


def _decode(data, planner, rng):
  """Decodes the part of the image that the views need.

  Returns:
    That part, uint8 [h, w, 3], and the plan with windows relative to it.
  """
  is_jpeg = tf.image.is_jpeg(data)

  def from_other():
    image = image_ops.decode(data)
    return tf.shape(image), image

  def from_jpeg():
    return tf.image.extract_jpeg_shape(data), tf.zeros([0, 0, 3], tf.uint8)

  shape, image = tf.cond(is_jpeg, from_jpeg, from_other)
  plan = planner(shape, rng)
  windows = plan.windows
  begin = tf.reduce_min(windows[:, :2], 0)
  end = tf.reduce_max(windows[:, :2] + windows[:, 2:], 0)
  needed = tf.concat([begin, end - begin], 0)
  image = tf.cond(
    is_jpeg,
    lambda: crops.decode_window(data, needed, shape[1]),
    lambda: crops.cut(image, needed),
  )
  windows -= tf.concat([begin, [0, 0]], 0)
  return tf.ensure_shape(image, [None, None, 3]), plan._replace(windows=windows)


def get_cropmix(*args, **kwargs) -> Callable[..., tf.Tensor]:
  """Crops an image several times, at several scales, and mixes the crops.

  CropMix, section 3.2. Of a JPEG, only the smallest box that holds all crops is
  decoded.

  Args:
    *args: see `pp_ops.laws.cropmix.read_arguments`.
    **kwargs: likewise.

  Returns:
    A random op from [height, width, C], or a scalar string, to [*size, C];
    integers are rounded once, at the end.
  """
  law, size, method, antialias, before = cropmix.read_arguments(*args, **kwargs)
  resize = image_ops.get_resize(size, method, antialias)
  if law.most == 1:
    resizing = {"method": method, "antialias": antialias}
    [view] = law.views(1)
    from_image, from_data = (
      crops.get_crop(name, view, size, resizing) for name in ("", FUSED)
    )
    encoded = lambda x: tf.convert_to_tensor(x).dtype == tf.string
    return lambda x, rng: (from_data if encoded(x) else from_image)(x, rng)
  by_rows = antialias and method in ("bilinear", "bicubic")
  planner = get_planner(law, size)
  inner = registry.build(before) if before else []

  def resize_float(view):
    """float32 [W, C, H], not rounded."""
    if by_rows:
      return resize_antialiased(view, size, method, transposed=True)
    return columns_first(tf.cast(resize(view), tf.float32))

  def finish(image, dtype):
    # Mixing averages pixels even if the method is "nearest", so the result must
    # be rounded like a bilinear one.
    kind = "bilinear" if method == "nearest" else method
    out = rows_first(image_ops.to_dtype(image, dtype, kind))
    return tf.ensure_shape(out, [*size, image.shape[1]])

  def mixed(image, rng):
    image = tf.convert_to_tensor(image)
    if image.dtype == tf.string:
      image, plan = _decode(image, planner, rng)
    else:
      plan = planner(tf.shape(image), rng)
    cut = lambda k: crops.cut(image, plan.windows[k])

    def augment(lighter):
      features = {"image": finish(lighter, image.dtype)}
      for op in inner:
        features = op(features, lambda position: rng)
      return columns_first(tf.cast(features["image"], tf.float32))

    view = lambda k: resize_float(cut(k))
    out = mix_views(view, plan, law, augment if inner else None)
    return finish(out, image.dtype)

  return mixed


get_cropmix.__signature__ = inspect.signature(cropmix.read_arguments)
for _name in ("cropmix", f"{FUSED}cropmix"):
  registry.register(_name, law=cropmix.read_law)(get_cropmix)
