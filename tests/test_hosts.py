"""Several processes on this machine train as one; faults lose nothing."""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import time

import pytest

from big_crop import config as configs
from big_crop import train as trainer
from big_crop.data import critters
from big_crop.runtime import checkpoint, hosts

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = """
from big_crop.config import default_config

def get_config(arg=None):
  model, steps = arg.split(",")
  c = default_config()
  data = {{"name": "folder", "data_dir": {folder!r}}}
  c.total_steps = int(steps)
  c.input.data = {{**data, "split": "train"}}
  c.input.pp = "decode_jpeg_and_inception_crop_fixed(16)|value_range(-1, 1)"
  c.input.batch_size = 16
  c.mixup.p = 0.2
  c.model_name = model
  c.model = dict(width=16, depth=1, num_heads=2, patch_size=(8, 8))
  if model == "resnet":
    c.model = dict(variant=18, width=8, small_stem=True, zero_init_last=True)
  kind = "classification"
  if model == "toy":  # an objective of the user's own
    kind = c.objective_name = "toy_objective"
    c.model_name, c.model, c.mixup.p = "vit", {{}}, 0.0
    c.input.pp = 'decode|copy("image", "image2")|' + '|'.join(
      f'inception_crop_fixed(16, key="{{k}}")|value_range(-1, 1, key="{{k}}")'
      for k in ("image", "image2")
    )
  c.evals.val = dict(
    type=kind,
    data={{**data, "split": "validation"}},
    pp_fn="decode|resize(16)|value_range(-1, 1)",
    batch_size=8, log_percent=0.5,
  )
  c.log_training_steps = max(1, c.total_steps // 40)
  c.ckpt_steps = max(2, min(c.total_steps // 4, 300))
  return c
"""
FSDP = "--config.sharding_strategy=[('.*', 'fsdp(min_size_to_shard_mb=0)')]"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """A config file over 77 images in class folders."""
  root = tmp_path_factory.mktemp("hosts")
  examples = zip(*critters.generate("train", 0, 77), strict=True)
  for i, (data, label) in enumerate(examples):
    path = root / "images" / f"class_{label % 4}" / f"{i}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  path = root / "config.py"
  path.write_text(CONFIG.format(folder=str(root / "images")))
  return path


