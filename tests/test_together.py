"""Runs trained together end like runs trained alone."""

import itertools
import json
import pathlib

import jax
import numpy as np
import pytest

from big_crop import config as configs
from big_crop import pack, together, train
from big_crop.evaluators import classification
from big_crop.runtime import checkpoint, sharding, stop
from big_crop.study import __main__ as study


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  out = tmp_path_factory.mktemp("packed") / "critters"
  pack.pack("critters", out, 32, splits=["validation"])
  return str(out)


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
  """The suite has eight; a mesh here has the first."""
  make_mesh = sharding.make_mesh
  monkeypatch.setattr(
    sharding, "make_mesh", lambda axes: make_mesh(axes, jax.devices()[:1])
  )


def config(packed, *overrides, seed=0, crop="inception_crop_fixed"):
  return configs.load(
    f"configs/quickstart.py:data={packed},engine=device,res=16,batch=16,"
    f"epochs=1,seed={seed},crop={crop}",
    [
      "--config.input.data.split=validation",
      "--config.evals.val.data.split=validation[:40]",
      "--config.evals.val.log_percent=0.5",
      "--config.total_epochs=None",
      "--config.total_steps=50",
      "--config.ckpt_steps=10",
      "--config.log_training_steps=10",
      "--config.model.width=16",
      "--config.model.depth=1",
      "--config.model.mlp_dim=16",
      "--config.model.num_heads=2",
      *overrides,
    ],
  )


def logged(path):
  return [json.loads(x) for x in open(pathlib.Path(path) / "metrics.jsonl")]


def assert_alike(one, other, rtol=1e-5):
  """The metrics of two workdirs, but for speed, and their parameters."""
  for x, y in zip(logged(one), logged(other), strict=True):
    assert x.keys() == y.keys()
    for key in x.keys() - {"images_per_s"}:
      np.testing.assert_allclose(x[key], y[key], rtol=rtol, err_msg=key)
  a, b = (checkpoint.load_variables(p)["params"] for p in (one, other))
  for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 4])
def test_each_run_is_as_it_is_alone(packed, tmp_path, num, monkeypatch):
  """20 steps: the losses within 1e-5 of their size; pictures are drawn."""
  evaluate = classification.Evaluator.run
  monkeypatch.setattr(
    classification.Evaluator,
    "run",
    lambda *args: evaluate(*args) | {"seen": np.zeros((2, 8, 8, 3))},
  )
  coupled = dict(crop="inception_crop_coupled")
  few = "--config.total_steps=20"
  made = [
    config(packed, few),
    config(packed, few, "--config.lr=5e-4", seed=1, **coupled),
    config(packed, few, seed=2),
    config(packed, few, **coupled),
  ][:num]
  paths = [str(tmp_path / f"together{i}") for i in range(num)]
  results = together.run(made, paths)
  assert len({r["params_sha256"] for r in results}) == num
  for i, c in enumerate(made):
    alone = str(tmp_path / f"alone{i}")
    train.run(c, alone)
    assert_alike(alone, paths[i])
  names = {p.name for p in pathlib.Path(paths[0]).iterdir()}
  assert {"summary.json", "train_images.png", "val_seen.png"} <= names


@pytest.mark.slow
def test_stopped_runs_go_on_together_or_alone(packed, tmp_path, monkeypatch):
  made = [config(packed, seed=i) for i in range(2)]
  whole, cut = (
    [str(tmp_path / f"{name}{i}") for i in range(2)]
    for name in ("whole", "cut")
  )
  results = together.run(made, whole)
  asked = itertools.chain([False] * 24, itertools.repeat(True))
  with monkeypatch.context() as patch:
    patch.setattr(stop, "requested", lambda: next(asked))
    assert together.run(made, cut) == [None, None]
  assert [checkpoint.latest_step(path) for path in cut] == [25, 25]
  # One run goes on by itself to a checkpoint, which is then damaged.
  asked = itertools.chain([False] * 4, itertools.repeat(True))
  with monkeypatch.context() as patch:
    patch.setattr(train.hosts, "stop_requested", lambda: next(asked))
    assert train.run(made[0], cut[0]) is None
  assert [checkpoint.latest_step(path) for path in cut] == [30, 25]
  ahead = pathlib.Path(cut[0]) / "checkpoints" / "30"
  (ahead / "state" / "_METADATA").unlink()
  again = together.run(made, cut)
  for one, other in zip(whole, cut, strict=True):
    assert_alike(one, other)
  assert again[1]["params_sha256"] == results[1]["params_sha256"]
  assert ahead.with_name("30.damaged").is_dir()


