"""pp strings on the accelerator: the registry of JAX ops, and the compiler.

Strings, arguments and names are those of `pp_ops.registry`; an op here does to
one example what the op of that name does in tf.data. It is written for one
example and run over a batch by `jax.vmap`, under which both branches of a
condition run. Random numbers are those of tf.data as well (`philox`).

Register your own as in `pp_ops`:

    @register("fade")
    def get_fade(factor=0.5):
      return lambda image: image * factor

An op gets its image as
  an array [H, W, C] after an op that gives all images one size;
  a `canvas.Canvas` before that, if it was registered with `canvas=True`. Other
  ops raise a one-line error for a `Canvas`.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax

from big_crop.device_ops.canvas import Canvas
from big_crop.device_ops.philox import Rng
from pp_ops import registry as host
from pp_ops.errors import UserError
from pp_ops.registry import Op

Features = dict[str, Any]

_MODULES = (
  "big_crop.device_ops.blur",
  "big_crop.device_ops.color",
  "big_crop.device_ops.cropmix",
  "big_crop.device_ops.erasing",
  "big_crop.device_ops.features",
  "big_crop.device_ops.geometry",
  "big_crop.device_ops.image",
  "big_crop.device_ops.pixels",
  "big_crop.device_ops.policies",
  "big_crop.device_ops.random_apply",
)
_OPS: dict[str, Op] = {}


def register(
  name: str,
  *,
  inkey: str | None = "image",
  outkey: str | None = None,
  canvas: bool = False,
) -> Callable[[Callable], Callable]:
  """Decorator: registers the factory of an op; see `pp_ops.registry.register`.

  With `canvas` the op takes images of different sizes, as `Canvas`.
  """

  def add(factory):
    made = factory if canvas or inkey is None else _of_one_size(name, factory)
    _OPS[name] = Op(made, inkey, outkey or inkey, None)
    return factory

  return add


def _of_one_size(name, factory):
  """Wraps a factory so that its op raises a one-line error for a `Canvas`."""

  @functools.wraps(factory)
  def checked_factory(*args, **kwargs):
    op = factory(*args, **kwargs)

    @functools.wraps(op)  # `build` asks the op whether it takes an rng.
    def checked_op(x, **rng):
      if isinstance(x, Canvas):
        raise UserError(
          f"op {name!r} on the device needs images of one size: put it after a "
          "crop or resize with a size"
        )
      return op(x, **rng)

    return checked_op

  return checked_factory


def _import_ops():
  for module in _MODULES:
    importlib.import_module(module)


def names() -> list[str]:
  """The names of the ops that run on the device, sorted."""
  from pp_ops.laws import names as law_names

  _import_ops()
  return sorted([*_OPS, *law_names.op_names()])


def lookup(name: str) -> Op:
  """The op of a name."""
  _import_ops()
  from big_crop.device_ops import crops

  op = _OPS.get(name) or crops.law_op(name)
  if not op:
    near = host.did_you_mean(name, names())
    raise UserError(
      f"op {name!r} has no form that runs on the device: set engine='tf.data', "
      f"which has every op; {near}"
    )
  return op


def get_preprocess_fn(spec: str) -> Callable[[Features, jax.Array], Features]:
  """Builds the function that a pp string describes, for a batch.

  Args:
    spec: the pp string.

  Returns:
    (features, seeds) -> features, for use under `jax.jit`. Features are arrays
    [B, ...], except that the input "image" may be a `Canvas` of such arrays;
    seeds are uint32 [B, 4], see `philox.seed_words`.

  Raises:
    ValueError: in one line, for a string that is wrong or has an op that does
      not run on the device. The returned function raises it for features that
      do not fit.
  """
  ops = host.build(spec, lookup)

  def one(features, seed):
    for op in ops:
      features = op(features, lambda position: Rng(seed, position))
    for name, x in features.items():
      if isinstance(x, Canvas):
        raise UserError(
          f"the pp string leaves {name!r} in different sizes: give the crop or "
          "resize a size"
        )
    return features

  return jax.vmap(one)
