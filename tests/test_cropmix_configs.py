"""CropMix's recipes and studies: what they say, that they run, the numbers."""

import collections
import json
import pathlib
import re

import jax
import numpy as np
import pytest
import study_helpers
from objective_helpers import specs
from op_helpers import photo

from big_crop import config as configs
from big_crop import objectives, step, train
from big_crop.runtime import records
from big_crop.study import grid, reference, results
from big_crop.study.__main__ import main
from pp_ops import registry

ROOT = pathlib.Path(__file__).parents[1]
RRC = "inception_crop_fixed"
TABLE_6 = {row["procedure"]: row for row in reference.rows("cropmix_recipes")}
CIFAR_MODELS = (
  *("preact_resnet-18", "xception-cifar", "densenet-121", "resnet-x50_32x4d"),
  *("wide_resnet-28-10", "small_vit", "swin-cifar", "resnet-18"),
)
IMAGENET_MODELS = [
  *(("r1", m) for m in ("resnet-50", "resnet-200", "repvgg-A2")),
  *(("r2", m) for m in ("resnet-50", "repvgg-A2")),
  *(("r3", m) for m in ("resnet-50", "convnext-T")),
]


def load(name, args=""):
  return configs.load(f"{ROOT}/configs/cropmix/{name}.py:{args}")


def study(name, args=""):
  return grid.load(f"{ROOT}/configs/studies/cropmix_{name}.py:{args}")


def number(text):
  return None if text == "-" else float(text)


# The recipes.


@pytest.mark.parametrize("recipe", ["r1", "r2", "r3"])
def test_a_recipe_is_its_column_of_table_6(recipe):
  c, says = load(recipe), {k: row[recipe] for k, row in TABLE_6.items()}
  pp, wd = c.input.pp, number(says["Weight decay"])
  yes = lambda key: says[key] == "yes"
  assert f"decode_jpeg_and_cropmix({says['Train Res']}, area_min=1, " in pp
  ratio = number(says["Test Res"]) / number(says["Test crop ratio"])
  assert f"resize_small({ratio:.0f}, " in c.evals.val.pp_fn
  assert c.total_epochs == number(says["Epochs"])
  assert c.input.batch_size == number(says["Batch size"])
  assert c.lr == number(says["LR"])
  if says["Optimizer"] == "SGD-M":
    assert (c.optax_name, c.optax.to_dict()) == ("trace", {"decay": 0.9})
    assert (c.wd, c.wd_in, c.wd_mults) == (wd, "gradient", [(".*", 1.0)])
  else:  # AdamW's decay is times the learning rate
    assert (c.optax_name, c.wd_in) == ("scale_by_adam", "update")
    assert c.wd / c.lr == pytest.approx(wd)
  assert c.schedule.decay_type == says["LR decay"]
  assert c.schedule.get("decay_rate") == number(says["decay rate"])
  assert c.schedule.get("decay_epochs") == number(says["decay epochs"])
  assert c.schedule.warmup_epochs == number(says["Warmup epochs"])
  assert c.loss == "softmax_xent" and c.targets.kind == "distribution"
  smoothing = number(says["Label smoothing"]) or 0
  assert c.targets.smoothing == smoothing
  assert ("|flip_lr" in pp) == yes("Horizontal flip")
  assert ('|rand_augment("rand-m9-mstd0.5-inc1"' in pp) == yes("Rand Augment")
  assert ("|trivial_augment_wide" in pp) == yes("Trivial Augment")
  assert c.mixing.mixup_alpha == (number(says["Mixup alpha"]) or 0)
  assert c.mixing.cutmix_alpha == (number(says["Cutmix alpha"]) or 0)
  erased = re.search(r"random_erasing\(([\d.]+)", pp)
  assert (erased and float(erased[1])) == number(says["Erasing prob"])
  assert (c.ema_decay is not None) == yes("EMA")
  # The paper's 8 steps of 8 GPUs with 64 images each.
  assert c.grad_accum == (8 if recipe == "r3" else 1)


