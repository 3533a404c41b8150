"""Workers: every run once, failures kept, changes noticed; with a stub."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import time

import pytest
import study_helpers
from PIL import Image

from big_crop import pack, together
from big_crop.data import packed
from big_crop.runtime import stop
from big_crop.study import fingerprint, grid, reach, runs, worker
from big_crop.study.__main__ import main
from pp_ops.errors import UserError

_dataset = fingerprint._dataset


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  study_helpers.make_quick(monkeypatch)


@pytest.fixture
def study(tmp_path):
  return grid.load(study_helpers.write_study(tmp_path))


def statuses(study, workdir):
  return [s.status() for s in runs.states(study, workdir)]


def test_runs_in_order_and_never_twice(study, tmp_path, capsys):
  trained = []

  def train(config, workdir):
    trained.append(pathlib.Path(workdir).name)
    study_helpers.train(config, workdir)

  workdir = str(tmp_path / "w")
  assert worker.work(study, workdir, train) == 0
  assert trained == [r.name for r in study.runs]
  assert statuses(study, workdir) == ["done"] * 24
  assert worker.work(study, workdir, train) == 0
  assert len(trained) == 24
  error = capsys.readouterr().err
  assert "study: 24 of 24 runs: 100%" in error
  assert f"run 3 ({study.runs[3].name}) begins" in error


def test_index(study, tmp_path):
  workdir = str(tmp_path / "w")
  assert worker.work(study, workdir, study_helpers.train, index=3) == 0
  assert statuses(study, workdir).index("done") == 3
  assert statuses(study, workdir).count("done") == 1
  assert worker.work(study, workdir, study_helpers.train, index=3) == 0
  with pytest.raises(ValueError, match="0 to 23"):
    worker.work(study, workdir, study_helpers.train, index=24)
  other = runs.states(study, workdir)[5]
  assert other.lock.acquire()
  assert statuses(study, workdir)[5] == "running"
  assert worker.work(study, workdir, study_helpers.train, index=5) == 1
  other.lock.release()


def test_a_failure_is_kept_and_stops_nobody(study, tmp_path, capsys):
  workdir = str(tmp_path / "w")

  def train(config, workdir):
    if "seed=1" in workdir and "epochs=20" in workdir:
      raise UserError("the loss is nan\nat step 3")
    if workdir.endswith("area_min=5,epochs=10,seed=2"):
      raise RuntimeError("out of memory")
    study_helpers.train(config, workdir)

  assert worker.work(study, workdir, train) == 1
  found = statuses(study, workdir)
  assert (found.count("failed"), found.count("done")) == (6, 18)
  failure = runs.states(study, workdir)[2].failure
  assert failure["error"] == "RuntimeError: out of memory"
  assert "Traceback" in failure["traceback"]
  assert runs.states(study, workdir)[4].failure["error"] == (
    "the loss is nan at step 3"
  )
  # A failed run is not tried again, but reported again, also with --index.
  assert worker.work(study, workdir, study_helpers.train) == 1
  assert worker.work(study, workdir, study_helpers.train, index=4) == 1
  assert statuses(study, workdir).count("failed") == 6
  assert "failed: the loss is nan at step 3" in capsys.readouterr().err
  args = {"retry_failed": True}
  assert worker.work(study, workdir, study_helpers.train, **args) == 0
  assert statuses(study, workdir) == ["done"] * 24


def test_sigterm_stops_after_the_run(study, tmp_path, monkeypatch):
  workdir, asked = str(tmp_path / "w"), []

  def train(config, workdir):
    asked.append(workdir)  # like train.run, which saves and writes no summary

  monkeypatch.setattr(stop, "requested", lambda: bool(asked))
  assert worker.work(study, workdir, train) == 0
  assert len(asked) == 1
  assert statuses(study, workdir) == ["pending"] * 24
  asked.clear()
  assert worker.work(study, workdir, train, index=0) == 0


def test_an_interrupt_is_no_failure(study, tmp_path):
  def train(config, workdir):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    worker.work(study, str(tmp_path / "w"), train)
  assert statuses(study, str(tmp_path / "w")) == ["pending"] * 24


_WORKER = """
import os, sys, time
sys.path.insert(0, {tests!r})
import study_helpers
from big_crop.study import fingerprint, grid, worker

fingerprint._dataset = lambda *place: str(place)

def train(config, workdir):
  with open(sys.argv[2] + "/log", "a") as f:
    f.write(f"{{os.getpid()}} {{workdir.rpartition('/')[2]}}\\n")
  time.sleep(0.05)
  study_helpers.train(config, workdir)

