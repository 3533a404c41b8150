"""AugReg's checkpoints by name, and which one to start from."""

import sys

import numpy as np
import pytest
from augreg_helpers import RECOMMENDED, file_name, load, write_index

from big_crop import select, train, weights
from big_crop.runtime import checkpoint
from big_crop.weights import augreg as checkpoints


@pytest.fixture(scope="module")
def index(tmp_path_factory):
  return write_index(tmp_path_factory.mktemp("augreg"))


def test_select_gives_what_the_paper_recommends(index):
  rows = checkpoints.read_index(index)
  found = {r["model"]: r for r in select.choose(rows)}
  assert found.keys() == RECOMMENDED.keys()
  for model, (aug, wd, rate, lr, test, speed) in RECOMMENDED.items():
    best, name = found[model], file_name(model, aug, wd, rate)
    assert best["checkpoint"] == name
    adapted = f"{name}--imagenet2012-steps_20k-lr_{lr}-res_384"
    assert best["finetuned"] == adapted
    assert best["test"] == pytest.approx(test)
    assert best["ms"] == pytest.approx(1000 / speed)
    # strong2 has the better validation accuracy after finetuning.
    assert best["cost"] == pytest.approx(-0.25)
  fast = [r["model"] for r in select.choose(rows, max_ms=2.0)]
  assert fast == ["R26+S/32", "Ti/16", "B/32", "S/32", "R+Ti/16"]
  # B/8 was published later, pretrained on i21k alone, finetuned at 224 pixels.
  later = rows[0] | dict(name="B/8", adapt_resolution=224.0)
  for upstream in checkpoints.UPSTREAM:
    assert len(select.choose([*rows, later], upstream=upstream)) == 9
  small = select.choose(rows, max_params=2.5, res=224)
  assert [r["model"] for r in small] == ["S/32", "R+Ti/16"]
  for kw, message in [
    (dict(max_ms=0.1), r"no model fits; R\+Ti/16 takes 0.41 ms"),
    (dict(models=["B/15"]), "'B/15': did you mean 'B/16'"),
    (dict(data="cifar"), "dataset of the index 'cifar'"),
  ]:
    with pytest.raises(ValueError, match=message):
      select.choose(rows, **kw)


def test_the_command_select(index, monkeypatch, capsys):
  args = ["--index", str(index), "--model", "B/16", "Ti/16", "--max_ms", "5"]
  monkeypatch.setattr(sys, "argv", ["select", *args])
  select.main()
  out = capsys.readouterr().out
  assert "| Ti/16 " in out and "| B/16" not in out
  assert f"augreg:{file_name('Ti/16', 'none', 0.03, 0.0)}" in out
  # The mean of Table 5's 88.2, 90.6 and 75.5.
  assert "| 84.7 " in out


def test_a_checkpoint_is_found_by_its_name(index):
  name = file_name("S/32", "none", 0.1, 0.0)
  assert checkpoints.variant(f"augreg:{name}") == "AugReg-S/32"
  for model in (*RECOMMENDED, "R50_L_32"):
    stem = model.replace("_", "+", model.count("_") - 1).replace("_", "/")
    assert checkpoints.variant(f"augreg:{model}") == f"AugReg-{stem}"
  with pytest.raises(ValueError, match="model 'convnext': need one of AugReg"):
    checkpoints.variant("convnext-T")
  text = index.read_text()
  cut = index.parent / "cut.csv"
  cut.write_text(text.rpartition(",")[0])
  with pytest.raises(ValueError, match=r"cut.csv, line 145: .*the line is cut"):
    checkpoints.read_index(cut)
  lines = text.splitlines()
  *row, _, file, adapted = lines[1].split(",")
  cut.write_text("\n".join([lines[0], ",".join([*row, "", file, adapted])]))
  [row] = checkpoints.read_index(cut)
  assert np.isnan(row["infer_samples_per_sec"]) and row["filename"] == file
  assert checkpoints.best([row, {"params": np.nan}], "params") is row
  file = index.parent / f"{name}.npz"
  file.write_bytes(b"")
  for asked in (name, "S/32", "S_32"):
    assert checkpoints.resolve(f"augreg:{asked}", index) == str(file)
  for asked, at, message in [
    ("B/16", None, r"set config.model_load.index to .*gs://vit_models/augreg"),
    (
      "B/16",
      "no.csv",
      "no index no.csv: copy gs://vit_models/augreg/index.csv",
    ),
    ("B/16", index, r"no file .*B_16-i21k.*npz: copy gs://vit_models/augreg/B"),
    (f"{name}x", index, f"did you mean '{name}'"),
    ("B/15", index, "model of the index 'B/15'"),
    ("B/16", __file__, "line 2: not as in AugReg's index.csv: KeyError"),
  ]:
    with pytest.raises(ValueError, match=message) as e:
      checkpoints.resolve(f"augreg:{asked}", at and str(at))
    assert "\n" not in str(e.value)


@pytest.mark.long
def test_a_run_starts_from_a_published_checkpoint(index, tmp_path):
  """Pretraining, then finetuning at another size from its weights."""
  summary = train.run(load("pretrain", "model=B/32,smoke"), tmp_path / "a")
  assert summary["metrics"]["minival/count"] == 50
  name = file_name("B/32", "light1", 0.1, 0.0)
  params = checkpoint.load_variables(str(tmp_path / "a"))["params"]
  weights.save_npz(index.parent / f"{name}.npz", params)
  c = load("transfer", "init=augreg:B/32,smoke")
  c.model_load.index = str(index)
  # The run itself has the same model, but for what finetuning leaves out.
  of_run = load("transfer", f"init={tmp_path / 'a'},smoke").model
  assert of_run.to_dict() == c.model.to_dict() | dict(
    dropout=0.0, drop_path=0.0, rep_size=False, head_bias=0.0
  )
  summary = train.run(c, tmp_path / "b")
  assert summary["step"] == 2 and summary["metrics"]["test/count"] == 50
