"""Ctrl-C at any moment: one line, status 130, and nothing is lost."""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from big_crop import pack
from big_crop.data import critters
from big_crop.runtime import stop

ROOT = pathlib.Path(__file__).parents[1]
LAST = re.compile(r"stopped by Ctrl-C(; the same command goes on)?$")
SAVED = re.compile(r"Ctrl-C: saved checkpoint")
NOTICE = "Ctrl-C: stopping after this step; again to end at once"
# Seed of the random moments.
SEED = int(os.environ.get("INTERRUPTS_SEED", "0"))


class Command:
  """A command in a session of its own, so that no process of it is missed."""

  def __init__(self, log, *command):
    flags = "--xla_force_host_platform_device_count=1"
    env = {
      **os.environ,
      "PYTHONPATH": f"{ROOT}",
      # The last one counts; the others make compilation quick.
      "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}",
    }
    self.log, self._before = pathlib.Path(log), None
    self.process = subprocess.Popen(
      [sys.executable, *map(str, command)],
      cwd=ROOT,
      env=env,
      stdout=self.log.open("w"),
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )

  def wait_for(self, text, count=1):
    deadline = time.time() + 300
    while self.log.read_text().count(text) < count:
      assert self.process.poll() is None, self.log.read_text()
      assert time.time() < deadline, self.log.read_text()
      time.sleep(0.02)

  def wait_until_it_listens(self):
    """Waits until `stop.listen` has started its thread."""
    while len(os.listdir(f"/proc/{self.process.pid}/task")) < 2:
      time.sleep(0.01)

  def send(self, signum=signal.SIGINT, group=False):
    """Signals the whole group, as a terminal does, or the one process."""
    if self._before is None:
      self._before = len(self.log.read_text())
    (os.killpg if group else os.kill)(self.process.pid, signum)

  def end(self, timeout=300):
    """Waits for all processes; the status, and the lines since the signal."""
    try:
      status = self.process.wait(timeout)
      deadline = time.time() + 10
      while (left := self._left()) and time.time() < deadline:
        time.sleep(0.05)
      assert not left, self.log.read_text()
    finally:
      for pid in self._left():
        os.kill(pid, signal.SIGKILL)
      self.process.wait()
    text = self.log.read_text()
    assert "Traceback" not in text, text
    return status, text[self._before :].splitlines()

  def _left(self):
    """The living processes of the session."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
      try:
        fields = path.read_text().rpartition(")")[2].split()
      except OSError:
        continue
      if int(fields[3]) == self.process.pid and fields[0] != "Z":
        found.append(int(path.parent.name))
    return found


def interrupted(command, last=LAST, **kwargs):
  """Checks how a command ends; returns whether it said why it waited."""
  return check_lines(command, *command.end(**kwargs), last)


def check_lines(command, status, lines, last):
  assert status == stop.STATUS, command.log.read_text()
  mine = [line for line in lines if "Ctrl-C" in line]
  waited = NOTICE in mine
  assert len(mine) == 1 + waited, command.log.read_text()
  assert last.search(mine[-1])
  return waited


HEAD = """
import os, sys, time
from big_crop.runtime import stop
stop.listen(goes_on=True, sigterm=True)
from big_crop.runtime import commands
def say(text):  # in one piece: an unbuffered print writes the end of line apart
  os.write(1, f"{text}\\n".encode())
def work(seconds):
  stop.hold()
  say("ready")
  while not stop.requested():
    time.sleep(0.01)
  time.sleep(seconds)
  stop.tell("saved checkpoint 3")
  say("saved")
with commands.one_line():
"""


def script(tmp_path, body, name="script"):
  path = tmp_path / f"{name}.py"
  path.write_text(HEAD + "".join(f"  {line}\n" for line in body.splitlines()))
  return Command(tmp_path / f"{name}.log", path)


def test_what_cannot_be_saved_ends_at_once(tmp_path):
  """Even while the main thread is in a call that does not return to Python."""
  command = script(tmp_path, "say('ready')\ntime.sleep(600)")
  command.wait_for("ready")
  command.send()
  assert not interrupted(command, timeout=10)


def test_what_can_be_saved_is(tmp_path):
  quick = script(tmp_path, "work(0)")
  slow = script(tmp_path, "work(1.2)", "slow")
  for command in (quick, slow):
    command.wait_for("ready")
    command.send()
  interrupted(quick, SAVED)
  assert interrupted(slow, SAVED)


def test_the_second_one_ends_at_once(tmp_path):
  command = script(tmp_path, "work(600)")
  command.wait_for("ready")
  command.send()
  command.wait_for(NOTICE)
  command.send()
  assert interrupted(command, timeout=10)


def test_a_sigterm_keeps_its_status(tmp_path):
  command = script(tmp_path, "work(0)")
  command.wait_for("ready")
  command.send(signal.SIGTERM)
  assert command.end() == (0, ["SIGTERM: saved checkpoint 3", "saved"])


def test_a_reader_that_ended_gets_no_traceback():
  """As in `python -m big_crop.study list ... | head`."""
  body = "with commands.one_line():\n  print('x' * 10**6)"
  code = f"from big_crop.runtime import commands\n{body}"
  with subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
  ) as command:
    command.stdout.close()
    assert command.stderr.read() == b""
  assert command.returncode == 128 + signal.SIGPIPE


CHILDREN = """
if sys.argv[1:]:
  work({seconds})