sys.exit(worker.work(grid.load(sys.argv[1]), sys.argv[2], train))
"""


@pytest.mark.long
def test_processes_share_the_work(study, tmp_path):
  """Three workers, of which one is killed early and replaced.

  Each run is done at least once, and only the dead worker's run twice.
  """
  workdir = tmp_path / "w"
  workdir.mkdir()
  code = textwrap.dedent(_WORKER).format(
    tests=str(study_helpers.ROOT / "tests")
  )
  command = [sys.executable, "-c", code, str(study.path), str(workdir)]
  env = {**os.environ, "PYTHONPATH": str(study_helpers.ROOT)}
  start = lambda: subprocess.Popen(command, env=env)
  workers = [start() for _ in range(3)]
  log = workdir / "log"
  while not log.exists() or log.read_text().count("\n") < 6:
    time.sleep(0.01)
  dead = workers[0]
  dead.kill()
  dead.wait()
  workers.append(start())
  assert [w.wait(60) for w in workers[1:]] == [0, 0, 0]
  # The dead worker's run, which the others had already passed.
  last = start()
  assert last.wait(60) == 0
  assert statuses(study, str(workdir)) == ["done"] * 24
  lines = [line.split() for line in log.read_text().splitlines()]
  assert len({pid for pid, _ in lines}) >= 3
  by_living = [name for pid, name in lines if int(pid) != dead.pid]
  assert len(set(by_living)) == len(by_living)
  twice = len(lines) - len({name for _, name in lines})
  assert twice <= 1


class Changed:
  """A half-done study, in which a test then changes something."""

  def __init__(self, tmp_path):
    self.folder, self.workdir = tmp_path, str(tmp_path / "w")
    self.path = study_helpers.write_study(tmp_path)
    study = grid.load(self.path)
    for index in (0, 1):
      worker.work(study, self.workdir, study_helpers.train, index=index)

  def check(self):
    runs.check_unchanged(runs.states(grid.load(self.path), self.workdir))


@pytest.fixture
def changed(tmp_path):
  return Changed(tmp_path)


def test_nothing_changed(changed):
  changed.check()


def test_levels_seeds_and_what_is_not_begun_may_change(changed):
  study_helpers.write_study(
    changed.folder,
    "c.seeds = [5, 0, 1]; c.sets[0]['area_min'] = [2, 5]; "
    "c.overrides = ['--config.ckpt_steps=7']",
  )
  changed.check()
  study = grid.load(changed.path)
  found = statuses(study, changed.workdir)
  assert found.count("done") == 2
  # Runs are known by their factors, not by their index.
  assert [r.index for r in study.runs if found[r.index] == "done"] != [0, 1]


@pytest.mark.long
def test_a_changed_config_is_refused(changed, capsys):
  study_helpers.write_study(changed.folder, "c.overrides = ['--config.lr=0.5']")
  with pytest.raises(ValueError, match=r"config\.lr is 0.001 there and 0.5"):
    changed.check()
  arguments = ["--config", changed.path, "--workdir", changed.workdir]
  with pytest.raises(ValueError, match=r"config\.lr is 0.001 there and 0.5"):
    main(["report", *arguments])
  assert main(["report", *arguments, "--allow_mixed"]) == 0
  page = pathlib.Path(changed.workdir, "report", "index.html").read_text()
  assert "Mixed: 2 of 2 finished runs have another config" in page


def test_changed_code_is_refused(changed, monkeypatch):
  digests = reach.digests
  edit = lambda config: {**digests(config), "big_crop.step": "edited"}
  monkeypatch.setattr(reach, "digests", edit)
  named = r"code changed.*edited: big_crop\.step;"
  with pytest.raises(ValueError, match=named) as e:
    changed.check()
  assert "\n" not in str(e.value)
  # Runs finished under two versions of the code, which reports do not mix.
  study = grid.load(changed.path)
  worker.work(study, changed.workdir, study_helpers.train, index=2)
  arguments = ["--config", changed.path, "--workdir", changed.workdir]
  named = r"code changed between finished runs: big_crop\.step;"
  with pytest.raises(ValueError, match=named):
    main(["report", *arguments])


def test_a_changed_library_is_named(changed, monkeypatch):
  now = {**fingerprint.versions(), "jax": "9.9"}
  monkeypatch.setattr(fingerprint, "versions", lambda: now)
  with pytest.raises(ValueError, match=r"code changed.*jax .* -> 9\.9"):
    changed.check()


def test_changed_data_are_refused(changed, monkeypatch):
  monkeypatch.setattr(fingerprint, "_dataset", lambda *place: "other")
  with pytest.raises(ValueError, match="data changed"):
    changed.check()


def test_what_is_digested(tmp_path, monkeypatch):
  monkeypatch.setattr(fingerprint, "_dataset", _dataset)
  study = grid.load(study_helpers.write_study(tmp_path))
  config = study.runs[0].json_config
  code, data = fingerprint.of_code(config), fingerprint.of_data(config)
  (tmp_path / "my_ops.py").write_text("an_op = 1\n")
  reach._file.cache_clear()
  reach._read.cache_clear()
  monkeypatch.syspath_prepend(str(tmp_path))
  with_module = {**config, "pp_modules": ["my_ops"]}
  assert fingerprint.of_code(with_module) != code
  first = fingerprint.of_code(with_module)
  (tmp_path / "my_ops.py").write_text("an_op = 2\n")
  reach._read.cache_clear()
  assert fingerprint.of_code(with_module) != first
  images = tmp_path / "images" / "a"
  images.mkdir(parents=True)
  (images / "1.png").write_bytes(b"1")
  where = {"name": "folder", "data_dir": str(tmp_path / "images")}
  folder = {**config, "input": {"data": where}}
  before = fingerprint.of_data(folder)
  assert before != data
  (images / "2.png").write_bytes(b"2")
  fingerprint._dataset.cache_clear()
  assert fingerprint.of_data(folder) != before


def test_packed_data_are_told_apart_by_content(tmp_path, monkeypatch):
  """Two packed datasets in which only a checksum of the pixels differs."""
  monkeypatch.setattr(fingerprint, "_dataset", _dataset)
  fingerprint._dataset.cache_clear()
  monkeypatch.chdir(tmp_path)
  os.makedirs("images/train/a")
  Image.new("L", (8, 8), 1).save("images/train/a/1.png")
  pack.pack("images", "one", 8)
  index = pathlib.Path("one/index.json").read_bytes()

  def with_checksum(checksum):
    changed = json.loads(index)
    changed["splits"]["train"]["images_crc32"] = [checksum]
    return packed.dump_index(changed)

  # Of equal length, or else the size would tell the datasets apart.
  texts = map(with_checksum, range(1_000_000_000, 1_000_000_999))
  other = next(t for t in texts if len(t) == len(index))
  shutil.copytree("one", "copy")
  shutil.copytree("one", "other")
  pathlib.Path("other/index.json").write_bytes(other)

  def digest(name):
    data = {"name": "folder", "data_dir": name}
    return fingerprint.of_data({"input": {"data": data}})

  assert digest("one") == digest("copy") != digest("other")
  pathlib.Path("copy/index.json").write_text("{}")
  fingerprint._dataset.cache_clear()
  with pytest.raises(UserError, match=r"index\.json is damaged"):
    digest("copy")


def test_list(study, tmp_path, capsys):
  workdir = str(tmp_path / "w")
  worker.work(study, workdir, study_helpers.train, index=1)
  (tmp_path / "w/runs" / study.runs[2].name).mkdir()
  runs.states(study, workdir)[2].fail(UserError("no luck"))
  assert main(["list", "--config", str(study.path), "--workdir", workdir]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 25
  assert lines[1].split()[:3] == ["0", "pending", "-"]
  assert lines[2].split()[:3] == ["1", "done", "0.5900"]
  assert lines[3].endswith("(no luck)")
  wrong = study.path.with_name("wrong.py")
  wrong.write_text(study.path.read_text().replace("dict(crop=[", "dict(crp=["))
  with pytest.raises(UserError, match="did you mean 'crop'"):
    main(["list", "--config", str(wrong), "--workdir", workdir])


def test_a_torn_json_is_nobodys_summary(study, tmp_path):
  """A summary is written whole or not at all; temporary files don't count."""
  state = runs.states(study, str(tmp_path / "w"))[0]
  state.begin()
  (state.path / ".summary.json.tmp").write_text('{"metr')
  assert state.status() == "pending"
  assert json.loads((state.path / "begun.json").read_text())["code"]


