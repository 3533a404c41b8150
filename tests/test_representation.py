"""Nearest neighbours and linear probes against scikit-learn and NumPy."""

import re

import numpy as np
import pytest
from test_export import run_of

from big_crop import probe
from big_crop.evaluators import representation
from big_crop.evaluators.representation import Features
from big_crop.runtime import commands


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
  # Ties of float32 numbers may be broken differently.
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


@pytest.mark.parametrize("shots", [1, 7])
def test_few_shots_are_scikit_learns_ridge(shots):
  """All but 0.1% of the answers agree, by the dual and the primal solution."""
  linear_model = pytest.importorskip("sklearn.linear_model")
  train, test = blobs(600, 1), blobs(2000, 2)
  order = np.random.default_rng(3).permutation(600)
  chosen = [i for c in range(5) for i in order if train.label[i] == c]
  counts = np.bincount(train.label)
  starts = np.cumsum([0, *counts[:-1]])
  chosen = np.concatenate([chosen[s : s + shots] for s in starts])
  few = np.float64(train.x[chosen])
  mean, std = few.mean(0), few.std(0) + 1e-5
  features = lambda x: np.hstack([(x - mean) / std, np.full((len(x), 1), 100)])
  wanted = 2.0 * np.eye(5)[train.label[chosen]] - 1
  ridge = linear_model.Ridge(alpha=1024, fit_intercept=False, solver="cholesky")
  ridge.fit(features(few), wanted)
  expected = ridge.predict(features(test.x)).argmax(1)
  found = representation.few_shot(train, test.x, shots, 1024, seed=3)
  assert (found == expected).mean() >= 0.999
  # Neither scale nor offset of a feature matters.
  scale = np.exp2(np.arange(12) % 5 - 2)
  moved = Features(np.float32(train.x * scale + 8), train.label)
  again = representation.few_shot(moved, test.x * scale + 8, shots, 1024, 3)
  assert (again == found).mean() >= 0.99


@pytest.mark.slow
def test_a_finished_run_is_probed(tmp_path, capsys):
  run_of(tmp_path / "run", "vit")
  argv = ["--workdir", str(tmp_path / "run"), "--k=3"]
  probe.main(argv)
  head, _, row = capsys.readouterr().out.strip().splitlines()[-3:]
  names = [*("run", "knn", "linear", "linear_train")]
  names += [f"few_shot_{n}" for n in (1, 5, 10, 25)]
  assert re.findall(r"\w+", head) == names
  assert all(0 <= float(x) <= 100 for x in row.split("|")[2:-1])
  for more, message in (
    (["--layer=encodd"], "did you mean 'encoded'"),
    (["--layer=encoder"], "is no array"),
    (["--pp=decode|resize(32)|value_range|keep('image')"], "label"),
    (["--test=nothing"], "nothing"),
    (["--k=0"], "k=0"),
  ):
    with pytest.raises(SystemExit) as e, commands.one_line():
      probe.main([*argv, *more])
    assert e.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and message in line, line
