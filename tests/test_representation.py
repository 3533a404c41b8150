"""Nearest neighbours and linear probes against scikit-learn and NumPy."""

import numpy as np
import pytest

from big_crop.evaluators import representation
from big_crop.evaluators.representation import Features


def blobs(n, seed, num_classes=5, width=12):
  centres = np.random.default_rng(0).normal(size=(num_classes, width))
  rng = np.random.default_rng(seed)
  label = rng.integers(num_classes, size=n)
  x = centres[label] + 1.2 * rng.normal(size=(n, width))
  return Features(np.float32(3 * x + 1), label)


def test_neighbours_are_those_of_numpy():
  bank, test = blobs(300, 1), blobs(2100, 2)
  found = representation.nearest(bank, test.x, k=20, temperature=0.07)
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  cosine = unit(np.float64(test.x)) @ unit(np.float64(bank.x)).T
  votes = np.zeros((len(test.x), 5))
  for row, c in enumerate(cosine):
    for i in np.argsort(-c)[:20]:
      votes[row, bank.label[i]] += np.exp(c[i] / 0.07)
  # A tie of float32's may fall the other way.
  assert (found == votes.argmax(1)).mean() > 0.998


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_the_linear_probe_is_scikit_learns(l2):
  """Logits to 1e-2 of their spread, and accuracy to 1e-3."""
  linear_model = pytest.importorskip("sklearn.linear_model")
  train, test = blobs(600, 1), blobs(2000, 2)
  logits = representation.fit(train, l2, max_steps=2000)(test.x)
  centred = train.x - train.x.mean(0)
  peer = linear_model.LogisticRegression(
    C=1 / (len(train.x) * l2), tol=1e-8, max_iter=5000
  ).fit(centred / centred.std(), train.label)
  x = (test.x - train.x.mean(0)) / centred.std()
  expected = peer.decision_function(x)
  centre = lambda v: v - v.mean(1, keepdims=True)
  spread = centre(expected).std()
  np.testing.assert_allclose(
    centre(logits), centre(expected), atol=1e-2 * spread
  )
  accuracy = [(v.argmax(1) == test.label).mean() for v in (logits, expected)]
  assert abs(accuracy[0] - accuracy[1]) <= 1e-3
