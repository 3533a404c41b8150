"""CropMix: several crops of one image, mixed; from one decode.

"CropMix: Sampling a Rich Input Distribution via Multi-Scale Cropping", section
3.2. What is drawn is defined in `pp_ops.laws.cropmix`.
"""

import functools
import inspect
from collections.abc import Callable, Sequence

import tensorflow as tf

from pp_ops import crops, registry
from pp_ops import image as image_ops
from pp_ops.laws import cropmix
from pp_ops.laws.cropmix import PERMUTATIONS, CropMix, Steps
from pp_ops.laws.names import FUSED
from pp_ops.random import Rng
from pp_ops.resize import columns_first, resize_antialiased, rows_first
from pp_ops.uint8_op import one_of


def draw_windows(
  law: CropMix, n: int, u: tf.Tensor, shape: tf.Tensor, rng: Rng
) -> tf.Tensor:
  """int32 [n, 4], the windows (y, x, h, w) of n views in the order of mixing.

  Args:
    law: what to draw.
    n: the number of views.
    u: float64 [law.draws], uniform; tells the order.
    shape: int32, the image's, (height, width, ...).
    rng: source of the windows.
  """
  windows = tf.stack(
    [
      tf.stack(crops.get_sampler(view)(shape[0], shape[1], rng))
      for view in law.views(n)
    ]
  )
  return tf.gather(windows, law.order(n, u, tf)) if n > 1 else windows


def mix_views(
  views: Sequence[tf.Tensor],
  steps: Steps,
  law: CropMix,
  before: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.Tensor:
  """Mixes the views of one image.

  Args:
    views: float32 [W, C, H] each, in the order of mixing. In this layout, which
      is the resizes' own, channels are long enough to be gathered fast.
    steps: how, of `CropMix.steps`.
    law: what they were drawn from.
    before: what is done to the lighter image of each step before its channels
      are permuted.

  Returns:
    Like each of the views.
  """
  mixed, *views = views
  permute = law.permute and mixed.shape[1] == 3
  for view, newer, weight, box, permutation in zip(
    views, *map(tf.unstack, steps), strict=True
  ):
    lighter, heavier = tf.cond(
      newer, lambda: (view, mixed), lambda: (mixed, view)
    )
    if before is not None:
      lighter = before(lighter)
    if permute:
      order = tf.gather(PERMUTATIONS, tf.cast(permutation, tf.int32))
      lighter = tf.gather(lighter, order, axis=1)
    if law.mix == "mixup":
      weight = tf.cast(weight, tf.float32)
      mixed = weight * lighter + (1 - weight) * heavier
    else:
      top, left, bottom, right = tf.unstack(tf.cast(box, tf.int32))
      columns = heavier[left:right]
      patch = lighter[left:right, :, top:bottom]
      columns = [columns[..., :top], patch, columns[..., bottom:]]
      columns = [heavier[:left], tf.concat(columns, 2), heavier[right:]]
      mixed = tf.concat(columns, 0)
  return mixed


def _cut_views(data, windows_of):
  """The views' windows, not resized, of an image or of an encoded one."""
  if data.dtype != tf.string:
    windows = tf.unstack(windows_of(tf.shape(data)))
    return [crops.cut(data, window) for window in windows]
  is_jpeg = tf.image.is_jpeg(data)

  def from_other():
    image = image_ops.decode(data)
    return tf.shape(image), image

  def from_jpeg():
    return tf.image.extract_jpeg_shape(data), tf.zeros([0, 0, 3], tf.uint8)

  shape, image = tf.cond(is_jpeg, from_jpeg, from_other)
  windows = windows_of(shape)
  begin = tf.reduce_min(windows[:, :2], 0)
  end = tf.reduce_max(windows[:, :2] + windows[:, 2:], 0)
  needed = tf.concat([begin, end - begin], 0)
  image = tf.cond(
    is_jpeg,
    lambda: crops.decode_window(data, needed, shape[1]),
    lambda: crops.cut(image, needed),
  )
  image = tf.ensure_shape(image, [None, None, 3])
  windows -= tf.concat([begin, [0, 0]], 0)
  return [crops.cut(image, window) for window in tf.unstack(windows)]


def get_cropmix(*args, **kwargs) -> Callable[..., tf.Tensor]:
  """CropMix of an image, or of an encoded one of which it decodes the views.

  Args:
    *args: see `pp_ops.laws.cropmix.read_arguments`.
    **kwargs: likewise.

  Returns:
    A random op from [height, width, C], or a scalar string, to [*size, C].
  """
  law, size, method, antialias, before = cropmix.read_arguments(*args, **kwargs)
  resize = image_ops.get_resize(size, method, antialias)
  by_rows = antialias and method in ("bilinear", "bicubic")
  inner = registry.build(before) if before else []

  def resize_float(view):
    """float32 [W, C, H], not rounded."""
    if by_rows:
      return resize_antialiased(view, size, method, transposed=True)
    return columns_first(tf.cast(resize(view), tf.float32))

  def finish(image, dtype):
    image = tf.ensure_shape(rows_first(image), [*size, image.shape[1]])
    image = tf.round(image) if dtype.is_integer else image
    return tf.saturate_cast(image, dtype)

  def mixed_from(n, stateless, data, u, *seeds):
    """What becomes of an image with n views."""
    window_rng, before_rng = (Rng(s if stateless else None) for s in seeds)
    windows_of = lambda shape: draw_windows(law, n, u, shape, window_rng)
    views = _cut_views(data, windows_of)
    if n == 1:
      return resize(views[0])
    dtype = views[0].dtype

    def augment(image):
      features = {"image": finish(image, dtype)}
      for op in inner:
        features = op(features, lambda position: before_rng)
      return columns_first(tf.cast(features["image"], tf.float32))

    steps = law.steps(n, u, size, tf)
    before = augment if inner else None
    return finish(
      mix_views([*map(resize_float, views)], steps, law, before), dtype
    )

  one_of_both = {
    stateless: one_of(
      [functools.partial(mixed_from, n, stateless) for n in law.num],
      tf.TensorSpec([law.draws], tf.float64),
      *[tf.TensorSpec([2], tf.int64)] * 2,
    )
    for stateless in (False, True)
  }

  def mixed(image, rng):
    image = tf.convert_to_tensor(image)
    u = tf.zeros([0], tf.float64)
    if law.draws:
      u = rng.uniform([law.draws], dtype=tf.float64)
    seeds = [rng.reserve(n) for n in law.reserved]
    stateless = seeds[0] is not None
    seeds = seeds if stateless else [tf.zeros([2], tf.int64)] * 2
    if len(law.num) == 1:
      return mixed_from(law.most, stateless, image, u, *seeds)
    which = tf.cast(law.number(u, tf), tf.int32)
    return one_of_both[stateless](which, image, u, *seeds)

  return mixed


get_cropmix.__signature__ = inspect.signature(cropmix.read_arguments)
for _name in ("cropmix", f"{FUSED}cropmix"):
  registry.register(_name, law=cropmix.read_law)(get_cropmix)
