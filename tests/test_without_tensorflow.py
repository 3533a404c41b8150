"""Packing and training on the device engine, without TensorFlow.

These tests also run if only requirements-device.txt is installed. They test
docs/packed_data.md, too.
"""

import ast
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest

from big_crop import config as configs
from big_crop.data import packed
from big_crop.device_ops import philox
from big_crop.device_ops import registry as device
from pp_ops import registry, seeds

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "packed_data.md").read_text()

# Packs 24 images, trains for six steps on them and evaluates; then prints the
# summary and the packages that are loaded. Its arguments are a folder, and the
# packages that cannot be imported.
PROGRAM = """
import json, pathlib, sys

folder, *missing = sys.argv[1:]
sys.modules.update(dict.fromkeys(missing))

import numpy as np
from PIL import Image

from big_crop import config, pack, train

rng, folder = np.random.default_rng(0), pathlib.Path(folder)
for i in range(24):
  size = (20 + i, 30, 3) if i % 2 else (30, 25 + i, 3)
  place = folder / "images" / ("val" if i > 15 else "train") / "ab"[i % 2]
  place.mkdir(parents=True, exist_ok=True)
  image = Image.fromarray(rng.integers(0, 256, size, np.uint8))
  image.save(place / f"{i:02d}.png")
data = folder / "packed"
pack.main(["--data", str(folder / "images"), "--res=20", "--out", str(data)])
base = f"configs/quickstart.py:data={data},engine=device,res=16,batch=8"
overrides = ["total_examples=48", "log_training_steps=2", "ckpt_steps=4"]
overrides += ["model.width=16", "model.depth=1", "model.mlp_dim=16"]
overrides += ["model.num_heads=2"]
loaded = config.load(base, [f"--config.{x}" for x in overrides])
train.run(loaded, str(folder / "run"))
print(json.dumps(sorted({
  name.partition(".")[0] for name, module in sys.modules.items() if module
})))
"""
FRAMEWORKS = {"tensorflow", "tensorflow_datasets", "clu", "torch"}
FIGURES = {"matplotlib", "tensorboard"}


def train(folder, missing=()):
  """Runs the program on two devices; returns what it has loaded."""
  env = dict(os.environ, PYTHONPATH=str(ROOT))
  env["XLA_FLAGS"] = env["XLA_FLAGS"].replace(
    "device_count=8", "device_count=2"
  )
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, str(folder), *missing],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert not done.returncode, done.stderr
  return set(json.loads(done.stdout.splitlines()[-1]))


def check_run(workdir):
  """The run's summary is whole; returns the names of the workdir's files."""
  summary = json.loads((workdir / "summary.json").read_text())
  assert summary["step"] == 6
  assert summary["metrics"]["val/count"] == 8
  assert np.isfinite(summary["metrics"]["val/loss"])
  assert np.isfinite(summary["metrics"]["training_loss"])
  assert len((workdir / "metrics.jsonl").read_text().splitlines()) >= 3
  return {path.name.partition(".")[0] for path in workdir.iterdir()}


@pytest.mark.long
def test_training_where_nothing_else_is_installed(tmp_path):
  loaded = train(tmp_path, [*FRAMEWORKS, *FIGURES])
  assert not loaded & {*FRAMEWORKS, *FIGURES}
  files = check_run(tmp_path / "run")
  assert {"checkpoints", "train_images"} <= files
  assert not {"curves", "events"} & files


@pytest.mark.slow
def test_training_loads_no_framework_that_is_installed(tmp_path):
  pytest.importorskip("tensorboard")
  loaded = train(tmp_path)
  assert not loaded & FRAMEWORKS
  assert FIGURES <= loaded
  assert {"curves", "events"} <= check_run(tmp_path / "run")


def blocks(language):
  return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def test_the_page_computes_its_sizes():
  rows = re.findall(r"\| (\d+) \| (\d+)x(\d+) \| ([\d,]+) \| (\d+) GB \|", PAGE)
  assert len(rows) >= 3
  for res, short, long, size, total in rows:
    canvas = int(short), int(long)
    assert canvas == (int(res), 2 * int(res))
    size = int(size.replace(",", ""))
    assert size == packed.example_bytes(canvas)
    assert int(total) == round(1_281_167 * size / 1e9)


def test_the_crop_of_the_page_runs():
  (code,) = [b for b in blocks("python") if "random_resized_crop" in b]
  ast.parse(code)
  scope = {}
  exec(code, scope)
  images = np.full((3, 40, 60, 3), 255, np.uint8)
  out = scope["augment"](jax.random.key(0), images)
  assert out.shape == (3, 224, 224, 3)
  np.testing.assert_allclose(out, 1, atol=1e-6)


@pytest.mark.long
def test_the_op_of_the_page_runs(tmp_path, monkeypatch):
  (code,) = [b for b in blocks("python") if "@register" in b]
  (tmp_path / "my_device_ops.py").write_text(code)
  monkeypatch.syspath_prepend(str(tmp_path))
  assert "grey" not in device.names()  # the device's ops are registered by now
  monkeypatch.setattr(device, "_OPS", dict(device._OPS))
  (command,) = [b for b in blocks("sh") if "pp_modules" in b]
  argv = shlex.split(command.replace("\\\n", " "))
  monkeypatch.chdir(ROOT)
  config = configs.load(
    argv[argv.index("--config") + 1],
    [a for a in argv if a.startswith("--config.")],
  )
  assert config.input.engine == "device"
  registry.import_modules(config.pp_modules)
  monkeypatch.delitem(sys.modules, "my_device_ops")
  pp = device.get_preprocess_fn(config.input.pp)
  images = np.random.default_rng(0).integers(0, 256, (64, 50, 50, 3), np.uint8)
  zero = np.zeros(64, np.int64)
  words = philox.seed_words(*seeds.pack(0, zero, np.arange(64), zero))
  out = pp({"image": images, "label": zero}, words)["image"]
  assert out.shape == (64, 48, 48, 3)
  grey = (np.ptp(np.asarray(out), -1) < 1e-5).all((1, 2))
  assert 0 < grey.sum() < 64
