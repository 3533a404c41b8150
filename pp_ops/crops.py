"""Crops: apply a law to a decoded image, or to a JPEG while decoding it.

`inception_crop` is TensorFlow's own op; `inception_crop_fixed`, `beta_crop` and
every other entry of `pp_ops.laws.LAWS` run the law's array maths in the
graph, and so does `inception_crop_coupled`, which has TensorFlow's law. Each
comes fused with decoding as well, `decode_jpeg_and_...`, which
decodes no more of a JPEG than the window needs and gives the same pixels.

Areas are percent of the image here, as in big_vision.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable

import tensorflow as tf

from pp_ops import image as image_ops
from pp_ops.laws.windows import LAWS, Law, NativeLaw, check_range
from pp_ops.op_table import register
from pp_ops.random import Rng

_AREAS = ("area_min", "area_max")
_RESIZE = {"method": "bilinear", "antialias": False}

# (height, width, rng) -> (y, x, h, w), all scalar int32 tensors.
Sampler = Callable[[tf.Tensor, tf.Tensor, Rng], tuple[tf.Tensor, ...]]


def law_sampler(law) -> Sampler:
  """Runs a `pp_ops.laws` law in the graph, in float64."""

  def sample(height, width, rng):
    big_h, big_w = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    u = rng.uniform([law.max_attempts, law.draws], dtype=tf.float64)
    h, w, ok = law.propose(u, big_h, big_w, tf)
    first = tf.argmax(tf.cast(ok, tf.uint8))
    v = rng.uniform([2], dtype=tf.float64)

    def proposed():
      y, x = law.place(v, h[first], w[first], big_h, big_w, tf)
      return tf.stack([y, x, h[first], w[first]])

    window = tf.cond(
      ok[first], proposed, lambda: tf.stack(law.fallback(big_h, big_w, tf))
    )
    return tuple(tf.unstack(tf.cast(window, tf.int32)))

  return sample


def native_sampler(law: NativeLaw) -> Sampler:
  """TensorFlow's own `sample_distorted_bounding_box`, untouched."""
  kwargs = dict(
    bounding_boxes=tf.zeros([0, 0, 4], tf.float32),
    min_object_covered=0.0,
    aspect_ratio_range=(law.ratio_min, law.ratio_max),
    area_range=(law.area_min, law.area_max),
    max_attempts=law.max_attempts,
    use_image_if_no_bounding_boxes=True,
  )

  def sample(height, width, rng):
    shape = tf.stack([height, width, 3])
    seed = rng.seed()
    if seed is None:
      begin, size, _ = tf.image.sample_distorted_bounding_box(shape, **kwargs)
    else:
      begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape, seed=seed, **kwargs
      )
    return begin[0], begin[1], size[0], size[1]

  return sample


def _crop_image(sample):
  def crop(image, rng):
    shape = tf.shape(image)
    y, x, h, w = sample(shape[0], shape[1], rng)
    # Slicing by tensors forgets how many channels there are.
    return tf.ensure_shape(
      tf.slice(image, [y, x, 0], [h, w, -1]), [None, None, image.shape[-1]]
    )

  return crop


def _decode_and_crop(sample):
  def crop(data, rng):
    # Both branches draw alike, so that a window does not depend on the format.
    def from_jpeg():
      shape = tf.image.extract_jpeg_shape(data)
      y, x, h, w = sample(shape[0], shape[1], copy.copy(rng))
      # A column more on each side: the decoder interpolates chroma from the
      # neighbours, and would fill in the window's edges differently.
      left = tf.minimum(x, 1)
      wide = tf.minimum(w + left + 1, shape[1] - x + left)
      window = tf.stack([y, x - left, h, wide])
      image = tf.image.decode_and_crop_jpeg(data, window, 3, **image_ops.JPEG)
      return tf.slice(image, [0, left, 0], [h, w, 3])

    def from_other():
      return _crop_image(sample)(image_ops.decode(data), copy.copy(rng))

    image = tf.cond(tf.image.is_jpeg(data), from_jpeg, from_other)
    return tf.ensure_shape(image, [None, None, 3])

  return crop


def op_arguments(law_class: type[Law]) -> dict[str, float]:
  """The law's arguments in a pp string, with defaults: own ones, then shared.

  Areas are percent.
  """
  shared = [f.name for f in dataclasses.fields(Law)]
  fields = {f.name: f.default for f in dataclasses.fields(law_class)}
  names = [n for n in fields if n not in shared] + shared
  return {n: fields[n] * (100 if n in _AREAS else 1) for n in names}


def _law_from_op(law_class, kwargs):
  """The law of an op's arguments, areas in percent."""
  check_range(
    *("area_min", kwargs["area_min"], "area_max", kwargs["area_max"], 100),
    unit=" (percent of the image)",
  )
  return law_class(
    **{k: v / 100 if k in _AREAS else v for k, v in kwargs.items()}
  )


def _register(name: str, law_class: type[Law], sampler: Callable[..., Sampler]):
  """Registers a law's crop and its form that is fused with JPEG decoding."""
  arguments = op_arguments(law_class)
  defaults = {"size": None, **arguments, **_RESIZE}
  signature = inspect.Signature(
    inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=v)
    for k, v in defaults.items()
  )

  def bind(args, kwargs):
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments

  def get_law(*args, **kwargs):
    chosen = bind(args, kwargs)
    return _law_from_op(law_class, {k: chosen[k] for k in arguments})

  def factory_of(crop_with):
    def factory(*args, **kwargs):
      chosen = bind(args, kwargs)
      law = get_law(*args, **kwargs)
      image_ops.check_method(chosen["method"])
      crop = crop_with(sampler(law))
      if chosen["size"] is None:
        return crop
      resize = image_ops.get_resize(
        chosen["size"], **{k: chosen[k] for k in _RESIZE}
      )
      return lambda image, rng: resize(crop(image, rng))

    factory.__signature__ = signature
    factory.__qualname__ = f"{name}.{crop_with.__name__}"
    return factory

  get_law.__signature__ = signature
  register(name, law=get_law)(factory_of(_crop_image))
  register(f"decode_jpeg_and_{name}", law=get_law)(factory_of(_decode_and_crop))


for _name, _law_class in LAWS.items():
  _native = issubclass(_law_class, NativeLaw)
  _register(_name, _law_class, native_sampler if _native else law_sampler)
# TensorFlow's kernel turns a seed into uniforms of its own. Its law run here
# draws the uniforms that every other law draws, so that crops under two laws
# differ by the law alone: common random numbers, for paired comparisons.
_register("inception_crop_coupled", NativeLaw, law_sampler)
