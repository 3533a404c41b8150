"""A study's statistics against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from big_crop.study import (
  statistics,
)


def cells(seed, *sizes):
  rng = np.random.default_rng(seed)
  return [
    statistics.cell(dict(enumerate(rng.normal(i, 1, n))), n)
    for i, n in enumerate(sizes)
  ]


@pytest.mark.parametrize("sizes", [(3, 3), (4, 3), (2, 5)])
def test_unpaired_is_scipys_equal_variance_test(sizes):
  a, b = cells(0, *sizes)
  x, y = (list(c.values.values()) for c in (a, b))
  assert statistics.compare(a, b).p == pytest.approx(stats.ttest_ind(y, x)[1])
  # Without the values, as for the paper's tables.
  bare = [c._replace(values={}) for c in (a, b)]
  d = statistics.compare(*bare)
  known = stats.ttest_ind_from_stats(
    b.mean, b.std, b.n, a.mean, a.std, a.n, equal_var=True
  )
  assert d.p == pytest.approx(known.pvalue)
  assert d.paired_p is None and d.pairs == 0


def test_paired_is_scipys():
  a, b = cells(1, 5, 5)
  x, y = (np.array(list(c.values.values())) for c in (a, b))
  d = statistics.compare(a, b)
  known = stats.ttest_rel(y, x)
  assert d.paired_p == pytest.approx(known.pvalue)
  interval = known.confidence_interval(0.95)
  assert (d.low, d.high) == pytest.approx((interval.low, interval.high))
  assert d.paired_std == pytest.approx(np.std(y - x, ddof=1))
  assert d.std == pytest.approx(np.hypot(a.std, b.std))
  assert d.variance_left == pytest.approx(
    np.var(y - x, ddof=1) / (a.std**2 + b.std**2)
  )


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_difference_that_it_sees_is_found_in_four_of_five(n):
  """By simulation; false alarms below 1e-6 (5 standard errors)."""
  rng, sims = np.random.default_rng(0), 40_000
  noise = rng.normal(size=(n, sims))
  base = statistics.cell(dict.fromkeys(range(n), 0.0), n)
  one = statistics.cell(dict(enumerate(noise[:, 0])), n)
  d = statistics.compare(base, one)
  found = stats.ttest_1samp(noise + d.sees / d.paired_std, 0).pvalue < 0.05
  assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_only_equal_seeds_are_pairs():
  a = statistics.cell({0: 1.0, 1: 2.0, 2: 4.0}, 3)
  b = statistics.cell({1: 3.0, 2: 6.0, 9: 0.0}, 3)
  d = statistics.compare(a, b)
  assert d.pairs == 2
  assert d.paired_p == pytest.approx(stats.ttest_rel([3, 6], [2, 4]).pvalue)


def test_the_interval_is_of_the_difference_beside_it():
  a = statistics.cell({0: 70.0, 1: 70.1, 2: 60.0}, 3)
  b = statistics.cell({0: 71.0, 1: 71.2}, 3)
  d = statistics.compare(a, b)
  known = stats.ttest_ind([71, 71.2], [70, 70.1, 60]).confidence_interval()
  assert (d.low, d.high) == pytest.approx((known.low, known.high))
  assert d.low < d.mean < d.high and d.pairs == 2


def test_equal_values_have_no_deviation():
  assert statistics.cell(dict.fromkeys(range(3), 0.1), 3).std == 0.0


def test_a_contrast_of_four_cells():
  """Against ordinary least squares on indicator variables."""
  found = cells(2, 3, 3, 3, 3)
  d = statistics.contrast([list(zip([1, -1, -1, 1], found, strict=True))])
  y = np.concatenate([list(c.values.values()) for c in found])
  groups = np.repeat(np.arange(4), 3)
  x = (groups[:, None] == np.arange(4)).astype(float)
  beta, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
  w = np.array([1, -1, -1, 1])
  error = math.sqrt(rss[0] / 8 * (w @ np.linalg.inv(x.T @ x) @ w))
  assert d.mean == pytest.approx(w @ beta)
  assert d.p == pytest.approx(2 * stats.t.sf(abs(w @ beta) / error, 8))
  sums = w @ y.reshape(4, 3)
  assert d.paired_p == pytest.approx(stats.ttest_1samp(sums, 0).pvalue)


def test_corrections():
  p = [0.01, None, 0.04, 0.03, 0.005]
  # Holm (1979): 0.005 * 4, 0.01 * 3, 0.03 * 2, then no less.
  assert statistics.holm(p) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
  assert statistics.benjamini_hochberg(p) == pytest.approx(
    [0.02, None, 0.04, 0.04, 0.02]
  )
  assert statistics.holm([None]) == statistics.benjamini_hochberg([None])


def test_too_few_runs_give_no_test():
  one, three = cells(3, 1, 3)
  none = statistics.cell({}, 3)
  assert one.std is None and none.mean is None
  d = statistics.compare(one, three)
  assert d.p is None and d.paired_p is None and d.mean is not None
  assert statistics.compare(none, three) == statistics.Difference()
