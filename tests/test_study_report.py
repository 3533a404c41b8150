"""Reports: the paper's own numbers, what is missing."""

import csv
import html.parser
import io
import json
import math
import pathlib
import xml.etree.ElementTree as ET

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import pytest
import study_helpers
from scipy import stats

from big_crop.display import tables
from big_crop.study import (
  analysis,
  figures,
  grid,
  layout,
  paper,
  recommend,
  reference,
  results,
  runs,
  statistics,
  worker,
)
from big_crop.study.__main__ import main
from pp_ops import laws
from pp_ops.errors import UserError
from pp_ops.laws import exact


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  study_helpers.make_quick(monkeypatch)


# The paper.


def test_the_papers_p_values_follow_from_its_tables():
  """All of Tables 9-14, but the 20 that compare a setting with itself."""
  theirs, worst = paper.load(), 1
  rows = reference.rows("wrong_inception_crop_pvalues")
  assert len(rows) == 160
  for row in rows:
    known = {"optimiser": "adamw", "epochs": int(row["epochs"])}
    metric = theirs.metric(row["metric"])
    a, b = (
      theirs.cell(
        known
        | dict(crop=row[f"crop_{x}"], area_min=float(row[f"area_min_{x}"])),
        metric,
      )
      for x in "ab"
    )
    ratio = statistics.compare(a, b).p / float(row["p"])
    worst = max(worst, ratio, 1 / ratio)
  print(f"worst of {len(rows)} p-values: off by a factor of {worst:.3f}")
  assert worst < 2.3


def test_the_papers_best_settings():
  """Tables 5-8: the best a_min (percent) of each budget, as printed there."""
  best = {
    ("native", "val/top1"): [25, 25, 20, 10, 5],
    ("fixed", "val/top1"): [25, 25, 20, 10, 2.5],
    ("native", "real/top1"): [25, 25, 20, 10, 5],
    ("fixed", "real/top1"): [25, 25, 10, 5, 2.5],
  }
  theirs, layout = paper.load(), paper.layout_of_paper()
  for (family, key), expected in best.items():
    metric = next(m for m in theirs.metrics if m.key == key)
    found = [
      analysis.ranked(layout.families[family], theirs, metric, (None, b))[0]
      for b in paper.BUDGETS
    ]
    assert [order[0][0]["area_min"] for order in found] == expected


def test_the_reference_is_the_papers_grid():
  study = grid.load(
    f"{study_helpers.ROOT}/configs/studies/wrong_inception_crop.py"
    f":tensorflow={paper.PORT}"
  )
  ours = {grid.key_of(r.factors) for r in study.runs}
  assert ours == {grid.key_of(s) for s in paper.load().settings}


def test_crop_scale_percentiles():
  law = lambda crop, **kw: results.crop_scale_percentile(dict(crop=crop, **kw))
  # Section 6.2: Pr(a < 0.07375) = 0.05 for both.
  assert law("inception_crop_fixed", area_min=2.5) == pytest.approx(7.375)
  assert law("beta_crop", area_min=0, alpha=1.149, beta=1) == pytest.approx(
    7.375, abs=0.01
  )
  # Algorithm 1: sqrt(a) is uniform.
  root = math.sqrt(0.05) + 0.05 * (1 - math.sqrt(0.05))
  for crop in paper.TENSORFLOW:
    assert law(crop, area_min=5) == pytest.approx(100 * root**2)
  rng = np.random.default_rng(0)
  native = laws.NativeLaw(area_min=0.05)
  _, _, h, w, _ = laws.sample(native, 200_000, 96, 128, rng)
  whole_pixels = 100 * exact.size_distribution(native, 96, 128).percentile(5)
  drawn = np.percentile(h * w / 122.88, 5)
  assert whole_pixels == pytest.approx(drawn, rel=0.01)


# Recommendations.