@pytest.mark.slow
def test_a_run_that_diverges_ends_alone(packed, tmp_path):
  made = [config(packed), config(packed, "--config.lr=1e15")]
  paths = [str(tmp_path / name) for name in ("good", "bad")]
  good, bad = together.run(made, paths)
  assert good["step"] == 50
  assert "the loss is" in str(bad)
  assert not (tmp_path / "bad" / "summary.json").exists()


def test_what_cannot_be_trained_together(packed, tmp_path):
  paths = [str(tmp_path / "a"), str(tmp_path / "b")]
  one = config(packed)
  with pytest.raises(ValueError, match=r"config\.wd is"):
    together.run([one, config(packed, "--config.wd=0.5")], paths)
  mults = config(packed, "--config.lr_mults=[('head/.*', 10.0)]")
  with pytest.raises(ValueError, match=r"config\.lr_mults is"):
    together.run([one, mults], paths)
  made = [config(packed, "--config.total_steps=0", seed=i) for i in (0, 1)]
  with pytest.raises(ValueError, match="they only evaluate"):
    together.run(made, paths)
  made = [config(packed, seed=i) for i in (0, 1)]
  for c in made:
    c.swa = dict(start_steps=5, every_steps=1)
  with pytest.raises(ValueError, match=r"config\.swa"):
    together.run(made, paths)
  tf_data = "--config.input.engine=tf.data"
  made = [config(packed, tf_data, seed=i) for i in (0, 1)]
  with pytest.raises(ValueError, match="engine"):
    together.run(made, paths)


STUDY = """
from big_crop.study.grid import default_study

def get_config():
  c = default_study()
  c.base = {base!r}
  c.arguments.update(data={data!r}, engine="device", res=16, batch=16)
  c.seeds = [0, 1]
  c.sets = [dict(
    crop=["inception_crop_coupled", "inception_crop_fixed"], epochs=[1, 2]
  )]
  c.overrides = {overrides!r}
  return c
"""


@pytest.mark.slow
def test_a_study_trains_what_fits_together(packed, tmp_path, capfd):
  base = str(pathlib.Path("configs/quickstart.py").resolve())
  overrides = [
    "--config.input.data.split=validation[:100]",
    "--config.evals.val.data.split=validation[:40]",
    "--config.model.width=16",
    "--config.model.depth=1",
    "--config.model.mlp_dim=16",
  ]
  file = tmp_path / "study.py"
  file.write_text(STUDY.format(base=base, data=packed, overrides=overrides))
  flags = ["--config", str(file), "--workdir", str(tmp_path / "w")]
  assert study.main(["run", *flags, "--together", "4"]) == 0
  capfd.readouterr()
  study.main(["list", *flags])
  assert capfd.readouterr().out.count("  done  ") == 8
  done = (tmp_path / "w").glob("runs/*/summary.json")
  summaries = [json.loads(path.read_text()) for path in done]
  # Four runs of each number of epochs.
  assert [s["trained_together"] for s in summaries] == [4] * 8
  assert study.main(["run", *flags, "--together", "4"]) == 0  # nothing left
  with pytest.raises(ValueError, match="--together 0"):
    study.main(["run", *flags, "--together", "0"])


@pytest.mark.long
def test_other_shapes_are_told_apart(packed, tmp_path):
  other = config(packed, seed=1)
  other.input.pp = other.input.pp.replace("(16", "(24")
  assert together.difference(config(packed), other) is None
  with pytest.raises(together.ApartError, match="other features or shapes"):
    together.run([config(packed), other], [tmp_path / "a", tmp_path / "b"])