else:
  for _ in range(2):
    stop.start([sys.executable, __file__, "child"])
  say("started")
  sys.exit(max(map(abs, stop.wait())))
"""


def children(tmp_path, seconds=0):
  return script(tmp_path, CHILDREN.strip().format(seconds=seconds))


@pytest.mark.parametrize("group", [False, True])
def test_children_stop_with_their_parent(tmp_path, group):
  command = children(tmp_path, 0.5)
  command.wait_for("ready", 2)
  command.send(group=group)
  status, lines = command.end()
  assert status == stop.STATUS
  assert lines == ["saved"] * 2 + [
    "stopped by Ctrl-C; the same command goes on"
  ]


def test_children_end_at_once_with_their_parent(tmp_path):
  command = children(tmp_path, 600)
  command.wait_for("ready", 2)
  command.send()
  command.wait_for(NOTICE)
  command.send()
  interrupted(command, timeout=10)


def test_children_get_a_sigterm_before_they_listen(tmp_path):
  command = children(tmp_path)
  command.wait_for("started")
  command.send(signal.SIGTERM)
  status, lines = command.end()
  assert status == 0
  assert lines.count("SIGTERM: saved checkpoint 3") == 2


def test_children_notice_that_their_parent_is_gone(tmp_path):
  command = children(tmp_path)
  command.wait_for("ready", 2)
  command.send(signal.SIGKILL)
  assert command.end() == (-signal.SIGKILL, ["saved"] * 2)


MEASURE = ("-m", "big_crop.measure", "--crop", "inception_crop_fixed")
MEASURE += ("--image_shape", "500x333", "--out")
MATCH = ("-m", "big_crop.match", "--target", "inception_crop(area_min=5)")
MATCH += ("--family", "inception_crop_fixed", "--solve", "area_min")
MATCH += ("--image_shape", "375x500")


PACK = ("-m", "big_crop.pack", "--res", "24", "--data", "images", "--out")


@pytest.mark.parametrize(
  ("command", "line"),
  [
    ((*MEASURE, "out", "--samples", "1e9"), "stopped by Ctrl-C"),
    ((*PACK, "out"), "stopped by Ctrl-C; the same command goes on"),
  ],
)
def test_a_command_ends_while_its_threads_work(tmp_path, command, line):
  examples = tmp_path / "images" / "train" / "a"
  examples.mkdir(parents=True)
  Image.effect_noise((800, 800), 50).save(tmp_path / "a.jpg")
  for i in range(3000):  # half a minute's work
    os.link(tmp_path / "a.jpg", examples / f"{i}.jpg")
  places = {x: tmp_path / x for x in ("images", "out")}
  command = [places.get(x, x) for x in command]
  early = Command(tmp_path / "early.log", *command)
  early.wait_until_it_listens()  # and imports
  early.send()
  interrupted(early, timeout=10)
  command = Command(tmp_path / "log", *command)
  command.wait_for("/s]")  # of a bar
  command.send()
  interrupted(command, timeout=10)
  assert command.log.read_text().splitlines()[-1] == line
  assert not list(tmp_path.glob("out/*.json"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  """A folder of 320 images to train on, and 40 for validation."""
  folder = tmp_path_factory.mktemp("data") / "images"
  examples = zip(*critters.generate("train", 0, 360), strict=True)
  for i, (content, label) in enumerate(examples):
    path = (
      folder / ("train" if i < 320 else "val") / f"{label % 4}" / f"{i}.jpg"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return folder


@pytest.fixture(scope="module")
def data(images):
  """Packed, so that a run starts quickly: it loads no TensorFlow."""
  out = images.parent / "packed"
  pack.pack(str(images), str(out), 24)
  return out


SIZES = ["model.width=16", "model.depth=1", "model.mlp_dim=32"]
SIZES += ["model.num_heads=2", "log_training_steps=20", "ckpt_steps=100"]
OVERRIDES = [f"--config.{x}" for x in SIZES]


def train(workdir, data, *more):
  """500 steps, on tf.data unless `data` are packed."""
  engine = "device" if data.name == "packed" else "tf.data"
  spec = f"{ROOT / 'configs/quickstart.py'}:data={data},engine={engine}"
  return Command(
    f"{workdir}.log",
    *("-m", "big_crop.train", "--workdir", workdir, *OVERRIDES, *more),
    *("--config", f"{spec},res=16,batch=32,epochs=50"),
  )


def digest(workdir):
  summary = json.loads((workdir / "summary.json").read_text())
  return summary["params_sha256"]


def finished(command):
  status, _ = command.end(timeout=900)
  assert status == 0, command.log.read_text()


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("undisturbed") / "run"
  finished(train(workdir, data))
  return digest(workdir)


@pytest.mark.slow
def test_train_stops_well_and_goes_on(data, undisturbed, tmp_path):
  workdir = tmp_path / "run"
  command = train(workdir, data)
  command.wait_until_it_listens()
  time.sleep(1)  # now it imports
  command.send()
  interrupted(command, timeout=20)
  assert not workdir.exists()
  command = train(workdir, data)
  command.wait_for("of train state on each")  # then it compiles
  command.send()
  status, _ = command.end()
  assert status == stop.STATUS
  command = train(workdir, data)
  command.wait_for("step 20/")
  command.send()
  interrupted(command, SAVED)
  step = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
  assert 20 <= step < 500
  command = train(workdir, data)
  command.wait_for("going on from checkpoint")
  command.wait_for("  loss ")
  command.send()
  time.sleep(0.05)
  command.send()  # while it saves, or when it has
  status, _ = command.end(timeout=20)
  assert status == stop.STATUS
  finished(train(workdir, data))
  assert digest(workdir) == undisturbed


STUDY = """
from big_crop.study.grid import default_study