def test_the_crop_scale_is_of_the_studys_arguments():
  found = results.Results("", [], [], {}, arguments={"area_min": 25})
  weak = found.crop_scale_percentile({"crop": "inception_crop_fixed"})
  assert weak == pytest.approx(25 + 0.05 * 75)
  with pytest.raises(ValueError, match="needs a crop"):
    found.crop_scale_percentile({"epochs": 1})


def test_a_key_of_the_config_is_a_column():
  head, row = tables._cell, {"_config.lr": "1e-3"}
  assert head(row, "_config.lr") == "1e-3"


def test_recommendations_go_down_with_the_budget():
  for family in recommend.FAMILIES:
    for metric in ("val/top1", "real/top1"):
      found = [
        recommend.recommend(e, family, metric) for e in (30, 60, 90, 150, 300)
      ]
      best = [r.best for r in found]
      assert best == sorted(best, reverse=True) and best[0] > 2 * best[-1] - 1
      assert all(
        r.lowest * 0.999 <= r.low <= r.best * 1.001 <= r.high * 1.002
        and r.high <= r.highest * 1.001
        for r in found
      )


def test_recommendations_hold_the_papers_best():
  """They are in the interval, or differ by no more than two means' noise."""
  theirs, layout = paper.load(), paper.layout_of_paper()
  for family in recommend.FAMILIES:
    f = layout.families[family]
    for metric in theirs.metrics:
      for epochs in paper.BUDGETS:
        r = recommend.recommend(epochs, family, metric.key)
        order, _ = analysis.ranked(f, theirs, metric, (None, epochs))
        near = min(order, key=lambda s: abs(math.log(s[0][f.x] / r.best)))
        lead = statistics.compare(near[1], order[0][1])
        inside = r.low * 0.99 <= order[0][0][f.x] <= r.high * 1.01
        assert inside or lead.p > 0.05


def test_recommendations_do_not_extrapolate(capsys):
  assert main(["recommend", "--epochs", "120"]) == 0
  *table, _, sentence = capsys.readouterr().out.strip().splitlines()
  found = [recommend.recommend(120, f, "val/top1") for f in recommend.FAMILIES]
  best, second = sorted(found, key=lambda r: r.accuracy[0])[:0:-1]
  assert sentence.startswith(f"Recommended for 120 epochs: {best.op()}, ")
  lead = best.accuracy - second.accuracy
  low, high = np.percentile(lead[1:], (5, 95))
  interval = f"{second.op()} (90% interval {low:+.2f} to {high:+.2f})"
  assert interval in sentence and ("apart" in sentence) == (low <= 0)
  assert all(any(r.op() in line for line in table) for r in found)
  for epochs in ("29", "301"):
    with pytest.raises(ValueError, match="30 to 300"):
      main(["recommend", "--epochs", epochs])


# Pages.


def report(study, workdir, *more):
  arguments = ["--config", str(study.path), "--workdir", str(workdir)]
  assert main(["report", *arguments, *more]) == 0
  folder = pathlib.Path(workdir) / "report"
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in folder.rglob("*")
    if p.is_file()
  }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("study")
  study = grid.load(study_helpers.write_study(folder))
  with pytest.MonkeyPatch.context() as patch:
    study_helpers.make_quick(patch)
    worker.work(study, str(folder / "w"), study_helpers.train)
  return study, folder / "w"


