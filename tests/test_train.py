"""The trainer as a whole: repeatable, resumable, clear about what is wrong."""

import itertools
import json
import math
import pathlib
import shutil
import signal
import time
import types

import jax
import numpy as np
import pytest
from damage_helpers import UNUSED, WAYS, damage, files

from big_crop import config as configs
from big_crop import train
from big_crop.data import critters
from big_crop.runtime import commands, stop
from pp_ops.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """64 small images in class folders."""
  root = tmp_path_factory.mktemp("images")
  for i, (data, label) in enumerate(
    zip(*critters.generate("train", 0, 64), strict=True)
  ):
    path = root / f"class_{label % 4}" / f"{i}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
  return root


def tiny(folder, **overrides):
  c = configs.default_config()
  c.total_steps = STEPS
  data = {"name": "folder", "data_dir": str(folder)}
  c.input.data = {**data, "split": "train"}
  c.input.pp = "decode_jpeg_and_inception_crop_fixed(16)|value_range(-1, 1)"
  c.input.batch_size = 16
  c.model = {"width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2}
  c.model.patch_size = (8, 8)
  c.evals.val = {
    "data": {**data, "split": "validation"},
    "pp_fn": "decode|resize(16)|value_range(-1, 1)",
    "batch_size": 8,
    "log_steps": 4,
  }
  c.log_training_steps = 1
  c.ckpt_steps = 2
  for key, value in overrides.items():
    *parents, last = key.split("__")
    place = c
    for parent in parents:
      place = place[parent]
    place[last] = value
  return c


def records(workdir):
  """metrics.jsonl without the measured times."""
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  out = [json.loads(line) for line in lines]
  for record in out:
    record.pop("images_per_s", None)
  return out


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("undisturbed")
  return workdir, train.run(tiny(folder), workdir)


def test_workdir_is_complete(undisturbed):
  workdir, summary = undisturbed
  names = {p.name for p in workdir.iterdir()}
  assert {
    "config.json",
    "metrics.jsonl",
    "checkpoints",
    "summary.json",
    "curves.png",
    "train_images.png",
  } <= names
  assert any(n.startswith("events.out.tfevents") for n in names)
  assert json.loads((workdir / "summary.json").read_text()) == summary
  assert len(summary["params_sha256"]) == 64
  logged = records(workdir)
  assert [r["step"] for r in logged] == list(range(1, STEPS + 1))
  assert all(math.isfinite(r["training_loss"]) for r in logged)
  assert [r["step"] for r in logged if "val/top1" in r] == [4, 6]
  assert logged[-1]["val/count"] == 6  # a tenth of 64, all of them


@pytest.mark.long
def test_same_command_gives_the_same_parameters(undisturbed, folder, tmp_path):
  summary = train.run(tiny(folder, input__num_parallel_calls=1), tmp_path)
  assert summary["params_sha256"] == undisturbed[1]["params_sha256"]
  assert records(tmp_path) == records(undisturbed[0])
  # Another seed gives another result.
  other = train.run(tiny(folder, seed=1, evals={}), tmp_path / "other")
  assert other["params_sha256"] != summary["params_sha256"]


@pytest.fixture
def _built_once(folder, monkeypatch):
  """Runs of `tiny` share what is built and compiled."""
  parts = train.build(tiny(folder))
  monkeypatch.setattr(train, "build", lambda config: parts)


@pytest.mark.usefixtures("_built_once")
@pytest.mark.slow
def test_sigterm_saves_that_step_and_the_run_goes_on(
  undisturbed, folder, tmp_path, monkeypatch
):
  asked = iter([False, False, True])  # in the third step
  monkeypatch.setattr(stop, "requested", lambda: next(asked))
  assert train.run(tiny(folder), tmp_path) is None
  assert (tmp_path / "checkpoints" / "3").is_dir()
  assert not (tmp_path / "summary.json").exists()
  monkeypatch.setattr(stop, "requested", lambda: False)
  summary = train.run(tiny(folder), tmp_path)
  assert summary["params_sha256"] == undisturbed[1]["params_sha256"]
  assert records(tmp_path) == records(undisturbed[0])
  # And once more: nothing is left to do, nothing changes. Then the last
  # checkpoint is gone, and the run goes on from the one before.
  for _ in range(2):
    again = train.run(tiny(folder), tmp_path)
    assert again["params_sha256"] == summary["params_sha256"]
    assert records(tmp_path) == records(undisturbed[0])
    (tmp_path / "checkpoints" / "6" / "host" / "metadata").unlink()


@pytest.mark.slow
@pytest.mark.usefixtures("_built_once")
def test_a_damaged_last_checkpoint_changes_nothing(
  undisturbed, folder, tmp_path, capfd
):
  """Each file deleted, cut and flipped: the undisturbed run's parameters."""
  rng = np.random.default_rng(0)
  workdir = tmp_path / "run"
  last = workdir / "checkpoints" / "6"
  whole = undisturbed[0] / "checkpoints" / "6"
  for file, way in itertools.product(files(whole), WAYS):
    name = str(file.relative_to(whole))
    shutil.copytree(undisturbed[0], workdir)
    damage(last / name, way, rng)
    capfd.readouterr()
    summary = train.run(tiny(folder), workdir)
    assert summary["params_sha256"] == undisturbed[1]["params_sha256"]
    assert records(workdir) == records(undisturbed[0])
    said = capfd.readouterr().err
    seen = f"checkpoint {last} is damaged: " in said
    assert seen == (name not in UNUSED), (name, way)
    shutil.rmtree(workdir)


@pytest.mark.usefixtures("_built_once")
@pytest.mark.slow
def test_torn_metrics_are_cut_at_the_checkpoint(
  undisturbed, folder, tmp_path, monkeypatch
):
  asked = iter([False, True])
  monkeypatch.setattr(stop, "requested", lambda: next(asked))
  train.run(tiny(folder), tmp_path)
  with (tmp_path / "metrics.jsonl").open("a") as f:
    f.write('{"step": 3, "training_loss": 1.0}\n{"step": 4, "trai')
  monkeypatch.setattr(stop, "requested", lambda: False)
  train.run(tiny(folder), tmp_path)
  assert records(tmp_path) == records(undisturbed[0])


def test_another_configs_run_is_not_touched(undisturbed, folder):
  workdir, _ = undisturbed
  before = {p: p.read_bytes() for p in workdir.glob("*.json*")}
  with pytest.raises(ValueError, match=r"holds another run: config\.lr"):
    train.run(tiny(folder, lr=0.5), workdir)
  assert {p: p.read_bytes() for p in workdir.glob("*.json*")} == before


@pytest.mark.long
def test_nan_names_the_step_and_the_last_good_checkpoint(folder, tmp_path):
  config = tiny(folder, lr=1e15, schedule={"decay_type": "constant"})
  config.ckpt_steps = 1
  with pytest.raises(ValueError, match=r"loss is (nan|inf) at step \d") as e:
    train.run(config, tmp_path)
  step = int(str(e.value).split("at step ")[1].split(";")[0])
  assert str(e.value).endswith(f"checkpoints/{step - 1}")
  assert not (tmp_path / "summary.json").exists()


@pytest.mark.slow
def test_starts_from_another_run(undisturbed, folder, tmp_path):
  workdir, _ = undisturbed
  config = tiny(folder, model_init=str(workdir), lr=0.0, evals={})
  config.total_steps = 1
  summary = train.run(config, tmp_path)
  assert summary["params_sha256"] == undisturbed[1]["params_sha256"]


@pytest.mark.long
def test_no_steps_only_evaluate(undisturbed, folder, tmp_path):
  workdir, trained = undisturbed
  config = tiny(folder, model_init=str(workdir), total_steps=0)
  for _ in range(2):
    summary = train.run(config, tmp_path)
    assert summary["params_sha256"] == trained["params_sha256"]
    (record,) = records(tmp_path)
    assert record.pop("step") == summary["step"] == 0
    best = {k: v for k, v in summary["metrics"].items() if "_best" in k}
    assert record | best == summary["metrics"]
    for key, value in record.items():
      assert value == trained["metrics"][key] and key.startswith("val/")


@pytest.mark.slow
def test_corrupt_image(folder, tmp_path):
  images = tmp_path / "images"
  for path in sorted(folder.glob("*/*"))[:40]:
    target = images / path.relative_to(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
  bad = sorted(images.glob("*/*"))[0]
  bad.write_bytes(bad.read_bytes()[:200])
  config = tiny(images, evals={})
  config.input.data.split = "all"
  with pytest.raises(ValueError, match=bad.name):
    train.run(config, tmp_path / "a")
  config.input.skip_corrupt = True
  summary = train.run(config, tmp_path / "b")
  assert 2 <= summary["skipped_corrupt"] <= 3  # 96 images, epochs of 40


def test_a_users_mistake_is_one_line_and_a_fault_has_a_traceback(capsys):
  with pytest.raises(SystemExit) as e, commands.one_line():
    raise UserError("in two\nlines")
  assert e.value.code == 2
  assert capsys.readouterr().err == "error: in two lines\n"
  with pytest.raises(ValueError, match="unpack"), commands.one_line():
    _, _ = (1, 2, 3)


def start(commands, config, workdir):
  args = "--config", config, "--workdir", workdir
  return commands.start("big_crop.train", *args, out=f"{workdir}.log")


@pytest.fixture(scope="module")
def config_file(folder, tmp_path_factory):
  path = tmp_path_factory.mktemp("config") / "tiny.py"
  path.write_text(
    f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
    "import test_train\n"
    "def get_config(arg=None):\n"
    f"  c = test_train.tiny({str(folder)!r})\n"
    "  c.total_steps, c.ckpt_steps = 400, 5\n"
    "  c.evals.val.log_steps = 20\n"
    "  return c\n"
  )
  return path


def wait_for_step(workdir, step, timeout=240):
  for _ in range(timeout * 10):
    path = workdir / "metrics.jsonl"
    if path.exists() and path.read_text().count("\n") >= step:
      return
    time.sleep(0.1)
  raise TimeoutError(f"no step {step} in {workdir}")


@pytest.mark.slow
def test_sigterm_to_the_command(commands, config_file, tmp_path):
  """SIGTERM: status 0 and a checkpoint."""
  process = start(commands, config_file, tmp_path / "run")
  try:
    wait_for_step(tmp_path / "run", 2)
    process.send_signal(signal.SIGTERM)
    status = process.wait(timeout=120)
  finally:
    process.kill()
  output = (tmp_path / "run.log").read_text()
  assert status == 0, output
  saved = output.split("SIGTERM: saved checkpoint ")[1].split()[0]
  assert pathlib.Path(saved, "state").is_dir()


@pytest.mark.slow
def test_killed_ten_times(commands, config_file, tmp_path):
  """SIGKILL at any moment: the parameters of an undisturbed run."""
  done = start(commands, config_file, tmp_path / "whole")
  assert done.wait() == 0, (tmp_path / "whole.log").read_text()
  rng = np.random.default_rng(0)
  killed = 0
  while killed < 10:
    process = start(commands, config_file, tmp_path / "killed")
    time.sleep(rng.uniform(0, 15))
    if process.poll() is None:
      killed += 1
      process.kill()
    process.wait()
  process = start(commands, config_file, tmp_path / "killed")
  assert process.wait() == 0, (tmp_path / "killed.log").read_text()
  digests = [
    json.loads((tmp_path / d / "summary.json").read_text())["params_sha256"]
    for d in ("whole", "killed")
  ]
  assert digests[0] == digests[1]
  assert records(tmp_path / "killed") == records(tmp_path / "whole")


def test_runs_on_all_devices(undisturbed):
  assert jax.device_count() == 8


@pytest.mark.long
def test_a_failed_start_leaves_the_workdir_free(undisturbed, folder, tmp_path):
  config = tiny(folder, model_init=str(undisturbed[0]), model__width=32)
  with pytest.raises(ValueError, match="dont_load"):
    train.run(config, tmp_path / "run")
  config.model_init = "/no/such/run"
  with pytest.raises(UserError, match="/no/such/run"):
    train.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_are_not_saved():
  kept = types.SimpleNamespace(latest=lambda: 3, path=pathlib.Path("c"))
  good = {"training_loss": 1.0, "l2_params": 2.0}
  train.check_finite([(4, good)], kept)
  with pytest.raises(ValueError, match="norm of the parameters is inf at step"):
    train.check_finite([(4, good), (5, good | {"l2_params": np.inf})], kept)