def test_jobs_are_processes_of_the_same_command(study, tmp_path, monkeypatch):
  monkeypatch.setenv("PYTHONPATH", str(study_helpers.ROOT))
  argv = ["list", "--config", str(study.path), "--workdir", str(tmp_path)]
  assert worker.start_jobs(2, argv) == 0
  assert worker.start_jobs(2, [*argv, "--indx", "1"]) == 2


def test_only_pending_runs_train_together(study, tmp_path, monkeypatch):
  workdir = str(tmp_path / "w")
  sizes = []

  def run(configs, paths):
    sizes.append(len(paths))
    for config, path in zip(configs, paths, strict=True):
      study_helpers.train(config, path)
    return [None] * len(paths)

  monkeypatch.setattr(together, "run", run)
  monkeypatch.setattr(together, "difference", lambda *_: None)
  for index in range(4):
    worker.work(study, workdir, study_helpers.train, index=index)
  assert worker.work(study, workdir, study_helpers.train, together=5) == 0
  assert sizes == [5, 5, 5, 5]
  assert statuses(study, workdir) == ["done"] * 24


def test_runs_that_must_be_apart_are(study, tmp_path, monkeypatch):
  def refuse(configs, paths):
    raise together.ApartError("other shapes")

  monkeypatch.setattr(together, "run", refuse)
  monkeypatch.setattr(together, "difference", lambda *_: None)
  workdir = str(tmp_path / "w")
  assert worker.work(study, workdir, study_helpers.train, together=3) == 0
  assert statuses(study, workdir) == ["done"] * 24