def test_the_recipe_of_cifar():
  c = load("cifar")
  assert c.input.pp == (
    "decode_jpeg_and_cropmix(32, area_min=1, num=2, mix='mixup', permute=True, "
    "scales='multi', method=\"bilinear\", antialias=True)|flip_lr"
    "|vgg_value_range((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))"
    '|keep("image", "label")'
  )
  assert c.evals.val.data.split == "test" and c.evals.val.log_epochs == 1
  assert (c.total_epochs, c.input.batch_size, c.lr, c.wd) == (
    300,
    100,
    0.1,
    1e-4,
  )
  assert c.wd_mults == [(".*", 1.0)] and c.optax.decay == 0.9
  assert c.schedule.to_dict() == dict(
    decay_type="step", decay_rate=0.1, decay_epochs=100, warmup_epochs=0
  )
  assert load("cifar", "data=/x").evals.val.data.split == "validation"
  assert load("cifar", "data=/x,test_split=t").evals.val.data.split == "t"
  assert load("cifar", "data=/x,engine=device").input.engine == "device"


def test_other_crops_and_cropmixs_arguments():
  crop = lambda name, args: load(name, args).input.pp.partition("|")[0]
  assert "_fixed(224, area_min=8, method=" in crop("r1", f"crop={RRC}")
  assert "_fixed(32, area_min=25, method=" in crop(
    "cifar", f"crop={RRC},area_min=25"
  )
  found = crop("r1", "num=2+3,scales=single,mix=cutmix,alpha=0.5,permute=False")
  assert (
    "alpha=0.5, num=(2, 3), mix='cutmix', permute=False, scales='single'"
  ) in found
  c = load("r1", "res=64,interpolation=nearest")
  for pp in (c.input.pp, c.evals.val.pp_fn):
    assert '"nearest"' in pp and "bilinear" not in pp
  assert "resize_small(73, " in c.evals.val.pp_fn  # 64 / 0.875
  c = load("r3", "model=convnext-T")
  assert c.model.to_dict() == dict(variant="T", drop_path=0.1)
  with pytest.raises(ValueError, match="unknown before 'flipud'"):
    load("r1", "before=flipud")


@pytest.mark.parametrize(
  "row",
  [
    pytest.param(row, marks=[pytest.mark.long] if i else [])
    for i, row in enumerate(
      r for r in reference.rows("cropmix_ablations") if "5f" in r["source"]
    )
  ],
  ids=lambda row: f"{row['permute']}-{row['before']}-{row['after']}",
)
def test_table_5f_is_expressed(row):
  keys = ("permute", "before", "after")
  args = ",".join(f"{k}={row[k]}" for k in keys if row[k])
  pp = load("r1", f"res=16,num=2,{args}").input.pp
  made = registry.get_preprocess_fn(pp.removeprefix("decode_jpeg_and_"))
  out = made({"image": photo(40, 50), "label": 0})["image"]
  assert out.shape == (16, 16, 3) and np.isfinite(out).all()


@pytest.mark.parametrize(
  ("name", "model"),
  [
    pytest.param(*x, marks=[] if x[1] in quick else pytest.mark.long)
    for quick in [("resnet-18", "preact_resnet-18")]
    for x in [*(("cifar", m) for m in CIFAR_MODELS), *IMAGENET_MODELS]
  ],
)
def test_a_model_is_built(name, model):
  c = load(name, f"model={model}")
  try:
    objective = objectives.make(c, 100 if name == "cifar" else 1000)
  except ValueError as e:
    if "unknown" not in str(e):
      raise
    pytest.skip(str(e))
  size = 32 if name == "cifar" else 224
  shapes = step.param_shapes(objective, specs(size, size, 3))
  assert sum(np.prod(x.shape) for x in jax.tree.leaves(shapes)) > 2e6


@pytest.mark.long
@pytest.mark.parametrize("name", ["cifar", "r1", "r2", "r3"])
def test_a_recipe_runs(name, tmp_path):
  c = load(name, "smoke")
  c.model.width = 4  # XLA's loops over microbatches are slow here
  summary = train.run(c, tmp_path)
  assert summary["step"] == 4 and summary["metrics"]["val/count"] == 50


