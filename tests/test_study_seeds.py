"""Seed statistics: against SciPy and NumPy, and what the page shows of them."""

import csv
import io
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import resnet_study_helpers as made_up
import study_helpers
from scipy import stats

from big_crop.study import (
  fingerprint,
  grid,
  layout,
  results,
  runs,
  seed_statistics,
  statistics,
)

STUDIES = study_helpers.ROOT / "configs/studies"
LAWS = ("inception_crop_fixed", "inception_crop_coupled")
ARGUMENTS = f"seeds=8,crop={'+'.join(LAWS)}"
TITLE = "A2_over_8_seeds"
KEYS = ("val/top1", "real/top1", "v2/top1")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  study_helpers.make_quick(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """Seeds 0 to 8 of two laws, all done."""
  folder = tmp_path_factory.mktemp("seeds")
  study = made_up.study(folder, "resnet_strikes_back_seeds", ARGUMENTS)
  with pytest.MonkeyPatch.context() as patch:
    study_helpers.make_quick(patch)
    made_up.finish(study, folder / "w")
    return study, folder / "w", made_up.report(study, ARGUMENTS, folder / "w")


def values_of(study, law, key, seeds=range(1, 9)):
  """What the runs measured, in percent, by seed."""
  by_seed = {
    r.seed: 100 * made_up.values(r.config)[key]
    for r in study.runs
    if r.factors["crop"] == law
  }
  return np.array([by_seed[s] for s in seeds])


def records(files, name):
  return list(csv.DictReader(io.StringIO(files[f"tables/{name}.csv"])))


def normal_cell(seed, n, scale=1.0):
  x = np.random.default_rng(seed).normal(0, scale, n)
  return statistics.cell(dict(enumerate(x)), n), x


# Statistics.


@pytest.mark.parametrize(("n", "m"), [(5, 5), (2, 9), (100, 3)])
def test_welch_is_scipys(n, m):
  (a, x), (b, y) = normal_cell(0, n), normal_cell(1, m, scale=4.0)
  d = statistics.welch(a, b)
  known = stats.ttest_ind(y, x, equal_var=False)
  ends = known.confidence_interval(0.95)
  assert d.p == pytest.approx(known.pvalue, rel=1e-9)
  assert (d.low, d.high) == pytest.approx((ends.low, ends.high), rel=1e-9)
  assert d.p != pytest.approx(statistics.compare(a, b).p, rel=1e-3) or n == m


def test_welch_of_too_few_and_of_equal_values():
  one, _ = normal_cell(0, 1)
  many, _ = normal_cell(1, 4)
  assert statistics.welch(one, many).p is None
  assert statistics.welch(one, many).mean is not None
  flat = statistics.cell({0: 2.0, 1: 2.0}, 2)
  assert statistics.welch(flat, flat).p == 1.0
  assert statistics.welch(flat, statistics.cell({0: 3.0, 1: 3.0}, 2)).p == 0.0


def test_interval_of_a_deviation():
  # chi^2 with 9 degrees of freedom: 2.700 and 19.023 (any table).
  cell, x = normal_cell(2, 10)
  low, high = seed_statistics.std_interval(cell)
  assert low == pytest.approx(np.std(x, ddof=1) * math.sqrt(9 / 19.023), 1e-4)
  assert high == pytest.approx(np.std(x, ddof=1) * math.sqrt(9 / 2.700), 1e-3)
  assert seed_statistics.std_interval(normal_cell(2, 1)[0]) == (None, None)


def test_interval_of_a_deviation_covers():
  covered = 0
  for seed in range(2000):
    low, high = seed_statistics.std_interval(normal_cell(seed, 6)[0])
    covered += low < 1.0 < high
  assert abs(covered / 2000 - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 2000)


def test_correlation_is_that_of_seeds_that_both_have():
  a, x = normal_cell(3, 12)
  noise = normal_cell(4, 12)[1]
  y = x + noise
  more = {**{i: v for i, v in enumerate(y) if i != 5}, 99: 1e6}
  c = seed_statistics.correlation(a, statistics.cell(more, 12))
  r = np.corrcoef(np.delete(x, 5), np.delete(y, 5))[0, 1]
  assert (c.n, c.r) == (11, pytest.approx(r))
  half = stats.norm.ppf(0.975) / math.sqrt(11 - 3)
  ends = np.tanh([np.arctanh(r) - half, np.arctanh(r) + half])
  assert (c.low, c.high) == pytest.approx(ends)
  t = r * math.sqrt(9 / (1 - r**2))
  assert c.p == pytest.approx(2 * stats.t.sf(abs(t), 9))


def test_no_correlation_of_too_few_or_of_a_constant():
  a, _ = normal_cell(3, 3)
  assert seed_statistics.correlation(a, normal_cell(4, 2)[0]) is None
  flat = statistics.cell(dict.fromkeys(range(3), 1.0), 3)
  assert seed_statistics.correlation(a, flat) is None
  few = seed_statistics.correlation(a, normal_cell(4, 3)[0])
  assert few.low is None and abs(few.r) <= 1


def test_normality():
  cell, x = normal_cell(5, 40)
  assert seed_statistics.normality(cell) == stats.shapiro(x).pvalue
  skewed = statistics.cell(dict(enumerate(np.exp(3 * x))), 40)
  assert seed_statistics.normality(skewed) < 1e-6
  flat = statistics.cell(dict.fromkeys(range(5), 1.0), 5)
  assert seed_statistics.normality(flat) is None


# The study of "ResNet strikes back".


@pytest.mark.long
def test_the_table_is_figure_1s(finished):
  study, _, files = finished
  found = records(files, f"seeds-{TITLE}")
  assert [(r["metric"], r["crop"]) for r in found] == [
    (key, law) for key in KEYS for law in LAWS
  ]
  for row in found:
    # Statistics of seeds 1 to 8; seed 0 is shown beside them.
    x = values_of(study, row["crop"], row["metric"])
    known = {
      "mean": x.mean(),
      "std": x.std(ddof=1),
      "max": x.max(),
      "min": x.min(),
      "chosen": values_of(study, row["crop"], row["metric"], [0])[0],
      "n": 8,
    }
    assert {k: float(row[k]) for k in known} == pytest.approx(known)


def test_the_papers_statistics_stand_beside(finished):
  lines = finished[2][f"tables/seeds-{TITLE}.md"].splitlines()
  theirs = [
    [t.strip() for t in line.split("|")[3:-1]]
    for line in lines
    if "paper (Figure 1)" in line
  ]
  assert theirs == [
    ["79.72", "0.10", "", "79.98", "79.50", "79.85", "100"],
    ["85.37", "0.08", "", "85.55", "85.21", "85.45", "100"],
    ["67.99", "0.23", "", "68.69", "67.39", "67.90", "100"],
  ]


def test_two_laws_are_compared(finished):
  study, _, files = finished
  found = records(files, f"seeds-{TITLE}-differences")
  assert [r["metric"] for r in found] == list(KEYS)
  p = []
  for row in found:
    a, b = (values_of(study, law, row["metric"]) for law in LAWS)
    welch = stats.ttest_ind(b, a, equal_var=False)
    ends = welch.confidence_interval(0.95)
    known = {
      "difference": b.mean() - a.mean(),
      "low": ends.low,
      "high": ends.high,
      "p": welch.pvalue,
      "pairs": 8,
      "p_paired": stats.ttest_rel(b, a).pvalue,
      "std_ratio": b.std(ddof=1) / a.std(ddof=1),
      "p_std": stats.levene(a, b, center="median").pvalue,
    }
    assert {k: float(row[k]) for k in known} == pytest.approx(known)
    p.append(welch.pvalue)
  holm = statistics.holm(p)
  assert [float(r["p_holm"]) for r in found] == pytest.approx(holm)


def test_the_correlation_of_val_and_v2(finished):
  study, _, files = finished
  for row in records(files, f"seeds-{TITLE}-correlation"):
    x, y = (values_of(study, row["crop"], k) for k in ("val/top1", "v2/top1"))
    assert float(row["r"]) == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_curves_are_of_the_counted_seeds(finished):
  study, workdir, _ = finished
  found = results.of_study(study, runs.states(study, str(workdir)))
  s = layout.of_config(study.config).seed_statistics[0]
  curves = seed_statistics.curves(s, found)
  assert [c.level for c in curves] == list(LAWS)
  for curve in curves:
    # An evaluation every second of 20 steps, which are ten epochs.
    np.testing.assert_allclose(curve.epochs, np.arange(1, 11))
    last = values_of(study, curve.level, "val/top1")
    np.testing.assert_allclose(np.sort(curve.values[:, -1]), np.sort(last))
    np.testing.assert_allclose(curve.values[:, 4], curve.values[:, 9] / 2)


def test_the_figures(finished):
  figures = {k: v for k, v in finished[2].items() if k.endswith(".svg")}
  kinds = ("histogram", "scatter", "along_epochs")
  assert set(figures) == {f"figures/seeds-{TITLE}-{kind}.svg" for kind in kinds}
  for svg in figures.values():
    ET.fromstring(svg)
    assert "nan" not in svg.lower()
  assert finished[2]["index.html"].count("<img") == 3


def test_a_metric_that_no_run_has_is_left_out(tmp_path, monkeypatch):
  whole = made_up.values
  monkeypatch.setattr(
    made_up,
    "values",
    lambda c: {k: v for k, v in whole(c).items() if k != "v2/top1"},
  )
  study = made_up.study(tmp_path, "resnet_strikes_back_seeds", "seeds=3")
  made_up.finish(study, tmp_path / "w")
  files = made_up.report(study, "seeds=3", tmp_path / "w")
  name = "seeds-A2_over_3_seeds"
  found = [r["metric"] for r in records(files, name)]
  assert found == ["val/top1", "real/top1"]
  assert f"figures/{name}-histogram.svg" in files
  assert f"figures/{name}-scatter.svg" not in files
  assert f"tables/{name}-correlation.md" not in files


def test_seeds_that_are_missing_are_said(tmp_path):
  study = made_up.study(tmp_path, "resnet_strikes_back_seeds", "seeds=5")
  made_up.finish(study, tmp_path / "w", skip=[0, 3])
  files = made_up.report(study, "seeds=5", tmp_path / "w")
  row = records(files, "seeds-A2_over_5_seeds")[0]
  x = values_of(study, LAWS[0], "val/top1", [1, 2, 4, 5])
  assert float(row["mean"]) == pytest.approx(x.mean())
  assert (row["chosen"], row["n"]) == ("", "4")
  assert "4 of 5" in files["tables/seeds-A2_over_5_seeds.md"]
  assert not any("differences" in name for name in files)


@pytest.mark.parametrize("done", [1, 2])
def test_a_study_that_is_hardly_begun_has_a_report(tmp_path, done):
  study = made_up.study(tmp_path, "resnet_strikes_back_seeds", ARGUMENTS)
  made_up.finish(study, tmp_path / "w", skip=range(done, 99))
  files = made_up.report(study, ARGUMENTS, tmp_path / "w")
  assert f"18 runs: {done} done" in files["index.html"]


def test_the_runs_of_the_seeds_study(tmp_path):
  study = made_up.study(
    tmp_path, "resnet_strikes_back_seeds", "recipe=a3,area_min=20"
  )
  assert [r.seed for r in study.runs] == list(range(101))
  config = study.runs[5].config
  assert config.model.recipe == "a3" and "area_min=20" in config.input.pp
  with pytest.raises(ValueError, match="did you mean 'a2'"):
    grid.load(f"{study.path}:recipe=A2")


def test_quick_seeds_has_two_laws_and_a_second_test_set():
  study = grid.load(str(STUDIES / "quick_seeds.py"))
  assert len(study.runs) == 20
  config = study.runs[0].config
  train, test = config.input.data, config.evals.test.data
  assert (train.split, test.split) == ("train[:1000]", "train[1000:]")
  assert config.evals.test.pp_fn == config.evals.val.pp_fn
  assert config.evals.val.log_percent < config.evals.test.log_percent == 1
  digests = {fingerprint.of_config(r.json_config) for r in study.runs}
  assert len(digests) == 20
  shown = layout.of_config(study.config).seed_statistics[0]
  settings = [r.factors for r in study.runs[::10]]
  found = results.Results("", settings, results.metrics_of(study.config), {})
  sample = seed_statistics.samples(shown, found, found.metrics[0])
  assert [s.level for s in sample] == list(LAWS[::-1])


def test_mistakes_are_one_line(tmp_path):
  for extra, message in [
    ("dict(title='t', metrics=['val/top2'])", "did you mean 'val/top1'"),
    ("dict(title='t', metrics=[], histgram='x')", "did you mean 'histogram'"),
    ("dict(metrics=['val/top1'])", "needs 'title'"),
  ]:
    path = study_helpers.write_study(tmp_path, f"c.seed_statistics = [{extra}]")
    with pytest.raises(ValueError, match=message) as e:
      layout.of_config(grid.load(path).config)
    assert "\n" not in str(e.value)


def test_two_seeds_have_no_p_of_their_spread():
  pair = statistics.cell({0: 1.0, 1: 2.0}, 2)
  assert seed_statistics.spread(pair, pair) == (1.0, None)
