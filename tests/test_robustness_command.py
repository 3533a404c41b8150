"""The robustness command: tables, tests of a run, ImageNet's variants."""

import csv
import io
import json

import command_helpers
import numpy as np
import pytest
from command_helpers import exits_with_one_line
from data_helpers import grey, grey_level, write
from PIL import Image

from big_crop import config as configs
from big_crop import train
from big_crop.data import critters, packed
from big_crop.evaluators import imagenet
from big_crop.robustness import __main__ as robustness
from big_crop.robustness import figures, report, suite
from big_crop.runtime import sharding
from pp_ops import corruptions


def measurement(name="run", is_imagenet=True, top1=None, **results):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 255, (3, 8, 8, 3), np.uint8)
  metrics = {"top1": 0.75, "rms_calibration": 0.0881, "count": 1000.0}
  found = {"clean": metrics, "fgsm": {"top1": 0.25}}
  for test, value in (top1 or {}).items():
    found[test] = {"top1": value}
  return suite.Measurement(
    name,
    f"/runs/{name}",
    is_imagenet,
    {k: suite.Result(v, images) for k, v in found.items()},
    ["Clean: 1,000 images"],
  )


def test_tables_and_mce(tmp_path):
  # AlexNet's own mCE is 1, and half its errors give 0.5.
  spread = (-0.02, -0.01, 0, 0.01, 0.02)
  tests = lambda factor: {
    (name, s): 1 - factor * (error + spread[s - 1])
    for name, error in report.ALEXNET.items()
    for s in range(1, 6)
  }
  assert list(report.ALEXNET) == [
    n for n, c in corruptions.NAMES.items() if c.in_mce
  ]
  alexnet, better = (
    measurement(name, top1=tests(factor))
    for name, factor in [("alexnet", 1), ("better", 0.5)]
  )
  assert report.mean_corruption_error(alexnet) == pytest.approx(1)
  assert report.mean_corruption_error(better) == pytest.approx(0.5)
  assert (
    report.mean_corruption_error(better._replace(is_imagenet=False)) is None
  )
  missing = measurement(top1={k: v for k, v in tests(1).items() if k[1] < 5})
  assert report.mean_corruption_error(missing) is None

  other = measurement("other", False, {("none", 0): 0.7, ("spatter", 3): 0.4})
  row, columns = report.tables_of([better, other])
  lines = row.markdown().splitlines()
  head = [c.strip() for c in lines[2].strip("|").split("|")]
  assert head == [
    "run",
    "clean",
    "RMS calibration",
    "FGSM",
    "corruptions",
    "mCE",
  ]
  cells = [c.strip() for c in lines[4].strip("|").split("|")]
  mean = 100 - 50 * np.mean([*report.ALEXNET.values()])
  assert cells == ["better", "75.00", "8.81", "25.00", f"{mean:.2f}", "50.00"]
  assert lines[-1] == "Clean: 1,000 images."
  assert "| spatter" in columns.markdown() and "saturate" not in str(columns)
  records = list(csv.DictReader(io.StringIO(columns.csv())))
  assert len(records) == 75 + 2
  assert records[0] == dict(
    run="other", corruption="none", severity="0", top1="70.0"
  )
  figures.save(tmp_path / "tests.png", other)
  assert Image.open(tmp_path / "tests.png").width > 800


def run_config(name="critters"):
  data = lambda split: dict(name=name, split=split)
  c = command_helpers.run_config(data("train[:64]"), data("validation[:27]"))
  c.model_name = "resnet"
  c.model = dict(variant=18, width=4, small_stem=True)
  return c


@pytest.mark.slow
def test_command(tmp_path, capsys):
  metrics = train.run(run_config(), tmp_path / "a")["metrics"]
  out = tmp_path / "out"
  argv = ["--workdir", str(tmp_path / "a"), "--out", str(out)]
  some = ["--corruptions", "contrast", "spatter", "--severities", "1", "5"]
  robustness.main([*argv, *some, "--pgd_steps=2"])
  names = {str(p.relative_to(out)) for p in out.rglob("*.*")}
  assert names == {
    "table.md",
    "robustness.csv",
    "corruptions.csv",
    "summary.json",
    "a/tests.png",
  }
  assert (out / "table.md").read_text() in capsys.readouterr().out
  (run,) = json.loads((out / "summary.json").read_text())["runs"]
  assert list(run["tests"]) == [
    "clean",
    "fgsm",
    "pgd",
    "contrast_1",
    "contrast_5",
    "spatter_1",
    "spatter_5",
  ]
  assert run["tests"]["clean"]["top1"] == pytest.approx(metrics["val/top1"])
  assert run["tests"]["clean"]["loss"] == pytest.approx(metrics["val/loss"])
  assert {m["count"] for m in run["tests"].values()} == {27}
  assert run["tests"]["fgsm"]["loss"] > run["tests"]["clean"]["loss"]

  few = tmp_path / "few"
  for label in range(3):
    (few / f"class_{label}").mkdir(parents=True)
    data = critters.example("validation", label)[0]
    (few / f"class_{label}" / "0.jpg").write_bytes(data)
  for more, message in [
    (["--workdir", argv[1]], "twice"),
    (["--max_examples", "0"], "--max_examples=0"),
    (["--severities", "6"], "--severities=6"),
    (["--epsilon", "300"], "--epsilon=300"),
    (["--corruptions", "mist"], "unknown --corruptions 'mist'"),
    (["--replace", str(few)], "it has 3 classes, the run's data 20"),
    (["--imagenet_a", str(few)], "ImageNet's 1000; the model has 20"),
    (["--noise", str(tmp_path / "x")], "is not there"),
  ]:
    with exits_with_one_line(capsys, message):
      robustness.main([*argv, *more])


