"""Losses against SciPy, mixup against its closed form and its law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from big_crop.objectives import losses, mixing
from big_crop.runtime import sharding


@pytest.fixture
def logits_and_labels():
  rng = np.random.default_rng(0)
  logits = rng.normal(scale=20, size=(6, 5)).astype(np.float32)
  return logits, rng.dirichlet(np.ones(5), size=6).astype(np.float32)


def test_softmax_xent(logits_and_labels):
  logits, labels = logits_and_labels
  got = losses.get("softmax_xent")(logits, labels)
  log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
  np.testing.assert_allclose(got, -(labels * log_p).sum(-1), rtol=1e-6)
  assert got.dtype == jnp.float32


def test_sigmoid_xent_sums_over_classes(logits_and_labels):
  logits, labels = logits_and_labels
  got = losses.get("sigmoid_xent")(logits, labels)
  z = logits.astype(np.float64)
  terms = labels * scipy.special.log_expit(z)
  terms += (1 - labels) * scipy.special.log_expit(-z)
  np.testing.assert_allclose(got, -terms.sum(-1), rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax_xent", "sigmoid_xent"])
def test_losses_stay_finite_and_in_float32(name, logits_and_labels):
  logits = jnp.array([[1e4, -1e4]], jnp.bfloat16)
  loss = losses.get(name)(logits, jnp.array([[0.0, 1.0]], jnp.bfloat16))
  assert loss.dtype == jnp.float32 and np.isfinite(loss).all()


def test_unknown_loss_names_the_nearest():
  with pytest.raises(ValueError, match="did you mean 'softmax_xent'"):
    losses.get("softmax")


def batch(n=16):
  rng = np.random.default_rng(1)
  image = rng.normal(size=(n, 4, 4, 3)).astype(np.float32)
  return image, np.eye(n, dtype=np.float32)


def test_mixup_of_repeats_is_with_another_image():
  image, labels = batch()
  mix = mixing.make({"p": 0.4}, repeats=3)
  mixed, mixed_labels = mix(jax.random.key(3), image, labels)
  weight = mixed_labels[0, 0]
  expected = weight * image + (1 - weight) * np.roll(image, 3, 0)
  np.testing.assert_allclose(mixed, expected, rtol=1e-6)


def test_mixup_is_one_weight_and_a_rolled_batch():
  image, labels = batch()
  mixed, mixed_labels = mixing.mixup(jax.random.key(3), image, labels, 0.4)
  weight = float(mixed_labels[0, 0])
  assert 0.5 <= weight < 1
  for i in range(len(image)):
    expected = weight * image[i] + (1 - weight) * image[i - 1]
    np.testing.assert_allclose(mixed[i], expected, rtol=1e-5, atol=1e-6)
    expected = weight * labels[i] + (1 - weight) * labels[i - 1]
    np.testing.assert_allclose(mixed_labels[i], expected, atol=1e-6)


def folded_beta_pvalue(weights):
  beta = scipy.stats.beta(0.4, 0.4)
  cdf = lambda x: beta.cdf(x) - beta.cdf(1 - x)
  return scipy.stats.kstest(np.asarray(weights), cdf).pvalue


def test_weight_has_the_folded_beta_law():
  one = jnp.array([[1.0], [0.0]])
  weight = lambda key: mixing.mixup(key, one, one, 0.4)[0][0, 0]
  weights = jax.vmap(weight)(jax.random.split(jax.random.key(0), 4000))
  assert folded_beta_pvalue(weights) > 1e-3


def test_mixup_per_example_draws_a_weight_for_each():
  image, labels = batch(4000)
  mixed, mixed_labels = mixing.mixup(
    jax.random.key(3), image, labels, 0.4, "example"
  )
  weights = np.diagonal(mixed_labels)
  assert folded_beta_pvalue(weights) > 1e-3
  w = weights[:, None, None, None]
  expected = w * image + (1 - w) * np.roll(image, 1, axis=0)
  np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)
  partners = np.diagonal(np.roll(mixed_labels, 1, axis=1))
  np.testing.assert_allclose(partners, 1 - weights, atol=1e-6)


@pytest.mark.parametrize(
  ("kw", "message"),
  [
    (dict(p=-0.1), "config.mixup.p is -0.1"),
    (dict(p=0.2, per="sample"), "unknown config.mixup.per 'sample'"),
  ],
)
def test_bad_mixup_gets_one_line(kw, message):
  with pytest.raises(ValueError, match=message):
    mixing.make(mixup=kw)


@pytest.mark.parametrize("axes", [[("data", 8)], [("data", 2), ("fsdp", 4)]])
def test_mixup_does_not_depend_on_the_sharding(axes):
  image, labels = batch()
  mixup = jax.jit(lambda image, labels: mixing.mixup(key, image, labels, 0.2))
  key = jax.random.key(5)
  mesh = sharding.make_mesh(axes)
  data = sharding.make_global_batch({"image": image, "labels": labels}, mesh)
  got = mixup(**data)
  assert got[0].sharding.is_equivalent_to(sharding.batch_sharding(mesh), 4)
  for value, expected in zip(got, mixup(image, labels), strict=True):
    np.testing.assert_array_equal(value, expected)
