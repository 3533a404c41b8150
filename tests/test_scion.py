"""Scion against NumPy's SVD and a transcription of its update rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from objective_helpers import classify, specs

from big_crop import models, optim, step, trees
from big_crop.optim import scion


def param_shapes(model, *shape):
  return step.param_shapes(classify(model, 5), specs(*shape))


def vit_shapes(num_classes, **kw):
  model = models.get_model(
    "vit", num_classes, posemb="sincos2d", norm="rmsnorm", **kw
  )
  return param_shapes(model, 32, 32, 3)


# Each shape once, with one name that has it.
SMALL = vit_shapes(50, width=96, depth=1, num_heads=6, patch_size=8)
NAMES = {x.shape: name for name, x in trees.named_leaves(SMALL)}


def random_kernel(shape, seed=0, scale=1e-4):
  rng = np.random.default_rng(seed)
  return (scale * rng.normal(size=shape)).astype(np.float32)


def as_matrix(name, kernel):
  """A kernel as a matrix, as the docstring of scion.py says."""
  if any(f"{n}/" in name for n in ("query", "key", "value")):
    return kernel.reshape(len(kernel), -1)
  return kernel.reshape(-1, kernel.shape[-1])


def lmo_of(name):
  if name == "head/kernel":
    return "sign"
  return "spectral" if name.endswith("kernel") else "bias"


def numpy_lmo(name, m):
  """Table 17 in float64, of A = kernel transposed."""
  m = m.astype(np.float64)
  if lmo_of(name) == "bias":
    return -m / np.sqrt(np.mean(m**2))
  a = as_matrix(name, m).T
  d_out, d_in = a.shape
  if lmo_of(name) == "sign":
    lmo = -np.sign(a) / d_in
  else:
    u, _, vt = np.linalg.svd(a, full_matrices=False)
    lmo = -np.sqrt(d_out / d_in) * u @ vt
  return lmo.T.reshape(m.shape)


@pytest.mark.long
def test_s16_has_the_shapes_that_the_papers_matrices_have():
  shapes = {
    as_matrix(n, np.empty(x.shape)).shape
    for n, x in trees.named_leaves(vit_shapes(1000, variant="S/16"))
    if lmo_of(n) == "spectral"
  }
  assert shapes == {(768, 384), (384, 384), (384, 1536), (1536, 384)}


@pytest.mark.parametrize("shape", NAMES, ids=str)
def test_each_lmo_is_the_steepest_direction_of_norm_one(shape):
  name, m = NAMES[shape], random_kernel(shape)
  tx = scion.scale_by_scion(momentum=1.0, lmos=[(".*", lmo_of(name))])
  params = {"x": {name.split("/")[-2]: {"kernel": m}}}
  (direction,) = jax.tree.leaves(
    jax.jit(lambda g: tx.update(g, tx.init(g))[0])(params)
  )
  lmo = -np.asarray(direction, np.float64)
  m = m.astype(np.float64)
  if lmo_of(name) == "bias":
    norm = np.sqrt(np.mean(lmo**2))
    dual = np.sqrt(m.size) * np.linalg.norm(m)
  else:
    a, g = as_matrix(name, lmo).T, as_matrix(name, m).T
    d_out, d_in = a.shape
    if lmo_of(name) == "sign":
      norm, dual = d_in * np.abs(a).max(), np.abs(g).sum() / d_in
    else:
      sigma = np.linalg.svd(a, compute_uv=False) * np.sqrt(d_in / d_out)
      assert sigma.max() / sigma.min() < 1.001
      norm = sigma.max()
      nuclear = np.linalg.svd(g, compute_uv=False).sum()
      dual = np.sqrt(d_out / d_in) * nuclear
  assert norm == pytest.approx(1, abs=1e-3)
  # The dual norm is the fastest descent of any direction of norm 1.
  assert -(lmo * m).sum() == pytest.approx(dual, rel=1e-3)
  expected = numpy_lmo(name, m)
  error = np.linalg.norm(lmo - expected) / np.linalg.norm(expected)
  assert error < 1e-3


@pytest.mark.parametrize("shape", [(64, 64), (96, 40), (40, 96)])
@pytest.mark.first(1)
@pytest.mark.long
def test_newton_schulz_is_the_orthogonal_factor(shape):
  for seed in range(20):
    x = random_kernel(shape, seed, scale=1e-12)
    u, s, vt = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    assert s.min() > 3e-6 * np.linalg.norm(x)
    error = np.asarray(scion.newton_schulz(x)) - u @ vt
    assert np.linalg.norm(error, ord=2) < 1e-2


def test_zero_and_low_rank_gradients_stay_finite():
  zero = jnp.zeros((6, 4))
  np.testing.assert_array_equal(scion.newton_schulz(zero), zero)
  np.testing.assert_array_equal(scion.bias(zero.reshape(-1)), 0)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(6, 1)) @ rng.normal(size=(1, 4))
  factor = np.asarray(scion.newton_schulz(jnp.float32(x)))
  # Rounding may add directions that the gradient lacks, which does no harm.
  assert np.linalg.norm(factor, ord=2) < 1.001
  assert (factor * x).sum() == pytest.approx(np.linalg.norm(x), rel=1e-3)


def scion_config(**kw):
  return ConfigDict(
    dict(
      optax_name="scale_by_scion",
      lr=0.01,
      lr_mults=[("head/kernel", 20.0), (".*", 1.0)],
      wd=0.01 * 0.08,
      wd_mults=[(".*", 1.0)],
      schedule=dict(decay_type="cosine"),
      **kw,
    )
  )


def test_ten_steps_are_those_of_appendix_i():
  model = models.get_model(
    "vit", 5, width=16, depth=1, num_heads=2, patch_size=4, norm="rmsnorm",
    posemb="sincos2d",
  )  # fmt: skip
  shapes = param_shapes(model, 8, 8, 3)
  rng = np.random.default_rng(0)
  normal = lambda x: rng.normal(size=x.shape).astype(np.float32)
  params = jax.tree.map(normal, shapes)
  tx, _ = optim.make(
    scion_config(optax=dict(momentum=0.3)),
    params,
    total_steps=20,
    batch_size=1,
    data_size=1,
  )
  state = tx.init(params)
  update = jax.jit(tx.update)
  theta = {k: np.float64(v) for k, v in trees.named_leaves(params)}
  m = {k: np.zeros_like(v) for k, v in theta.items()}
  start = dict(theta)
  for t in range(10):
    grads = jax.tree.map(normal, shapes)
    updates, state = update(grads, state, params)
    params = optax.apply_updates(params, updates)
    cosine = (1 + np.cos(np.pi * t / 20)) / 2
    g = dict(trees.named_leaves(grads))
    m = {k: 0.7 * m[k] + 0.3 * g[k] for k in m}
    for k in theta:
      last = k == "head/kernel"
      gamma = cosine * (0.2 if last else 0.01)
      decay = 0.08 * (0.05 if last else 1)
      theta[k] = theta[k] + gamma * (-decay * theta[k] + numpy_lmo(k, m[k]))
    got = dict(trees.named_leaves(params))
    for k in theta:
      # Newton-Schulz leaves singular values 6e-4 short of one.
      np.testing.assert_allclose(got[k], theta[k], atol=2e-5 * (t + 1))
  assert all(np.abs(start[k] - got[k]).max() > 0.02 for k in theta)


@pytest.mark.parametrize(
  ("kw", "message"),
  [
    (dict(momentum=0), "momentum is 0"),
    (dict(lmos=[(".*", "spectrl")]), "did you mean 'spectral'"),
    (dict(lmos=[(".*kernel", "spectral")]), "no pattern matches 'head/bias'"),
    (dict(lmos=[(".*", "sign")]), "sign needs a matrix, but 'head/bias'"),
  ],
)
def test_mistakes_fail_before_training(kw, message):
  params = {"head": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
  with pytest.raises(ValueError, match=message):
    tx, _ = optim.make(
      scion_config(optax=kw), params, total_steps=2, batch_size=1, data_size=1
    )
    jax.eval_shape(tx.init, params)