def get_config(arg=None):
  c = default_study()
  c.base = {base!r}
  c.arguments.update(data={data!r}, engine="device", res=16, batch=32)
  c.arguments.update(epochs=25)
  c.sets = [dict(crop="inception_crop_fixed")]
  c.seeds = [0, 1]
  c.overrides = {overrides!r}
  return c
"""


@pytest.fixture(scope="module")
def study(data, tmp_path_factory):
  """Two runs."""
  path = tmp_path_factory.mktemp("study") / "study.py"
  base = str(ROOT / "configs/quickstart.py")
  text = STUDY.format(base=base, data=str(data), overrides=OVERRIDES)
  path.write_text(text)
  return path


def run_study(study, workdir, *more):
  return Command(
    f"{workdir}.log",
    *("-m", "big_crop.study", "run", "--config", study, "--workdir", workdir),
    *more,
  )


def digests(workdir):
  runs = sorted((workdir / "runs").iterdir())
  return {run.name: digest(run) for run in runs}


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True])
def test_a_study_stops_all_its_workers(study, tmp_path, group):
  command = run_study(study, tmp_path / "w", "--jobs", "2")
  command.wait_for("of train state on each", 2)
  command.send(group=group)
  interrupted(command, timeout=60)


@pytest.mark.slow
def test_runs_together_stop_at_one_step(study, tmp_path):
  command = run_study(study, tmp_path / "w", "--together", "2")
  command.wait_for("  loss ")
  command.send()
  interrupted(command, re.compile("Ctrl-C: saved checkpoints of step"))
  saved = [
    {int(p.name) for p in run.iterdir()}
    for run in (tmp_path / "w" / "runs").glob("*/checkpoints")
  ]
  assert len(saved) == 2 and set.intersection(*saved)


def storm(start, workdir, found, last=LAST):
  """Twenty Ctrl-Cs at random moments do not change the final result."""
  rng = random.Random(SEED)
  began = time.time()
  finished(start())
  whole, expected = time.time() - began, found()
  shutil.rmtree(workdir, ignore_errors=True)
  hits = late = 0
  while hits < 20 and late < 5:
    command = start()
    command.wait_until_it_listens()
    group, twice = rng.random() < 0.5, rng.random() < 0.25
    # Half of them early, while the command starts.
    longest = rng.choice([whole / 4, whole])
    with contextlib.suppress(subprocess.TimeoutExpired):
      command.process.wait(rng.uniform(0, longest))
    if meant := command.process.poll() is None:
      command.send(group=group)
      if twice:
        time.sleep(rng.uniform(0, 0.5))
        with contextlib.suppress(ProcessLookupError):
          command.send(group=group)
    status, lines = command.end()
    print(hits, status, lines[-1:])
    if status:
      check_lines(command, status, lines, last)
      hits += 1
    else:
      late += meant  # the work was done, and Python was exiting
      assert found() == expected
      shutil.rmtree(workdir, ignore_errors=True)
  assert hits == 20
  finished(start())
  assert found() == expected


ANY = re.compile(f"{LAST.pattern}|{SAVED.pattern}s?")


@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False])
def test_twenty_interrupts_of_train(data, images, packed, tmp_path):
  data = data if packed else images
  workdir = tmp_path / "run"
  storm(lambda: train(workdir, data), workdir, lambda: digest(workdir), ANY)


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--jobs=1", "--jobs=2", "--together=2"])
def test_twenty_interrupts_of_a_study(study, flag, tmp_path):
  workdir = tmp_path / "w"
  start = lambda: run_study(study, workdir, flag)
  storm(start, workdir, lambda: digests(workdir), ANY)


@pytest.mark.slow
def test_twenty_interrupts_of_measure(tmp_path):
  out = tmp_path / "out"
  start = lambda: Command(tmp_path / "log", *MEASURE, out, "--samples", "3e7")
  storm(start, out, lambda: {p.name: p.read_bytes() for p in out.iterdir()})


@pytest.mark.slow
def test_twenty_interrupts_of_match(tmp_path):
  log = tmp_path / "log"
  start = lambda: Command(log, *MATCH)
  storm(start, tmp_path / "none", log.read_text)
