"""Makes our ops known to big_vision, without touching its code.

One line in a big_vision config,

    import pp_ops.big_vision

and its pp strings may say `inception_crop_fixed(224)`, `beta_crop(224, 2)`,
`randaug(2, 10)` and so on, also fused with decoding, `decode_jpeg_and_...`.
Names that big_vision has keep its meaning. docs/from_big_vision.md has the
details.

A crop changes the law alone: it cuts the window that our law draws, and the
rest is what big_vision's own crop op does. JPEGs are decoded by TensorFlow's
default, the fast DCT, and `ops_image.get_resize` truncates to whole grey
levels. (The same names in a big_crop run decode as Pillow does, and round.)
The arguments have big_vision's order as well, see `_arguments`.

`randaug` is big_vision's, `contrast="legacy"`, unless the string says
otherwise. It is ours only where big_vision's own cannot be imported.

The tests run beside big_vision's own code if the environment variable
BIG_VISION_PATH names a checkout of it, the folder that holds `big_vision/`.
"""

import importlib
import inspect
import sys

import tensorflow as tf
from absl import logging

# Its ops refuse a name that is taken, and a config is read before train.py
# imports them: they have to come first.
from big_vision.pp import (
  ops_general,  # noqa: F401
  ops_image,
  utils,
)
from big_vision.pp.registry import Registry

from pp_ops import crops, registry
from pp_ops.random import Rng

_FUSED = "decode_jpeg_and_"
_RATIOS = {"ratio_min", "ratio_max"}
_RESIZE = {"method": "bilinear", "antialias": False}


def _arguments(name, law):
  """The signature of a crop: big_vision's `inception_crop`, then the rest.

  A law's own arguments come after `size`: `beta_crop(size, alpha, beta,
  area_min, area_max, method, antialias, ratio_min, ...)`. Fused with decoding
  the ratios come before `method`, as in big_vision.
  """
  parameters = dict(inspect.signature(law).parameters)
  resize = [parameters.pop(k).replace(default=v) for k, v in _RESIZE.items()]
  names = list(parameters)
  end = names.index("area_max") + 1
  if name.startswith(_FUSED):
    while names[end] in _RATIOS:
      end += 1
  parameters = list(parameters.values())
  return inspect.Signature([*parameters[:end], *resize, *parameters[end:]])


def _adapt_crop(name):
  """One of our laws inside of what big_vision's own crop does."""
  get_law = registry.lookup(name).law
  signature = _arguments(name, get_law)

  def factory(*args, **kwargs):
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    chosen = bound.arguments
    sample = crops.law_sampler(get_law(**chosen))
    resize = lambda image: image
    if chosen["size"]:
      get_resize = ops_image.get_resize(
        chosen["size"], chosen["method"], chosen["antialias"]
      )
      resize = lambda image: get_resize({"image": image})["image"]

    def crop_jpeg(data, rng):
      shape = tf.image.extract_jpeg_shape(data)
      window = tf.stack(sample(shape[0], shape[1], rng))
      return resize(tf.image.decode_and_crop_jpeg(data, window, channels=3))

    def crop_image(image, rng):
      shape = tf.shape(image)
      y, x, h, w = sample(shape[0], shape[1], rng)
      crop = tf.slice(image, [y, x, 0], [h, w, -1])
      return resize(tf.ensure_shape(crop, [None, None, image.shape[-1]]))

    return crop_jpeg if name.startswith(_FUSED) else crop_image

  factory.__signature__ = signature
  return factory


def _legacy_randaug(num_layers=2, magnitude=10, contrast="legacy"):
  return registry.lookup("randaug").factory(num_layers, magnitude, contrast)


def _adapt(name):
  """One of our ops as a factory of big_vision ops."""
  op = registry.lookup(name)
  factory = _legacy_randaug if name == "randaug" else op.factory
  if op.law:
    factory = _adapt_crop(name)

  @utils.InKeyOutKey(op.inkey, op.outkey)
  def get_op(*args, **kwargs):
    function = registry.call_factory(name, factory, args, kwargs)
    if "rng" not in inspect.signature(function).parameters:
      return function
    return lambda feature: function(feature, Rng())

  return get_op


def _import_randaug():
  """Lets big_vision register its own `randaug`, if what it imports is there.

  It needs tensorflow_addons, which ended with TensorFlow 2.15. Its configs
  name its module in `pp_modules`; ours then stands in for that module.
  """
  module = "big_vision.pp.archive.randaug"
  try:
    importlib.import_module(module)
  except ImportError as e:
    logging.warning("%s: %s; randaug is now that of pp_ops", module, e)
    sys.modules[module] = sys.modules[__name__]


_import_randaug()
for _name in registry.names():
  _full = f"preprocess_ops.{_name}"
  if _full not in Registry.global_registry():
    Registry.register(_full)(_adapt(_name))
