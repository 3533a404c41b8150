"""A whole study with the real trainer: killed, restarted, shared. Minutes."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import study_helpers

pytestmark = pytest.mark.slow

STUDY = """
from big_crop.study.grid import default_study

def get_config(arg=None):
  c = default_study()
  c.base = {base!r}
  c.arguments.res = 16
  c.arguments.batch = 32
  c.sets = [dict(crop=["inception_crop_coupled", "inception_crop_fixed"],
                 epochs=10)]
  c.seeds = [0, 1]
  c.overrides = [
    "--config.input.data.split=train[:640]",
    "--config.evals.val.data.split=validation[:100]",
    "--config.model.width=16", "--config.model.depth=1",
    "--config.model.mlp_dim=32", "--config.model.num_heads=2",
    "--config.log_training_steps=7", "--config.ckpt_steps=40",
  ]
  c.families = [
    dict(name=n, label=n, x="crop", where=dict(crop="inception_crop_" + n))
    for n in ("coupled", "fixed")
  ]
  return c
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp("study") / "study.py"
  base = str(study_helpers.ROOT / "configs/quickstart.py")
  path.write_text(STUDY.format(base=base))
  return path


def start(command, config, workdir):
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "big_crop.study", command),
      *("--config", str(config), "--workdir", str(workdir)),
    ],
    env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(study_helpers.ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(command, config, workdir):
  process = start(command, config, workdir)
  output, _ = process.communicate(timeout=900)
  assert process.returncode == 0, output
  return output


def report(config, workdir):
  finish("report", config, workdir)
  folder = pathlib.Path(workdir) / "report"
  files = (p for p in folder.rglob("*") if p.is_file())
  return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("undisturbed")
  finish("run", config, workdir)
  return report(config, workdir), logged(workdir)


def logged(workdir):
  """Lines in the metrics.jsonl of all runs: how far the study is."""
  logs = pathlib.Path(workdir).glob("runs/*/metrics.jsonl")
  return sum(log.read_text().count("\n") for log in logs)


def test_killed_ten_times(config, undisturbed, tmp_path):
  """SIGKILL wherever it happens to be, from its imports to its last run."""
  files, whole = undisturbed
  rng = np.random.default_rng(0)
  # Two at any moment of the start, eight over the whole of the work.
  moments = [(0, 8.0)] * 2 + [
    (int(step), 1.0) for step in np.sort(rng.integers(1, 0.95 * whole, 8))
  ]
  for step, spread in moments:
    process = start("run", config, tmp_path)
    while logged(tmp_path) < step:
      assert process.poll() is None
      time.sleep(0.05)
    time.sleep(rng.uniform(0, spread))
    assert process.poll() is None
    process.kill()
    process.communicate()
    print(f"killed at {logged(tmp_path)} of {whole} records")
  finish("run", config, tmp_path)
  assert report(config, tmp_path) == files


def test_sigterm_saves_and_another_goes_on(config, undisturbed, tmp_path):
  process = start("run", config, tmp_path)
  while logged(tmp_path) < 3:
    assert process.poll() is None
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert "SIGTERM: saved checkpoint" in output
  finish("run", config, tmp_path)
  assert report(config, tmp_path) == undisturbed[0]


def test_two_processes_share_the_work(config, undisturbed, tmp_path):
  workers = [start("run", config, tmp_path) for _ in range(2)]
  outputs = [w.communicate(timeout=900)[0] for w in workers]
  assert [w.returncode for w in workers] == [0, 0], outputs
  assert "".join(outputs).count(" done in ") == 4
  assert all(" done in " in output for output in outputs)
  assert report(config, tmp_path) == undisturbed[0]