# The best epoch.


def test_the_best_epoch_is_right_after_a_restart(tmp_path):
  logged = lambda steps, top1: [
    (s, {"training_loss": 1.0, "val/top1": t, "val/loss": -t, "val/count": 5})
    for s, t in zip(steps, top1, strict=True)
  ]
  first = records.Metrics(tmp_path, 0)
  # The run is killed after step 4, and its last checkpoint is of step 2.
  for s, metrics in logged([1, 2, 3, 4], [float("nan"), 0.5, 0.9, 0.1]):
    first.write(s, metrics)
  second = records.Metrics(tmp_path, 2)
  for s, metrics in logged([3, 4, 5], [0.3, 0.6, 0.6]):
    second.write(s, metrics)
  expected = {
    "val/top1_best": 0.6, "val/top1_best_step": 4,
    "val/loss_best": -0.6, "val/loss_best_step": 4,
  }  # fmt: skip
  assert records.best(records.read_metrics(tmp_path)) == expected
  summary = train.summarise(tmp_path, {"step": 0})
  assert summary["metrics"].items() >= expected.items()
  assert summary["metrics"]["val/top1"] == 0.6
  assert "training_loss_best" not in summary["metrics"]


# The paper's numbers.

AVERAGE = {
  RRC: "5.19 5.28 5.69 24.47 26.12 27.13",
  "cropmix": "5.29 4.75 4.77 25.41 24.71 24.67",
}
# The differences to RRC that Table 1 prints.
CHANGES = """
+0.09 -0.44 -0.58 +1.00 -1.99 -1.98  +0.13 -0.19 -1.06 +1.01 -0.61 -2.63
+0.13 -0.80 -1.04 +0.97 -1.39 -2.85  +0.14 -0.90 -0.74 +0.99 -1.76 -2.21
+0.05 -0.20 -0.87 +1.00 -1.06 -2.28  +0.22 -0.48 -1.24 +1.02 -2.07 -3.01
-0.04 -0.68 -0.91 +0.59 -0.97 -2.27
"""
# And Table 2's, as printed.
TABLE_2 = """
+1.01 -1.08 +2.93 +0.52 +0.90 +2.24 +3.82 +2.48
+0.94 -0.20 +4.38 +0.66 +1.26 +4.54 +5.05 +3.95
+0.37 -0.49 +4.05 +0.39 +0.50 +1.13 +3.01 +3.33
+0.30 -11.00 +0.35 +1.75 +0.51 +2.76 +3.14 +4.17
+0.15 -3.06 +0.78 +0.53 +0.13 +1.22 +1.82 +1.83
+0.15 -0.23 +1.05 +0.20 +0.12 +1.58 +1.16 +0.54
+0.20 -0.09 +5.84 +0.29 +0.39 +1.77 +1.61 +1.71
"""


def table(text):
  return np.array([float(x) for x in text.split()])


def test_table_1():
  rows = reference.rows("cropmix_cifar")
  assert len(rows) == 84 and {r["n"] for r in rows} == {"5"}
  read = {
    crop: np.array(
      [float(r["val/top1_best"]) for r in rows if r["crop"] == crop]
    ).reshape(7, 6)
    for crop in AVERAGE
  }
  # The printed 24.48 should be 24.88, by the printed difference and average.
  assert read[RRC][0, 3] == 24.48
  read[RRC][0, 3] = 24.88
  for crop, text in AVERAGE.items():  # averages, which are truncated
    cut = np.floor(100 * read[crop].mean(0) + 1e-6) / 100
    np.testing.assert_allclose(cut, table(text), atol=1e-9)
  change = (read["cropmix"] - read[RRC]).ravel()
  np.testing.assert_allclose(change, table(CHANGES), atol=1e-9)


