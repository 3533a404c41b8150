"""Study configs: which runs there are."""

import collections
import json

import pytest
import study_helpers

from big_crop.study import (
  fingerprint,
  grid,
  layout,
  paper,
  results,
  seed_statistics,
)

PAPER = str(study_helpers.ROOT / "configs/studies/wrong_inception_crop.py")
SCION_LR = str(study_helpers.ROOT / "configs/studies/scion_learning_rate.py")
QUICK = str(study_helpers.ROOT / "configs/studies/quick.py")


def test_the_papers_522_runs():
  runs = grid.load(PAPER).runs
  optimisers = collections.Counter(r.factors["optimiser"] for r in runs)
  assert optimisers == {"adamw": 450, "scion": 72}
  count = lambda **where: sum(
    all(r.factors.get(k) == v for k, v in where.items()) for r in runs
  )
  # Section 5: 2 laws, 6 a_min, 5 budgets, 3 seeds; the three Beta sets.
  assert count(crop="inception_crop", optimiser="adamw") == 6 * 5 * 3
  assert count(crop="inception_crop_fixed", optimiser="adamw") == 6 * 5 * 3
  assert count(crop="beta_crop", alpha=1) == 3 * 2 * 5 * 3
  skewed = [r for r in runs if r.factors.get("alpha") in (2, 3, 5)]
  assert len(skewed) == 2 * 3 * 5 * 3
  assert count(crop="beta_crop", area_min=0) == 6 * 5 * 3
  # Appendix I: 4 weight decays; the optimised a_min of Table 4.
  assert count(optimiser="scion", area_min=5) == 4 * 5 * 3
  assert [r.index for r in runs] == list(range(522))


@pytest.mark.slow
def test_every_run_of_the_paper_has_a_config_of_its_own():
  study = grid.load(PAPER)
  digests = {fingerprint.of_config(r.json_config) for r in study.runs}
  assert len(digests) == 522
  smoke = grid.load(f"{PAPER}:smoke").runs[0]
  assert smoke.name == study.runs[0].name
  assert smoke.config.input.data.name == "critters"


@pytest.mark.parametrize("crop", paper.TENSORFLOW)
def test_one_argument_chooses_tensorflows_crop(crop):
  study = grid.load(f"{PAPER}:tensorflow={crop}")
  assert len(study.runs) == 522
  mine = [r for r in study.runs if r.factors["crop"] == crop]
  assert len(mine) == 90
  assert f"decode_jpeg_and_{crop}(224, " in mine[0].config.input.pp
  families = layout.of_config(study.config).families
  assert families["native"].where["crop"] == crop
  assert families["native"].label == paper.TENSORFLOW[crop]
  # The paper's numbers are those of its port of TensorFlow's crop.
  native = paper.layout_of_paper().families["native"]
  assert native.where["crop"] == "inception_crop_port"
  assert len(paper.load().find(native.where)) == 30


def test_figure_12_compares_tensorflows_crop_with_the_fixed_one():
  study = grid.load(PAPER)
  settings = [r.factors for r in study.runs if r.seed == 0]
  metrics = results.metrics_of(study.config)
  found = results.Results("", settings, metrics, {})
  (s,) = layout.of_config(study.config).seed_statistics
  mine = seed_statistics.samples(s, found, found.metric(s.curves))
  assert [x.level for x in mine] == ["inception_crop", "inception_crop_fixed"]
  assert {(x.setting["area_min"], x.setting["epochs"]) for x in mine} == {
    (5, 90)
  }


def test_tensorflows_crop_is_one_of_three():
  with pytest.raises(ValueError, match=r"tensorflow.*did you mean"):
    grid.load(f"{PAPER}:tensorflow=inception_crop_fixd")


def test_scions_learning_rate_is_doubled_and_halved():
  study = grid.load(SCION_LR)
  configs = {r.factors["lr"]: r.config for r in study.runs}
  assert len(study.runs) == 9 and list(configs) == [0.005, 0.01, 0.02]
  assert {c.lr for c in configs.values()} == set(configs)
  # The middle one is a run that the paper has, too.
  papers = next(
    r
    for r in grid.load(PAPER).runs
    if (r.factors["optimiser"], r.factors.get("wd")) == ("scion", 0.08)
    and (r.factors["epochs"], r.factors["area_min"]) == (90, 5)
  )
  assert study.runs[3].json_config == papers.json_config
  assert all(c.wd / c.lr == pytest.approx(0.08) for c in configs.values())


@pytest.mark.parametrize("path", [PAPER, QUICK, SCION_LR])
def test_every_study_says_what_to_show(path):
  study = grid.load(path)
  shown = layout.of_config(study.config)
  settings = [r.factors for r in study.runs]
  found = results.Results("", settings, results.metrics_of(study.config), {})
  for family in shown.families.values():
    assert len(family.levels(found, family.x)) > 1
  for comparison in shown.comparisons:
    assert layout.pairs(comparison, shown, found)


def test_quick_has_36_runs_of_matched_strength():
  study = grid.load(QUICK)
  assert len(study.runs) == 36
  scale = {}
  for run in study.runs:
    assert run.config.seed == run.seed
    key = run.factors["crop"], run.factors.get("alpha", run.factors["area_min"])
    scale[key] = results.crop_scale_percentile(run.factors)
  for area, alpha in zip((5, 60), (1.287, 6.267), strict=True):
    # Alpha has three decimals.
    assert scale["beta_crop", alpha] == pytest.approx(
      scale["inception_crop_fixed", area], abs=0.01
    )


def test_factors_become_arguments_and_overrides(tmp_path):
  path = study_helpers.write_study(
    tmp_path,
    'c.sets = [{"area_min": 8, "config.lr": [0.1, 0.2]}]; c.seeds = [7]; '
    'c.overrides = ["--config.wd=0.5"]',
  )
  runs = grid.load(path).runs
  assert [r.name for r in runs] == [
    "area_min=8,config.lr=0.1,seed=7",
    "area_min=8,config.lr=0.2,seed=7",
  ]
  config = runs[1].config
  assert (config.lr, config.wd, config.seed) == (0.2, 0.5, 7)
  assert "area_min=8" in config.input.pp


def test_sets_are_united(tmp_path):
  path = study_helpers.write_study(
    tmp_path,
    "c.sets = [dict(area_min=[5, 25], epochs=10), dict(area_min=5, "
    "epochs=[10, 20])]; c.seeds = [0]",
  )
  names = [r.name for r in grid.load(path).runs]
  assert names == [
    "area_min=5,epochs=10,seed=0",
    "area_min=25,epochs=10,seed=0",
    "area_min=5,epochs=20,seed=0",
  ]


@pytest.mark.parametrize(
  ("extra", "message"),
  [
    ("c.base = None", "set base"),
    ("c.base = 'no.py'", "no file"),
    ("c.sets = []", "no runs"),
    ("c.sets = [dict(seed=1)]", "'seed' is no factor"),
    ("c.sets = [dict(crop='a,b')]", "comma"),
    ("c.sets = [dict(crp='a')]", "did you mean 'crop'"),
    ("c.sets = [dict(crop='a/b'), dict(crop='a_b')]", "same name"),
    ("c.unlock(); c.sts = 1", "did you mean 'sets'"),
  ],
)
def test_mistakes_are_one_line(tmp_path, extra, message):
  path = study_helpers.write_study(tmp_path, extra)
  with pytest.raises(ValueError, match=message) as e:
    json.dumps([r.json_config for r in grid.load(path).runs])
  assert "\n" not in str(e.value)
