"""Metrics against a plain NumPy transcription."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from big_crop import evaluators
from big_crop.evaluators.classification import batch_sums
from big_crop.objectives import losses


def transcription(logits, label_sets, mask):
  """Sums of top-1, top-5 and count over images that have labels."""
  sums = {"top1": 0.0, "top5": 0.0, "count": 0.0}
  for z, labels, m in zip(logits, label_sets, mask, strict=True):
    if not m or not labels:
      continue
    best = np.argsort(-z)[:5]
    sums["top1"] += best[0] in labels
    sums["top5"] += any(b in labels for b in best)
    sums["count"] += 1
  return sums


@pytest.mark.parametrize("multi", [False, True])
def test_batch_sums(multi):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(40, 12)).astype(np.float32)
  mask = (rng.random(40) < 0.8).astype(np.float32)
  if multi:
    sets = [set(rng.choice(12, rng.integers(0, 4), False)) for _ in range(40)]
    labels = np.array(
      [[float(c in s) for c in range(12)] for s in sets], np.float32
    )
  else:
    labels = rng.integers(0, 12, 40)
    sets = [{label} for label in labels]
  sums = batch_sums(
    jnp.array(logits), jnp.array(labels), jnp.array(mask), losses.softmax_xent
  )
  expected = transcription(logits, sets, mask)
  for key, value in expected.items():
    assert float(sums[key]) == value
  log_p = special.log_softmax(logits.astype(np.float64), axis=1)
  loss = sum(-log_p[i, c] for i, s in enumerate(sets) for c in s if mask[i])
  np.testing.assert_allclose(sums["loss"], loss, rtol=1e-5)


def test_fewer_than_five_classes():
  sums = batch_sums(
    jnp.array([[0.0, 1.0, 2.0]]),
    jnp.array([0]),
    jnp.ones(1),
    losses.sigmoid_xent,
  )
  assert float(sums["top1"]) == 0 and float(sums["top5"]) == 1


def test_unknown_evaluator_and_argument():
  context = {"predict": None, "mesh": None, "num_classes": 3, "seed": 0}
  for config, message in [
    ({"type": "classify"}, "did you mean 'classification'"),
    ({"pp": "decode"}, "did you mean 'pp_fn'"),
    ({"mesh": 3}, "config.evals.val"),
  ]:
    with pytest.raises(ValueError, match=message):
      evaluators.make("val", config, **context)
