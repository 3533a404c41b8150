"""The op `random_apply`, as in `pp_ops.random_apply`; both branches run."""

import dataclasses

import jax
import jax.numpy as jnp

from big_crop.device_ops.canvas import Canvas
from big_crop.device_ops.registry import lookup, register
from pp_ops.checks import check_random_apply, check_same_features
from pp_ops.registry import build


def _kinds(features):
  """{name of a feature: its dtype and shape in words}."""

  def kind(x):
    if not isinstance(x, Canvas):
      return f"{x.dtype} {x.shape}"
    resized = "" if x.target is None else f", to be resized {x.how}"
    return f"{x.pixels.dtype} {x.pixels.shape} of different sizes{resized}"

  return {name: kind(x) for name, x in features.items()}


def _pick(condition, new, old):
  if isinstance(new, Canvas):
    least = tuple(map(min, new.least, old.least))
    new, old = (dataclasses.replace(x, least=least) for x in (new, old))
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


@register("random_apply", inkey=None)
def get_random_apply(p: float, ops: str):
  """Applies a pp string; see `pp_ops.random_apply.get_random_apply`.

  Unlike in tf.data, its ops must not change a feature's shape either.
  """
  check_random_apply(p, ops)
  functions = build(ops, lookup)

  def random_apply(features, rng):
    applied = rng.uniform() < p
    out = features
    for function in functions:
      # All inner ops draw from the outer op's Rng, one after the other.
      out = function(out, lambda position: rng)
    check_same_features(ops, _kinds(features), _kinds(out))
    return {k: _pick(applied, out[k], old) for k, old in features.items()}

  return random_apply
