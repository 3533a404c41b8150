"""Makes our crops known to big_vision, without touching its code.

One line in a big_vision config,

    import pp_ops.big_vision

and its pp strings may say `inception_crop_fixed(224)`, `beta_crop(224, 2)` and
so on, also fused with decoding, `decode_jpeg_and_...`. Names that big_vision
has keep its meaning.
"""

from big_vision.pp import utils
from big_vision.pp.registry import Registry

from pp_ops import registry
from pp_ops.random import Rng


def _adapt(name):
  """One of our crops as a factory of big_vision ops."""
  factory = registry.lookup(name).factory

  @utils.InKeyOutKey()
  def get_op(*args, **kwargs):
    crop = registry.call_factory(name, factory, args, kwargs)
    return lambda image: crop(image, Rng())

  return get_op


for _name in registry.names():
  _full = f"preprocess_ops.{_name}"
  _is_crop = registry.lookup(_name).law is not None
  if _is_crop and _full not in Registry.global_registry():
    Registry.register(_full)(_adapt(_name))