class Hosts:
  """Processes that train together."""

  def __init__(self, commands, num, devices, config, workdir, *overrides):
    with socket.socket() as s:
      s.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{s.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = {
      # The last one counts; the others make compilation quick.
      "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}",
      "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    self.logs = [pathlib.Path(f"{workdir}.{i}.log") for i in range(num)]
    self.processes = []
    for i, log in enumerate(self.logs):
      argv = ["--config", config, "--workdir", workdir, *overrides]
      if num > 1:
        argv += ["--coordinator_address", address, "--num_processes", num]
        argv += ["--process_id", i]
      self.processes.append(
        commands.start("big_crop.train", *argv, out=log, env=env)
      )

  def wait(self, timeout=900):
    """The exit statuses."""
    try:
      return [p.wait(timeout) for p in self.processes]
    finally:
      for p in self.processes:
        p.kill()

  def wait_for(self, text):
    """Waits until the first process has printed the text."""
    while text not in self.logs[0].read_text():
      assert self.processes[0].poll() is None, self.logs[0].read_text()
      time.sleep(0.1)


def train(*args):
  """Trains to the end; the losses, the val metrics and the summary."""
  running = Hosts(*args)
  assert set(running.wait()) == {0}, running.logs[0].read_text()
  return read(args[4])


def read(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  records = [json.loads(line) for line in lines]
  losses = [r["training_loss"] for r in records]
  val = [
    {k: v for k, v in r.items() if k.startswith("val/")}
    for r in records
    if "val/top1" in r
  ]
  return losses, val, json.loads((workdir / "summary.json").read_text())


def stop_at(text, signum, *args):
  """Signals the last process once text is printed; returns the step saved."""
  running = Hosts(*args)
  running.wait_for(text)
  running.processes[-1].send_signal(signum)
  mine = 130 if signum == signal.SIGINT else 0
  others = [0] * (len(running.processes) - 1)
  assert running.wait() == [*others, mine], running.logs[0].read_text()
  return max(int(p.name) for p in (args[-1] / "checkpoints").iterdir())


@pytest.mark.parametrize(
  "early",
  [
    pytest.param(False, marks=pytest.mark.long),
    pytest.param(True, marks=pytest.mark.slow),
  ],
)
def test_two_hosts_stop_at_one_step_and_go_on_as_if_nothing_happened(
  early, commands, config, tmp_path
):
  spec = f"{config}:vit,40"
  run = commands, 2, 2, spec, tmp_path / "run"
  step = stop_at("step 1/", signal.SIGINT, *run)
  assert 0 < step < 40
  folder = tmp_path / "run" / "checkpoints"
  if early:
    # A signal before the first step of a resumed run is not lost either.
    resumed = stop_at("going on from", signal.SIGTERM, *run)
    assert step < resumed <= step + 2
    assert not (tmp_path / "run" / "summary.json").exists()
    # All hosts go on from the newest step that the first host finds whole. Only
    # the first host reports the damage.
    file = "state/ocdbt.process_1/manifest.ocdbt"
    (folder / str(resumed) / file).unlink()
  losses, val, summary = train(*run)
  logs = [(tmp_path / f"run.{i}.log").read_text() for i in range(2)]
  if early:
    said = f"checkpoint {folder / str(resumed)} is damaged: {file} is missing"
    assert [log.count(said) for log in logs] == [1, 0]
  assert f"going on from checkpoint {folder / str(step)}\n" in logs[0]
  assert len(losses) == 40 and sum(losses[-5:]) < sum(losses[:5])
  assert summary["step"] == 40
  # One file for each start, because only the first host writes.
  names = [p.name for p in (tmp_path / "run").iterdir()]
  starts = 2 + early
  assert len([n for n in names if n.startswith("events")]) == starts
  # One process, this one, restores the checkpoint and evaluates.
  again = trainer.run(configs.load(spec), tmp_path / "run")
  assert again["params_sha256"] == summary["params_sha256"]
  assert val[-1]["val/count"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit", "resnet"])
@pytest.mark.parametrize(("num", "devices"), [(2, 4), (4, 2)])
def test_hosts_count_as_one_process_does(
  num, devices, model, commands, config, tmp_path
):
  spec = f"{config}:{model},6"
  losses, val, summary = train(commands, num, devices, spec, tmp_path / "run")
  assert len(losses) == 6 and all(0 < loss < 10 for loss in losses)
  names = [p.name for p in (tmp_path / "run").iterdir()]
  assert len([n for n in names if n.startswith("events")]) == 1
  # This process, on the same checkpoint.
  parts = trainer.build(configs.load(spec))
  variables = checkpoint.load_variables(tmp_path / "run")
  alone = parts.evals["val"][0].run(variables)
  assert summary["step"] == 6 and alone["count"] == val[-1]["val/count"] == 7
  for key in ("top1", "top5"):
    assert alone[key] == val[-1][f"val/{key}"]
  assert alone["loss"] == pytest.approx(val[-1]["val/loss"], rel=1e-5)


@pytest.mark.slow
def test_an_own_objective_with_a_queue_resumes_on_two_hosts(
  commands, config, tmp_path
):
  spec = f"{config}:toy,800"
  rules = "--config.sharding_strategy=[('extra/queue', '{}')]".format(
    "fsdp(min_size_to_shard_mb=0)"
  )
  whole = train(commands, 2, 2, spec, tmp_path / "whole", rules)
  assert 0 < whole[2]["metrics"]["val/spread"] <= 1
  running = Hosts(commands, 2, 2, spec, tmp_path / "run", rules)
  running.wait_for("step 20/")
  running.processes[-1].send_signal(signal.SIGTERM)
  assert running.wait() == [0, 0], running.logs[0].read_text()
  assert not (tmp_path / "run" / "summary.json").exists()
  again = train(commands, 2, 2, spec, tmp_path / "run", rules)
  assert again[2]["params_sha256"] == whole[2]["params_sha256"]
  assert again[0] == whole[0]


@pytest.mark.slow
def test_a_checkpoint_restores_on_other_hosts_and_shardings(
  commands, config, tmp_path
):
  spec = f"{config}:vit,4"
  _, _, first = train(commands, 1, 8, spec, tmp_path / "run")
  sizes = {}
  for n, d in [(2, 4), (2, 2)]:
    for strategy in [(), (FSDP,)]:
      workdir = tmp_path / f"{n}x{d}{len(strategy)}"
      shutil.copytree(tmp_path / "run", workdir)
      # The run is already finished, so its summary is of the restored state.
      _, _, summary = train(commands, n, d, spec, workdir, *strategy)
      assert summary["params_sha256"] == first["params_sha256"]
      sizes[n * d, len(strategy)] = summary["state_bytes_per_device"]
      shutil.rmtree(workdir / "checkpoints" / "4")
      losses, _, summary = train(commands, n, d, spec, workdir, *strategy)
      assert len(losses) == 4 and summary["step"] == 4
  assert sizes[8, 1] < 1.3 / 8 * sizes[8, 0]


@pytest.mark.slow
def test_twenty_faults_lose_nothing(commands, config, tmp_path):
  spec = f"{config}:vit,12000"
  expected = train(commands, 2, 1, spec, tmp_path / "undisturbed")
  rng = random.Random(0)
  workdir = tmp_path / "run"
  for fault in range(20):
    running = Hosts(commands, 2, 1, spec, workdir)
    # While it compiles, or while it trains. Not earlier, because a host that
    # dies before the hosts have met is only noticed after JAX's five minutes.
    running.wait_for(rng.choice(["of train state on each", "  loss "]))
    time.sleep(rng.uniform(0, 10))
    victim = rng.randrange(2)
    sent = rng.choice([signal.SIGTERM, signal.SIGKILL])
    running.processes[victim].send_signal(sent)
    statuses = running.wait(timeout=300)
    print(fault, sent.name, statuses, checkpoint.latest_step(workdir))
    if sent == signal.SIGTERM:
      assert statuses == [0, 0]
    else:
      assert statuses[victim] == -sent and statuses[1 - victim] != 0
    # Fails if the SIGTERM was lost, or if the machine needs over 12,000 steps.
    assert not (workdir / "summary.json").exists()
  losses, val, summary = train(commands, 2, 1, spec, workdir)
  assert summary["params_sha256"] == expected[2]["params_sha256"]
  assert (losses, val) == expected[:2]


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (("127.0.0.1:1", None, 0), "--num_processes is missing"),
    ((None, None, 1), "--coordinator_address is missing"),
    (("127.0.0.1:1", 2, 2), "--process_id 2 must be from 0 to"),
  ],
)
def test_bad_flags_get_one_line(args, message):
  with pytest.raises(ValueError, match=message):
    hosts.initialize(*args)
