"""The runs that a sweep chooses, and that a random search would find."""

import dataclasses

import numpy as np

from big_crop.study import random_search, results, selection, statistics
from big_crop.study.layout import Selection
from big_crop.study.results import Metric


def test_what_a_sweep_chooses_is_reported():
  """Best by validation at each place, and means of groups over the seeds."""
  runs = {
    # (data, lr): (val, test of each seed)
    ("a", 1): (0.5, [10.0, 20.0]),
    ("a", 2): (0.4, [90.0, 90.0]),
    ("b", 1): (0.1, [0.0, 0.0]),
    ("b", 2): (0.2, [30.0, 50.0]),
  }
  metrics = [Metric("val", "val"), Metric("test", "test")]
  cells, settings = {}, []
  for (data, lr), (val, test) in runs.items():
    settings.append({"init": "x", "dataset": data, "lr": lr})
    key = results.key_of(settings[-1])
    for name, values in (("val", [val, val]), ("test", test)):
      values = dict(enumerate(values))
      cells[key, name] = statistics.cell(values, 2)
  found = results.Results("study", settings, metrics, cells)
  s = Selection(
    "t", ["lr"], "val", "test", "init", "dataset", {"g": ["a", "b"]}
  )
  table = selection.table(s, found)
  records = {r["dataset"]: r for r in table.records}
  assert (records["a"]["lr"], records["a"]["mean"]) == (1, 15.0)
  assert (records["b"]["lr"], records["b"]["mean"]) == (2, 40.0)
  mean = records["mean of g"]
  assert mean["mean"] == 27.5 and mean["low"] < 20 and mean["high"] > 35
  assert table.head == ["init", "a", "b", "mean of g"]
  # The whole budget finds the first of the two seeds with the best `val`.
  search, _ = random_search.make(dataclasses.replace(s, cost="lr"), found)
  assert (search.records[-1]["low"], search.records[-1]["high"]) == (10, 20)


def test_a_random_search_is_that_of_a_slow_simulation():
  rng = np.random.default_rng(0)
  cost = rng.choice([1.0, 3.0, 10.0], 30)
  found = np.stack([cost, rng.normal(size=30), rng.normal(size=30)], 1)
  budgets = np.array([10.0, 40.0, cost.sum()])
  band = random_search.simulate(found, budgets, seed=3)
  again = np.random.default_rng(3)
  reported = []
  for _ in range(1000):
    order, left = found[again.permutation(30)], budgets.copy()
    row = []
    for budget in left:
      tried = []
      for c, chooses, value in order:
        budget -= c
        if budget < -1e-9:
          break
        tried.append((chooses, value))
      row.append(max(tried)[1])
    reported.append(row)
  np.testing.assert_allclose(band, np.percentile(reported, (5, 50, 95), 0))
  # The whole budget finds the best run, whatever the order.
  assert set(band[:, 2]) == {found[found[:, 1].argmax(), 2]}
