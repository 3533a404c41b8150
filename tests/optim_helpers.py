"""Parameters of every layout, gradients, and runs of `optim.make` on them."""

import re

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from big_crop import optim, trees

STEPS = 20
LR, WD = 0.02, 0.03
WARMUP = 4
# Factors of the learning rate and of weight decay, by name.
LR_MULTS = [("head/.*", 2.0), (".*", 1.0)]
WD_MULTS = [("head/kernel", 0.5), ("zero/kernel", 0.0), (".*/kernel", 1.0)]

SHAPES = {
  "conv/kernel": (3, 3, 4, 6),
  "grouped/kernel": (3, 3, 1, 4),
  "pointwise/kernel": (1, 1, 6, 8),
  "query/kernel": (8, 2, 3),
  "query/bias": (2, 3),
  "out/kernel": (2, 3, 8),
  "norm/scale": (8,),
  "norm/bias": (8,),
  "pos_embedding": (1, 5, 8),
  "units/kernel": (3, 2, 4, 5),
  "whole/kernel": (12, 7),
  "zero/kernel": (8, 3),
  "start/kernel": (4, 8),
  "still/kernel": (5, 4),
  "head/kernel": (8, 5),
  "head/bias": (5,),
}


def nest(leaves):
  tree = {}
  for name, leaf in leaves.items():
    *parents, last = name.split("/")
    place = tree
    for part in parents:
      place = place.setdefault(part, {})
    place[last] = leaf
  return tree


def flat(tree):
  return {name: np.asarray(x) for name, x in trees.named_leaves(tree)}


def parameters():
  """Random parameters; three are zero, like new biases and last scales."""
  rng = np.random.default_rng(0)
  params = {
    name: rng.normal(size=shape).astype(np.float32)
    for name, shape in SHAPES.items()
  }
  return params | {
    name: np.zeros_like(params[name])
    for name in ("norm/bias", "start/kernel", "zero/kernel")
  }


def gradients(step, params):
  """Random gradients. Some are zero, or orthogonal to their parameter."""
  rng = np.random.default_rng(1 + step)
  grads = {}
  for name, shape in SHAPES.items():
    g, p = 2 * rng.normal(size=shape), params[name].astype(np.float64)
    if name == "units/kernel":  # each filter by itself
      g -= p * (g * p).sum((0, 1, 2)) / (p * p).sum((0, 1, 2))
    if name == "whole/kernel":
      g -= p * (g * p).sum() / (p * p).sum()
    if name in ("zero/kernel", "still/kernel"):
      g = 0 * g
    grads[name] = g.astype(np.float32)
  return grads


def as_matrix(name, x):
  """A kernel as [inputs, units]; any other parameter as one unit."""
  if not name.endswith("kernel"):
    return x.reshape(-1, 1)
  if name == "query/kernel":
    return x.reshape(len(x), -1)
  return x.reshape(-1, x.shape[-1])


def factor(step):
  """The schedule: linear warmup, then cosine."""
  q = (step - WARMUP) / (STEPS - WARMUP)
  return step / WARMUP if step < WARMUP else (1 + np.cos(np.pi * q)) / 2


def mult(name, rules):
  return next((f for r, f in rules if re.fullmatch(r, name)), 0.0)


def make(rule):
  """The transformation for some keys of a config."""
  config = {
    "lr": LR,
    "wd": WD,
    "lr_mults": LR_MULTS,
    "wd_mults": WD_MULTS,
    "schedule": {"decay_type": "cosine", "warmup_steps": WARMUP},
  }
  params = nest(parameters())
  sizes = {"total_steps": STEPS, "batch_size": 1, "data_size": 1}
  tx, _ = optim.make(ConfigDict(config | rule), params, **sizes)
  return tx


def run(rule):
  """Yields (gradients, parameters after the step), both flat."""
  tx, params = make(rule), nest(parameters())
  state = tx.init(params)
  update = jax.jit(tx.update)
  for step in range(STEPS):
    grads = gradients(step, flat(params))
    updates, state = update(nest(grads), state, params)
    params = optax.apply_updates(params, updates)
    yield grads, flat(params)


def assert_same_steps(got, expected, start, rtol=1e-5):
  """Compares parameters, and their distances from the start.

  The tolerance allows for rounding of parameters that have hardly moved.
  """
  for name, value in expected.items():
    np.testing.assert_allclose(
      got[name],
      value,
      rtol=rtol,
      atol=rtol * max(np.abs(value).max(), 1e-6),
      err_msg=name,
    )
    moved = np.linalg.norm(value - start[name])
    error = np.linalg.norm(got[name] - value)
    rounding = 1e-6 * np.linalg.norm(value)
    assert error <= 5 * rtol * moved + rounding, (name, error, moved)