class Checker(html.parser.HTMLParser):
  """Collects what a page would fetch, and whether its tags are balanced."""

  VOID = ("meta", "link", "img", "br")

  def __init__(self):
    super().__init__()
    self.fetched, self.open, self.tags = [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.fetched += [
      v for k, v in attrs if k in ("src", "href") and not v.startswith("#")
    ]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


@pytest.mark.long
def test_a_report_is_complete_and_the_same_again(trained):
  study, workdir = trained
  first = report(study, workdir)
  assert {k.rpartition(".")[2] for k in first} == {
    "html",
    "md",
    "csv",
    "tex",
    "svg",
  }
  assert report(study, workdir) == first
  page = Checker()
  page.feed(first["index.html"].decode())
  assert page.open == [] and "script" not in page.tags
  assert all(v.startswith("data:") for v in page.fetched)
  figures = [k for k in first if k.endswith(".svg")]
  assert len(figures) == page.tags.count("img") >= 8
  for name in figures:
    ET.fromstring(first[name])
  means = first["tables/means-fixed-val_top1.csv"].decode()
  row = next(
    r
    for r in csv.DictReader(io.StringIO(means))
    if (r["area_min"], r["epochs"]) == ("25", "20")
  )
  assert float(row["mean"]) == pytest.approx(75.1)
  assert float(row["std"]) == pytest.approx(0.1) and row["n"] == "3"
  text = first["tables/means-fixed-val_top1.md"].decode()
  assert "**75.10±0.10**" in text


@pytest.mark.long
def test_claim_three_is_a_rank_correlation(trained):
  study, workdir = trained
  files = report(study, workdir)
  name = "tables/claim3-loss-training_loss-val_top1.csv"
  found = list(csv.DictReader(io.StringIO(files[name].decode())))
  theirs = results.of_study(study, runs.states(study, str(workdir)))
  x, y = (theirs.metric(k) for k in ("training_loss", "val/top1"))
  taken = [
    (r.factors, theirs.cell(r.factors, x).values[r.seed], r.seed)
    for r in study.runs
  ]
  loss = [v for _, v, _ in taken]
  scale = lambda s: results.crop_scale_percentile(s)
  expected = [
    ("all", loss, [s["epochs"] for s, *_ in taken]),
    ("all", loss, [theirs.cell(s, y).values[k] for s, _, k in taken]),
  ]
  for budget in (10, 20):
    mine = [(s, v) for s, v, _ in taken if s["epochs"] == budget]
    expected.append(
      (f"{budget}ep", [v for _, v in mine], [scale(s) for s, _ in mine])
    )
  assert len(found) == len(expected)
  for row, (which, *pair) in zip(found, expected, strict=True):
    known = stats.spearmanr(*pair)
    assert row["runs"] == which and int(row["n"]) == len(pair[0])
    assert float(row["rho"]) == pytest.approx(known.statistic)
    assert float(row["p"]) == pytest.approx(known.pvalue)
  # 24 runs whose loss falls with the budget, so that rho is not mere noise.
  assert float(found[0]["rho"]) < -0.5 and float(found[0]["p"]) < 0.01
  # Beside the figure, in one row of the page.
  page = files["index.html"].decode()
  row = page.partition("rank correlation with")[2]
  assert "<img" in row.partition("<div class=side>")[0]


def test_no_rank_correlation_of_too_few_or_of_a_constant():
  assert statistics.spearman([1, 2], [1, 2]) is None
  assert statistics.spearman([1, 2, 3], [4, 4, 4]) is None
  assert statistics.spearman([1, 2, 3], [4, 5, 9]) == (1.0, 0.0)


def test_figures_7_and_18_on_the_right_reuse_the_fixed_crop():
  """Their alpha = 1 is Table 6's and Table 8's area_min of 5%."""
  theirs, layout = paper.load(), paper.layout_of_paper()
  family = layout.families["alpha"]
  assert family.levels(theirs, "alpha") == [1, 2, 3, 5]
  for metric, expected in zip(
    theirs.metrics, ("67.35±0.33", "75.11±0.32"), strict=True
  ):
    table = analysis.means(family, theirs, metric)
    assert [e.text for e in table.lines()[1]][:2] == ["30ep", expected]
    assert {r["alpha"] for r in table.records} == {1, 2, 3, 5}
    # Strong crops are best for a high budget, weak ones for a low one.
    for budget, best in ((30, 5), (300, 1)):
      order, count = analysis.ranked(family, theirs, metric, (None, budget))
      assert order[0][0]["alpha"] == best and len(order) == count == 4


def test_figure_14():
  """Appendix D: hw / 256 instead of the mean; blended as Pillow does."""
  before, large, small, right = figures.contrasts(1.9).values()
  # In tenths, because 1.9 * 96 - 0.9 * 196 is a little below 6 in floats.
  tenths = 19 * before.astype(int)
  blend = lambda mean: np.clip((tenths - 9 * mean) // 10, 0, 255)
  np.testing.assert_array_equal(large, blend(224 * 224 // 256))
  np.testing.assert_array_equal(small, blend(64 * 64 // 256))
  image = PIL.Image.fromarray(np.kron(before, np.ones((9, 9, 1), np.uint8)))
  known = np.asarray(PIL.ImageEnhance.Contrast(image).enhance(1.9))[::9, ::9]
  np.testing.assert_array_equal(right, known)


def test_the_tail_of_a_metric(trained):
  study, workdir = trained
  found = results.of_study(study, runs.states(study, str(workdir)))
  metric = next(m for m in found.metrics if m.tail)
  cell = found.cell(study.runs[0].factors, metric)
  # Steps 9 and 10 of 10: 3 - 0.95 - top1.
  assert cell.values[0] == pytest.approx(3 - 0.95 - 0.589)


@pytest.mark.long
def test_missing_and_failed_runs_are_no_numbers(tmp_path):
  study = grid.load(study_helpers.write_study(tmp_path))
  workdir = str(tmp_path / "w")
  bad = {r.name for r in study.runs[12:15]} | {study.runs[20].name}

  def train(config, folder):
    if pathlib.Path(folder).name in bad:
      # Like a run that failed after it had logged something.
      (pathlib.Path(folder) / "metrics.jsonl").write_text(
        '{"step": 1, "training_loss": 0.123, "val/top1": 0.123}\n'
      )
      raise UserError("the loss is <nan>")
    study_helpers.train(config, folder)

  for index in range(23):  # 23 is not even begun
    worker.work(study, workdir, train, index=index)
  path = tmp_path / "w/runs" / study.runs[0].name / "summary.json"
  summary = json.loads(path.read_text())
  summary["metrics"]["val/top1"] = math.nan  # a run that diverged
  path.write_text(json.dumps(summary))
  files = report(study, workdir)
  means = files["tables/means-fixed-val_top1.md"].decode()
  assert means.count("missing") == 1 and "(n=2)" in means
  assert not any(b"12.3" in v for k, v in files.items() if k[-3:] != "svg")
  page = files["index.html"].decode()
  assert "24 runs: 19 done, 4 failed, 1 missing." in page
  assert (
    "<td>failed: the loss is &lt;nan&gt;</td><td>4</td><td>12-14, 20<" in page
  )
  assert "<td>done, without a finite val/top1</td><td>1</td><td>0<" in page
  assert "<td>missing</td><td>1</td><td>23<" in page
  assert "<span class=missing>missing: no finished run</span>" in page
  native = files["tables/means-native-val_top1.csv"].decode()
  first = next(csv.DictReader(io.StringIO(native)))
  assert first["n"] == "2" and float(first["mean"]) == pytest.approx(59.05)
  # A missing setting may be better.
  best = files["tables/best-val_top1.md"].decode()
  assert "area_min=25% (1/2): " in best
  # The line over all settings counts those that have a test.
  whole = files["tables/tests-native_against_fixed-val_top1.md"].decode()
  assert whole.count("3 of 4 settings") == 1
  tests = files["tables/tests-native_against_fixed-val_top1-grid.md"].decode()
  assert tests.count("missing") == 1
  for name in files:
    if name.endswith(".svg"):
      assert b"nan" not in files[name].lower()


def test_a_study_with_nothing_done_has_no_report(tmp_path):
  study = grid.load(study_helpers.write_study(tmp_path))
  message = "no finished run of .*study.py .*: 0 done, 0 failed, 24 missing"
  with pytest.raises(UserError, match=message) as e:
    report(study, tmp_path / "w")
  assert "\n" not in str(e.value) and not (tmp_path / "w/report").exists()


@pytest.mark.slow
def test_the_paper_beside_a_study(trained):
  study, workdir = trained
  files = report(study, workdir, "--reference")
  assert "tables/the_paper-means-fixed-val_top1.csv" in files
  assert "tables/this_study-means-fixed-val_top1.csv" in files
  assert "figures/the_paper-contrast.svg" in files
  page = files["index.html"].decode()
  # One row of the page holds both.
  row = page.partition("[this study] fixed: top-1")[2]
  row = row.partition("<div class=side>")[0]
  assert "[the paper] PyTorch Inception crop: top-1" in row
  assert "79.80±0.06" in row


def test_equal_levels_are_one_setting(tmp_path):
  more = "dict(crop='inception_crop_fixed', area_min=5.0, epochs=[10.0, 30])"
  study = grid.load(study_helpers.write_study(tmp_path, f"c.sets += [{more}]"))
  assert [r.factors["epochs"] for r in study.runs[24:]] == [30] * 3


def test_levels_of_any_kind():
  """Words, booleans and numbers; no budget; two settings at one place."""
  levels = (0.1 + 0.2, 7, True, None, "inception_crop_fixed")
  metric = results.Metric("m", "m")
  settings = [{"x": x, "other": 1} for x in levels]
  cells = {
    (grid.key_of(s), "m"): statistics.cell({0: float(i)}, 1)
    for i, s in enumerate(settings)
  }
  found = results.Results("", settings, [metric], cells)
  family = layout.Family("f", "f", {}, "x")
  table = analysis.means(family, found, metric)
  names = ["x=0.3", "x=7", "x=None", "x=True", "x=inception_crop_fixed"]
  assert [e.text for e in table.lines()[0]] == names
  ax = figures.family(family, found, metric).axes[0]
  ticks = [t.get_text() for t in ax.get_xticklabels()]
  assert ticks == ["0.3", "7", "None", "True", "inception_crop_fixed"]
  found.settings.append({"x": 7, "other": 2})
  with pytest.raises(UserError, match="same place"):
    analysis.means(family, found, metric)
  with pytest.raises(UserError, match="levels are numbers"):
    c = layout.Scatter("t", "m", "m", color="x")
    figures.scatter(c, found)


def test_columns_without_anything_are_left_out():
  records = [{"a": 1.0, "p": None, "_b": "x"}, {"a": None, "p": None}]
  columns = {"a": "+!a:1", "p": "p", "b": "_b", "c": "low…high"}
  table = tables.of_records("n", "t", records, columns)
  assert [[e.text for e in line] for line in table.lines()] == [
    ["a", "b"],
    ["+1.0", "x"],
    ["missing", ""],
  ]
  assert table.csv() == "a,p\n1.0,\n,\n"


def test_latex_and_markdown_escape():
  table = tables.Table(
    "n", "100% a_b", ["x", "a|b"], [[tables.Entry("±1", bold=True)] * 2], []
  )
  assert r"\textbf{$\pm$1} & \textbf{$\pm$1} \\" in table.latex()
  assert r"100\% a\_b" in table.latex()
  assert "a\\|b" in table.markdown()


@pytest.mark.parametrize(
  ("extra", "message"),
  [
    ("c.families = [dict(nam='a')]", "did you mean 'name'"),
    ("c.families = [dict(name='a')]", "needs 'label'"),
    ("c.comparisons = [dict(title='t', a='fixd', b='native')]", "'fixed'"),
    ("c.comparisons = [dict(title='t', a='fixed')]", "either b or base"),
    ("c.strength = ['x']", "family of `strength`"),
    ("c.metrics += [dict(c.metrics[0])]", "is there 2 times"),
    ("c.scatter[0]['x'] = 'a'", "metric of scatter 'loss'"),
    (
      "c.scatter = []; c.metrics = [dict(key='a', label='', better='up')]",
      "better",
    ),
  ],
)
def test_mistakes_in_what_to_show(tmp_path, extra, message):
  study = grid.load(study_helpers.write_study(tmp_path, extra))
  with pytest.raises(ValueError, match=message) as e:
    report(study, tmp_path / "w")
  assert "\n" not in str(e.value)
