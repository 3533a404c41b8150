"""Metrics against a plain NumPy transcription."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from big_crop import evaluators
from big_crop.evaluators.classification import Task, image_metrics


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


def measured(logits, loss="softmax_xent", classes=None, **batch):
  """The sums over the per-image measurements of images that count."""
  task = Task(lambda _, x: (x, {}), logits.shape[-1], loss, classes, None)
  rows = image_metrics(task, {}, {"image": logits, **batch})
  rows = {k: np.asarray(v) for k, v in rows.items()}
  kept = (rows.pop("counts") * rows.pop("mask")) > 0
  return {"count": kept.sum(), **{k: v[kept].sum() for k, v in rows.items()}}


@pytest.mark.parametrize("multi", [False, True])
def test_image_metrics(multi):
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
  key = "labels" if multi else "label"
  sums = measured(jnp.array(logits), mask=mask, **{key: jnp.array(labels)})
  expected = transcription(logits, sets, mask)
  for name, value in expected.items():
    assert sums[name] == value
  log_p = special.log_softmax(logits.astype(np.float64), axis=1)
  counted = [i for i, s in enumerate(sets) if s and mask[i]]
  loss = sum(-log_p[i, list(sets[i])].mean() for i in counted)
  np.testing.assert_allclose(sums["loss"], loss, rtol=1e-5)
  confidence = np.exp(log_p[counted]).max(1).sum()
  np.testing.assert_allclose(sums["confidence"], confidence, rtol=1e-5)


def test_fewer_than_five_classes():
  sums = measured(
    jnp.array([[0.0, 1.0, 2.0]]),
    "sigmoid_xent",
    label=jnp.array([0]),
    mask=jnp.ones(1),
  )
  assert sums["top1"] == 0 and sums["top5"] == 1


def test_unknown_evaluator_and_argument():
  context = {"predict": None, "mesh": None, "num_classes": 3, "seed": 0}
  for config, message in [
    ({"type": "classify"}, "did you mean 'classification'"),
    ({"pp": "decode"}, "did you mean 'pp_fn'"),
    ({"mesh": 3}, "config.evals.val"),
  ]:
    with pytest.raises(ValueError, match=message):
      evaluators.make("val", config, **context)
