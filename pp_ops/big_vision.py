"""Makes our ops known to big_vision, without touching its code.

One line in a big_vision config,

    import pp_ops.big_vision

and its pp strings may say `inception_crop_fixed(224)`, `beta_crop(224, 2)`,
`randaug(2, 10)` and so on, also fused with decoding, `decode_jpeg_and_...`.
Ops that big_vision already has keep its implementation.
docs/from_big_vision.md has the details.

A crop op here differs from big_vision's own only by its law, which draws the
window. JPEGs are decoded by TensorFlow's default, the fast DCT, and
`ops_image.get_resize` truncates to whole grey levels. (In a big_crop run the
ops of the same names decode as Pillow does, and round.) The arguments have
big_vision's order as well, see `_arguments`.

`randaug` is big_vision's own op. If that cannot be imported, it is ours with
`contrast="legacy"` as the default, which computes what big_vision's does.

The tests run beside big_vision's own code if the environment variable
BIG_VISION_PATH names a checkout of it, the folder that holds `big_vision/`.
"""

import importlib
import inspect
import sys

import tensorflow as tf
from absl import logging

# Imported here, so that big_vision's ops are registered before ours, because
# big_vision's registry refuses a name that is taken. Its train.py imports the
# ops too late: it first reads the config, which imports this module.
from big_vision.pp import (
  ops_general,  # noqa: F401
  ops_image,
  utils,
)
from big_vision.pp.registry import Registry

from pp_ops import crops, registry
from pp_ops.laws.names import law_class_of
from pp_ops.random import Rng

_FUSED = "decode_jpeg_and_"
_RATIOS = {"ratio_min", "ratio_max"}
_RESIZE = {"method": "bilinear", "antialias": False}


def _arguments(name, law):
  """The signature of a crop, in the order of big_vision's `inception_crop`.

  A law's own arguments come after `size`: `beta_crop(size, alpha, beta,
  area_min, area_max, method, antialias, ratio_min, ...)`. In an op fused with
  decoding the ratios come before `method`, as in big_vision.
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
  """A crop op whose window our law draws; the rest is big_vision's crop."""
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
  if law_class_of(name):  # cropmix has a law, too, but no window
    factory = _adapt_crop(name)

  @utils.InKeyOutKey(op.inkey, op.outkey)
  def get_op(*args, **kwargs):
    function = registry.call_factory(name, factory, args, kwargs)
    if "rng" not in inspect.signature(function).parameters:
      return function
    return lambda feature: function(feature, Rng())

  return get_op


def _import_randaug():
  """Lets big_vision register its own `randaug`, if that can be imported.

  big_vision's module needs tensorflow_addons, which ended with TensorFlow 2.15.
  If the import fails, this module takes its place in `sys.modules`, because
  big_vision's configs name it in `pp_modules` and would fail to import it.
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