def test_table_2():
  rows = [r for r in reference.rows("cropmix_imagenet") if not r["mix"]]
  read = np.array([[float(v) for k, v in r.items() if "/" in k] for r in rows])
  assert read.shape == (14, 8)
  change = read[1::2] - read[::2]
  np.testing.assert_allclose(change.ravel(), table(TABLE_2), atol=1e-9)
  assert [(r["recipe"], r["model"]) for r in rows[::2]] == IMAGENET_MODELS


def test_numbers_that_tables_share():
  rows = reference.rows("cropmix_ablations")
  factors = lambda row: tuple(sorted(reference._factors(row).items()))
  same = collections.defaultdict(set)
  for row in rows:
    same[factors(row)].add(row["val/top1"])
  assert len(rows) == 7 + 12 + 10 + 6 + 10 + 15 + 3
  assert all(len(found) == 1 for found in same.values())
  assert same[()] == {"55.15"} and same[(("num", 1),)] == {"52.57"}
  assert same[(("crop", RRC),)] == {"52.57"}


# The studies.


def test_the_studies_are_the_papers_grids():
  keys = lambda found: {grid.key_of(f) for f in found}
  for name, runs in (("cifar", 420), ("imagenet", 15)):
    s = study(name)
    assert len(s.runs) == runs
    theirs = reference.results(s.config.reference, results.metrics_of(s.config))
    assert keys(r.factors for r in s.runs) == keys(theirs.settings)
  s = study("ablations")
  settings = keys(r.factors for r in s.runs)
  theirs = reference.results(s.config.reference, results.metrics_of(s.config))
  assert settings >= keys(theirs.settings)
  # The rows that Figure 3 adds to what its tables share.
  assert len(settings - keys(theirs.settings)) == 7
  assert len(s.runs) == 2 * len(settings) == 112


def test_an_ablations_run_says_every_factor_of_its_table():
  """RRC has area_min 1 where Tables 5e and 7 say so, although R1's is 8."""
  crops = collections.Counter()
  for r in study("ablations", "tables=5c+5e+7,seeds=1").runs:
    crop = r.config.input.pp
    area = r.factors.get("area_min", 1)
    assert f"({r.factors.get('res', 224)}, area_min={area}, " in crop
    crops[r.factors.get("crop", "cropmix")] += 1
  assert crops == {RRC: 9, "cropmix": 10}


def test_a_shrunk_table_1(tmp_path, capsys):
  s = study("cifar", "models=resnet-18,data=/x,area_min=75+1,seeds=2,width=24")
  assert len(s.runs) == 8
  c = s.runs[-1].config
  assert (c.model.width, c.model_name, c.seed) == (24, "resnet", 1)
  assert c.input.data.name == "/x" and "area_min=1, num=2" in c.input.pp


def test_the_papers_numbers_alone(tmp_path, capsys):
  path = f"{ROOT}/configs/studies/cropmix_ablations.py:tables=5a+f3"
  more = ["--config", path, "--out", str(tmp_path)]
  main(["report", "--reference", *more])
  printed = capsys.readouterr().out
  assert "| 5         | 55.14" in printed and "Figure 3" not in printed
  with pytest.raises(ValueError, match="--config needs --workdir"):
    main(["report", *more])


@pytest.mark.long
def test_the_papers_numbers_beside(tmp_path, monkeypatch):
  study_helpers.make_quick(monkeypatch)
  args = "models=small_vit,data=cifar10,area_min=1,seeds=1"
  s, workdir = study("cifar", args), tmp_path / "w"
  for run in s.runs:
    folder = workdir / "runs" / run.name
    folder.mkdir(parents=True)
    metrics = {"val/top1_best": 0.95}
    summary = {"step": 1, "metrics": metrics}
    (folder / "summary.json").write_text(json.dumps(summary))
  spec = f"{s.path}:{args}"
  main(["report", "--config", spec, "--workdir", str(workdir)])
  page = (workdir / "report/index.html").read_text()
  row = page.partition("[this study] CropMix, cifar10: top-1 error, best")[2]
  row = row.partition("<div class=side>")[0]
  assert "[the paper] CropMix, cifar10: top-1 error, best" in row
  assert "5.00" in row and "4.55" in row
