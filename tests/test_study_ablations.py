"""Ablations: the paper's tables, the tests, what the page shows."""

import collections
import csv
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import resnet_study_helpers as made_up
import study_helpers
from scipy import stats

from big_crop import config as configs
from big_crop.study import (
  fingerprint,
  grid,
  layout,
  reference,
  resnet_strikes_back,
  results,
  statistics,
)

RECIPES = study_helpers.ROOT / "configs/resnet_strikes_back"
STUDY = "resnet_strikes_back_ablations"
TABLE_6 = "ablation-Table_6_A2_main_ingredients-val_top1"
TABLE_9 = "seeds-Table_9_A2_crop_ratio_at_test_time"
FIGURE_4 = "seeds-Figure_4_resolution_at_test_time"
SIZES = (128, 160, 192, 224, 256, 288, 320, 352, 384)
A2 = "recipes=a2,seeds=3"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  study_helpers.make_quick(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A2's ablations with seeds 0 to 2, all done."""
  folder = tmp_path_factory.mktemp("ablations")
  study = made_up.study(folder, STUDY, A2)
  with pytest.MonkeyPatch.context() as patch:
    study_helpers.make_quick(patch)
    made_up.finish(study, folder / "w")
    return study, made_up.report(study, A2, folder / "w")


def values_of(study, key="val/top1", **changes):
  """What A2's runs with these changes measured, in percent, by seed."""
  factors = {"recipe": "a2", **changes}
  mine = [r for r in study.runs if r.factors == factors]
  return np.array([100 * made_up.values(r.config)[key] for r in mine])


def records(files, name):
  return list(csv.DictReader(io.StringIO(files[f"tables/{name}.csv"])))


def cells(line):
  return [text.strip().strip("*") for text in line.split("|")[1:-1]]


# The paper's tables.


def numbers(ablation):
  """The paper's top-1 of each row, and what the row changes."""
  metric = results.Metric(**resnet_strikes_back.METRICS[0])
  theirs = reference.results(["resnet_strikes_back_ablations"], [metric])
  return [
    (changes, theirs.cell({**ablation["where"], **changes}, metric).mean)
    for changes in ablation["rows"]
  ]


def by_changes(ablation):
  return {tuple(sorted(c.items())): number for c, number in numbers(ablation)}


def test_the_papers_tables():
  six, seven, eight = map(by_changes, resnet_strikes_back.ablations("a2"))
  assert (len(six), len(seven), len(eight)) == (22, 4, 5)
  default = ()
  assert six[default] == seven[default] == eight[default] == 79.85
  # Section 5: the default is the best row of Table 6; CE's best has wd = 0.05.
  assert max(six.values()) == 79.85
  ce = {k: v for k, v in six.items() if ("loss", "ce") in k}
  assert max(ce, key=ce.get) == (("loss", "ce"), ("wd", 0.05))
  assert len(ce) == 11 and ce[("loss", "ce"),] == 79.18
  assert six[("lr", 0.003), ("repeated_aug", 1)] == 78.74
  assert seven == {
    default: 79.85,
    (("drop_path", 0),): 79.79,
    (("drop_path", 0.1),): 79.62,
    (("smoothing", 0.1),): 79.58,
  }
  rand = "rand-m6-mstd0.5-inc1"
  assert eight == {
    default: 79.85,
    (("mixup", 0.2), ("repeated_aug", 1)): 79.62,
    (("mixup", 0.2), ("rand_augment", rand)): 79.61,
    (("mixup", 0.05),): 79.57,
    (("bce_target", "mixed"),): 79.57,
  }


@pytest.mark.parametrize(
  ("recipe", "expected"),
  [
    (
      "a1",
      [("drop_path", 0, 79.94), 80.38, ("drop_path", 0.1, 80.12)]
      + [("smoothing", 0, 80.22)],
    ),
    (
      "a3",
      [78.06, ("drop_path", 0.05, 77.57), ("drop_path", 0.1, 77.32)]
      + [("smoothing", 0.1, 77.99)],
    ),
  ],
)
def test_table_7_of_the_others(recipe, expected):
  (seven,) = resnet_strikes_back.ablations(recipe)
  found = [
    (*next(iter(changes.items())), number) if changes else number
    for changes, number in numbers(seven)
  ]
  assert found == expected


def test_the_runs_of_all_recipes(tmp_path):
  study = made_up.study(tmp_path, STUDY)
  count = collections.Counter(r.factors["recipe"] for r in study.runs)
  # A2: Table 6 has 22, Table 7 three more, Table 8 four more; three seeds.
  assert count == {"a1": 4 * 3, "a2": 29 * 3, "a3": 4 * 3}
  digests = {fingerprint.of_config(r.json_config) for r in study.runs}
  assert len(digests) == len(study.runs)
  defaults = [r for r in study.runs if len(r.factors) == 1]
  assert [(r.name, r.config.model.recipe) for r in defaults[::3]] == [
    (f"recipe={name},seed=0", name) for name in ("a2", "a1", "a3")
  ]


def test_table_9_and_figure_4_are_evaluators_of_every_run(tmp_path):
  study = made_up.study(tmp_path, STUDY, "recipes=a3")
  for run in study.runs:
    crops = ("val_crop875", "val_crop900", "val_crop950", "val_crop1000")
    sizes = [f"val_res{n}" if n != 224 else "val" for n in SIZES]
    assert set(run.config.evals) == {*sizes, *crops}
  shown = layout.of_config(study.config).seed_statistics
  assert [s.metrics for s in shown] == [
    [f"{name}/top1" for name in names] for names in (crops, sizes)
  ]
  assert shown[1].along[1] == [*SIZES]
  views = configs.load(f"{RECIPES}/a3.py:test_sizes").evals
  assert "central_crop(128, " in views.val_res128.pp_fn
  assert "resize_small(404, " in views.val_res384.pp_fn  # 384 / 0.95


@pytest.mark.parametrize("recipe", ["a1", "a2", "a3"])
def test_the_defaults_are_the_recipes(recipe):
  study = grid.load(
    str(study_helpers.ROOT / f"configs/studies/{STUDY}.py:recipes={recipe}")
  )
  plain = next(r for r in study.runs if r.factors == {"recipe": recipe})
  given = {**resnet_strikes_back.RECIPES[recipe], "test_crops": True}
  given["test_sizes"] = True
  spec = ",".join(f"{k}={v}" for k, v in given.items())
  explicit = configs.load(f"{RECIPES / recipe}.py:{spec},test_crop=0.95")
  assert configs.as_json(explicit) == plain.json_config
  names = {m["key"].partition("/")[0] for m in study.config.metrics}
  assert names <= set(plain.config.evals)
  digests = {fingerprint.of_config(r.json_config) for r in study.runs}
  assert len(digests) == len(study.runs)


# The report.


@pytest.mark.long
def test_rows_are_tested_against_the_default(finished):
  study, files = finished
  found = records(files, TABLE_6)
  base = values_of(study)
  assert len(found) == 22
  p = []
  for row in found:
    levels = (row["loss"], float(row["lr"]), float(row["wd"]))
    levels += (int(row["repeated_aug"]),)
    default = ("bce", 0.005, 0.02, 3)
    changes = {
      k: v
      for k, v, d in zip(
        ("loss", "lr", "wd", "repeated_aug"), levels, default, strict=True
      )
      if v != d
    }
    x = values_of(study, **changes)
    known = {"mean": x.mean(), "std": x.std(ddof=1), "n": 3}
    if changes:
      welch = stats.ttest_ind(x, base, equal_var=False)
      ends = welch.confidence_interval(0.95)
      p.append(welch.pvalue)
      known |= {
        "difference": x.mean() - base.mean(),
        "low": ends.low,
        "high": ends.high,
        "p": welch.pvalue,
        "p_paired": stats.ttest_rel(x, base).pvalue,
      }
    else:
      assert row["difference"] == row["p"] == row["p_holm"] == ""
    assert {k: float(row[k]) for k in known} == pytest.approx(known)
  holm = [float(r["p_holm"]) for r in found if r["p_holm"]]
  assert holm == pytest.approx(statistics.holm(p))


@pytest.mark.long
def test_the_papers_numbers_stand_beside(finished):
  lines = finished[1][f"tables/{TABLE_6}.md"].splitlines()[2:]
  assert cells(lines[0])[-2:] == ["the paper", "difference there"]
  rows = [cells(line) for line in lines[2:24]]
  assert [r[-2:] for r in rows[:2]] == [["78.24", "-1.61"], ["78.47", "-1.38"]]
  default = next(i for i, r in enumerate(rows) if "default" in r)
  assert rows[default][:4] == ["bce", "0.005", "0.02", "3"]
  assert rows[default][-2:] == ["79.85", ""]
  # Only the default is bold in Markdown and coloured on the page, but for its
  # empty cells.
  assert "****" not in "".join(lines)
  assert [line.startswith("| **") for line in lines[2:24]] == [
    i == default for i in range(22)
  ]
  assert finished[1]["index.html"].count('<td class="default best">bce<') == 3
  # The paper has no numbers for ReaL.
  real = finished[1][f"tables/{TABLE_6.replace('val', 'real')}.md"]
  assert "paper" not in real


@pytest.mark.long
def test_an_ablation_shows_its_own_metrics(finished):
  names = [k for k in finished[1] if "Table_8" in k and k.endswith("csv")]
  assert len(names) == 3
  assert not any("crop875" in name for name in names)


@pytest.mark.long
def test_table_9_tests_pairs_of_the_same_runs(finished):
  study, files = finished
  found = records(files, TABLE_9)
  assert [r["metric"] for r in found] == [
    "val_crop875/top1",
    "val_crop900/top1",
    "val_crop950/top1",
    "val_crop1000/top1",
  ]
  for row in found:
    x = values_of(study, row["metric"])
    known = {"mean": x.mean(), "std": x.std(ddof=1), "max": x.max(), "n": 3}
    known |= {"min": x.min(), "chosen": x[0]}
    assert {k: float(row[k]) for k in known} == pytest.approx(known)
  base = values_of(study, "val_crop950/top1")
  found = records(files, f"{TABLE_9}-differences")
  assert len(found) == 3
  for row in found:
    x = values_of(study, row["metric"])
    paired = stats.ttest_rel(x, base)
    ends = paired.confidence_interval(0.95)
    known = {"difference": x.mean() - base.mean(), "p_paired": paired.pvalue}
    known |= {"low": ends.low, "high": ends.high}
    assert {k: float(row[k]) for k in known} == pytest.approx(known)
    assert row["p"] == ""
  lines = files[f"tables/{TABLE_9}.md"].splitlines()
  theirs = [cells(line) for line in lines if "paper (Table 9)" in line]
  assert theirs[0][1:] == ["79.67", "0.08", "", "79.91", "79.59", "79.91", "10"]


@pytest.mark.long
def test_the_figures(finished):
  figures = {k: v for k, v in finished[1].items() if k.endswith(".svg")}
  assert len(figures) == 3 * 3 + 1  # tables, metrics; Figure 4
  assert finished[1]["index.html"].count("<img") == 10
  found = records(finished[1], FIGURE_4)
  expected = [values_of(finished[0], r["metric"]).mean() for r in found]
  assert [float(r["mean"]) for r in found] == pytest.approx(expected)
  assert len(found) == len(SIZES)
  for svg in figures.values():
    ET.fromstring(svg)
    assert "nan" not in svg.lower()


@pytest.mark.long
def test_one_seed_has_no_tests_and_missing_runs_no_numbers(tmp_path):
  arguments = "recipes=a2,seeds=1"
  study = made_up.study(tmp_path, STUDY, arguments)
  made_up.finish(study, tmp_path / "w", skip=[0])
  files = made_up.report(study, arguments, tmp_path / "w")
  first, second, *_ = records(files, TABLE_6)
  assert first["mean"] == first["difference"] == ""
  assert second["p"] == second["std"] == ""
  gain = values_of(study, lr=0.002, wd=0.03) - values_of(study)
  assert float(second["difference"]) == pytest.approx(gain[0])
  head, _, *lines = files[f"tables/{TABLE_6}.md"].splitlines()[2:]
  # Empty columns, here intervals and tests, are left out.
  theirs = ["the paper", "difference there"]
  assert cells(head)[4:] == ["mean±std", "difference", *theirs]
  assert cells(lines[0])[4:] == ["missing", "missing", "78.24", "-1.61"]


@pytest.mark.slow
def test_without_the_default_there_are_no_differences(tmp_path):
  study = made_up.study(tmp_path, STUDY, A2)
  skip = [r.index for r in study.runs if r.factors == {"recipe": "a2"}]
  made_up.finish(study, tmp_path / "w", skip=skip)
  files = made_up.report(study, A2, tmp_path / "w")
  assert {r["difference"] for r in records(files, TABLE_6)} == {""}
  assert not any(name.endswith(".svg") for name in files)


# Configs.


@pytest.mark.parametrize(
  ("extra", "message"),
  [
    ("rows=[{}, dict(lrr=1)]", "did you mean 'lr'"),
    ("rows=[dict(lr=1)]", "one row {}"),
    ("rows=[{}, {}]", "one row {}"),
    ("rows=[{}], metrics=['val/top2']", "did you mean 'val/top1'"),
    ("row=[{}]", "did you mean 'rows'"),
  ],
)
def test_mistakes_are_one_line(tmp_path, extra, message):
  path = study_helpers.write_study(
    tmp_path, f"c.ablations = [dict(title='t', default=dict(lr=2), {extra})]"
  )
  with pytest.raises(ValueError, match=message) as e:
    layout.of_config(grid.load(path).config)
  assert "\n" not in str(e.value)


def test_a_base_is_named_by_a_factor(tmp_path):
  path = study_helpers.write_study(
    tmp_path,
    "c.base = '{kind}.py'; c.sets = [dict(kind='base', epochs=3), "
    "dict(epochs=3)]; c.seeds = [4]",
  )
  with pytest.raises(ValueError, match="no factor 'kind'") as e:
    grid.load(path)
  assert "\n" not in str(e.value)
  path = study_helpers.write_study(
    tmp_path,
    "c.base = '{kind}.py'; c.sets = [dict(kind='base', epochs=3)]",
  )
  run = grid.load(path).runs[0]
  assert run.name == "kind=base,epochs=3,seed=0"
  assert run.spec == f"{tmp_path / 'base.py'}:epochs=3,seed=0"
  assert run.config.total_epochs == 3