@pytest.mark.slow
def test_packed_data_on_the_device_engine(tmp_path, capsys):
  from big_crop import pack

  pack.main(
    ["--data", "critters", "--res", "32", "--out", str(tmp_path / "packed")]
  )
  assert packed.is_packed(tmp_path / "packed")
  c = run_config(str(tmp_path / "packed"))
  c.input.engine = "device"
  c.input.pp = c.evals.val.pp_fn = (
    "decode|resize(32)|value_range(-1, 1)|keep('image', 'label')"
  )
  train.run(c, tmp_path / "a")
  out = tmp_path / "out"
  robustness.main(
    ["--workdir", str(tmp_path / "a"), "--out", str(out)]
    + ["--corruptions", "contrast", "--pgd_steps=0"]
  )
  (run,) = json.loads((out / "summary.json").read_text())["runs"]
  assert run["tests"]["contrast_3"]["count"] == 27


class Levels:
  """The objective of a model that predicts the class of the grey level."""

  def predict(self, variables, image):
    return grey_level(variables, image)

  def for_evaluators(self):
    return {"num_classes": 1000}


@pytest.mark.slow
def test_imagenets_sets_from_tfds(tmp_path, monkeypatch):
  """TFDS's own builders write the sets, from our grey images."""
  a, r = (imagenet.subset(name, 1000) for name in imagenet.SUBSETS)
  known = imagenet.wnids()
  in_r_only = [c for c in r if c not in a and c < 250]
  sets = {
    "imagenet_a": ("test", [a[0], a[3], in_r_only[0]]),
    "imagenet_r": ("test", [r[0], r[5]]),
    "imagenet_sketch": ("test", [0, 100, 200, 201]),
    "imagenet2012_corrupted/fog_1": ("validation", [5, 6]),
    "imagenet2012_corrupted/fog_2": ("validation", [5, 7]),
  }
  for name, (split, labels) in sets.items():
    size = (224, 224) if "corrupted" in name else (60, 50)
    levels = [c + ("fog_2" in name) for c in labels]
    examples = [
      (
        i,
        {
          "image": grey(level, size),
          "label": known[c],
          "file_name": f"{i}.JPEG",
        },
      )
      for i, (c, level) in enumerate(zip(labels, levels, strict=True))
    ]
    write(name, split, examples, tmp_path, monkeypatch)
  # The run was evaluated on a folder of all classes.
  for c in range(1000):
    (tmp_path / "val" / known[c]).mkdir(parents=True)
    image = grey(min(c, 255)).read()
    (tmp_path / "val" / known[c] / "0.jpg").write_bytes(image)
  c = configs.default_config()
  c.evals.val = dict(
    data=dict(name=str(tmp_path / "val"), split="all", data_dir=None),
    pp_fn="decode|resize_small(36)|central_crop(32)|value_range(-1, 1)",
    batch_size=64,
  )
  mesh = sharding.make_mesh([("data", -1)])
  run = suite.parts.FinishedRun("config.json", c, Levels(), mesh, 0.0)
  monkeypatch.setattr(suite.parts, "open_run", lambda _: run)
  options = suite.Options(
    pgd_steps=0,
    corruptions=["fog"],
    severities=[1, 2],
    data_dir=str(tmp_path),
    sets={"replace": str(tmp_path / "val")},
    max_examples=400,
  )
  m = suite.measure("run", "run", options)
  top1 = {
    k: (v.metrics["top1"], v.metrics["count"]) for k, v in m.results.items()
  }
  assert m.is_imagenet
  assert top1["replace"] == top1["clean"]
  # The third image of ImageNet-A has a class that ImageNet-A lacks.
  assert top1["imagenet_a"] == (1, 2)
  assert top1["imagenet_r"] == (1, 2)
  assert top1["imagenet_sketch"] == (1, 4)
  assert top1["fog", 1] == (1, 2), m.about
  assert top1["fog", 2] == (0, 2)
  assert any("ImageNet-C: 1 of mCE's 15" in line for line in m.about)

  # Sets that are not prepared are made here or left out; the output says so.
  options = options._replace(severities=[3], data_dir=str(tmp_path / "none"))
  suite_ = suite.Suite(run, options)
  assert set(suite_.tests) == {"clean", "fgsm", "replace", ("fog", 3)}
  about = " ".join(suite_.about)
  assert "IN-A left out" in about and "ImageNet-C is not used" in about
