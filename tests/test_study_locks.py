"""Locks: one holder, whatever happens to the previous holder."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from big_crop.study import locks


def test_one_holder_at_a_time(tmp_path):
  first, second = locks.Lock(tmp_path / "a"), locks.Lock(tmp_path / "a")
  assert first.holder() is None
  assert first.acquire()
  assert not second.acquire()
  assert second.holder()["pid"] == os.getpid()
  first.release()
  assert second.holder() is None
  assert second.acquire()
  assert not locks.Lock(tmp_path / "a").acquire()
  second.release()


def _take(folder, ready, start, taken, **kwargs):
  lock = locks.Lock(folder, **kwargs)
  ready.release()
  start.wait()
  if lock.acquire():
    taken.put(os.getpid())
    start_wait = time.monotonic()
    while time.monotonic() - start_wait < 1:  # held while others try
      time.sleep(0.05)


@pytest.mark.parametrize("kind", ["free", "dead", "silent"])
@pytest.mark.first(1)
@pytest.mark.long
def test_of_many_processes_one_wins(tmp_path, kind):
  folder = tmp_path / "lock"
  if kind != "free":
    holder = _dead_process() if kind == "dead" else _elsewhere()
    _hold(folder, holder, age=1000)
  context = multiprocessing.get_context("fork")
  ready, start = context.Semaphore(0), context.Event()
  taken = context.Queue()
  workers = [
    context.Process(target=_take, args=(folder, ready, start, taken))
    for _ in range(12)
  ]
  for w in workers:
    w.start()
  for _ in workers:
    ready.acquire()
  start.set()
  for w in workers:
    w.join(30)
  assert taken.qsize() == 1


def _elsewhere():
  return {**locks.this_process(), "host": "elsewhere", "pid": 1}


def _dead_process():
  code = (
    "import json; from big_crop.study import locks;"
    "print(json.dumps(locks.this_process()))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, check=True
  )
  return json.loads(done.stdout)


def _hold(folder, holder, age=0.0):
  folder.mkdir()
  path = folder / "000001"
  path.write_text(json.dumps(holder))
  old = time.time() - age
  os.utime(path, (old, old))


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")
def test_a_dead_process_of_this_host_loses_it_at_once(tmp_path):
  _hold(tmp_path / "a", _dead_process())
  assert locks.Lock(tmp_path / "a").acquire()
  # The same process id, started at another time, is another process.
  _hold(tmp_path / "b", {**locks.this_process(), "start": "1"})
  assert locks.Lock(tmp_path / "b").acquire()
  # A living process keeps its lock.
  _hold(tmp_path / "c", locks.this_process())
  assert not locks.Lock(tmp_path / "c").acquire()


@pytest.mark.parametrize("where", ["host", "boot", "namespace"])
def test_a_process_elsewhere_keeps_it_until_it_expires(tmp_path, where):
  holder = {**_dead_process(), where: "elsewhere"}
  _hold(tmp_path / "a", holder, age=100)
  lock = locks.Lock(tmp_path / "a")
  assert not lock.acquire()
  os.utime(tmp_path / "a" / "000001", (0, 0))
  assert lock.acquire()


def test_a_holder_gives_signs_of_life(tmp_path):
  lock = locks.Lock(tmp_path / "a", beat_s=0.05)
  assert lock.acquire()
  path = tmp_path / "a" / "000001"
  os.utime(path, (0, 0))
  for _ in range(100):
    if path.stat().st_mtime > 1e6:
      break
    time.sleep(0.05)
  assert path.stat().st_mtime > time.time() - 60
  lock.release()


def test_who_lost_the_lock_ends(tmp_path):
  """A worker that slept too long must not write into its successor's run."""
  code = (
    "import sys, time; from big_crop.study import locks;"
    "lock = locks.Lock(sys.argv[1], beat_s=0.2); assert lock.acquire();"
    "print('held', flush=True); time.sleep(60)"
  )
  worker = subprocess.Popen(
    [sys.executable, "-c", code, str(tmp_path / "a")],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert worker.stdout.readline() == "held\n"
  (tmp_path / "a" / "000002").write_text(json.dumps(_elsewhere()))
  _, error = worker.communicate(timeout=30)
  assert worker.returncode == 1
  assert "lost the lock" in error


def test_a_late_comer_does_not_follow_a_holder_of_long_ago(tmp_path):
  """A process judged the first holder dead while others came and went."""
  late = locks.Lock(tmp_path / "a")
  _hold(tmp_path / "a", _elsewhere(), age=1000)
  judged, go_on = threading.Event(), threading.Event()
  make = late._make

  def slow_make(path):
    judged.set()
    go_on.wait(10)
    return make(path)

  late._make = slow_make
  got = []
  thread = threading.Thread(target=lambda: got.append(late.acquire()))
  thread.start()
  judged.wait(10)
  for _ in range(2):
    between = locks.Lock(tmp_path / "a")
    assert between.acquire()
    between.release()
  current = locks.Lock(tmp_path / "a")
  assert current.acquire()
  go_on.set()
  thread.join(10)
  assert got == [False]
  assert [p.name for p in current._files()] == ["000004"]
  current.release()


def test_a_file_that_cannot_be_read_is_not_free(tmp_path, monkeypatch):
  holder = {**_dead_process(), "host": "elsewhere"}
  _hold(tmp_path / "a", holder)

  def fail(path):
    raise OSError(errno.EIO, "input/output error")

  monkeypatch.setattr(type(epath.Path("/")), "read_text", fail)
  assert not locks.Lock(tmp_path / "a").acquire()
