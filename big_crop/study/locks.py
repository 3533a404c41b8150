"""One worker per run, on any number of hosts that share its workdir.

A lock is a folder of files named 000001, 000002, ...: its holders, the highest
last. To take it is to make the next file, which one worker only can do, and may
be done when the highest holder has released it, is dead, or has been silent for
too long. Whoever makes a file looks once more whether it is the highest: the
others may be removed, the highest never is. So two workers that find the same
dead holder never both follow it, without a lock around the lock.

Files are made with `storage.create`, which makes each for one worker only. Ages
are told by the clock of the filesystem or object store.

No library does this: two waiters of flufl.lock may both break an expired lock,
and filelock's lease replaces a dead holder by RENAME_EXCHANGE, which NFS lacks.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from typing import Any

from etils import epath

from big_crop.runtime import storage
from pp_ops.errors import UserError

EXPIRY_S = 300.0  # NFS may show an attribute a minute late.
BEAT_S = 15.0


def _read(path):
  """A file's text without its spaces, or None."""
  try:
    return epath.Path(path).read_text().strip()
  except OSError:
    return None


def _process(pid):
  """State and start time of a process of this host, or None if it is gone."""
  text = _read(f"/proc/{pid}/stat")
  if text is None:
    return None
  fields = text.rpartition(")")[2].split()
  return fields[0], fields[19]


def this_process() -> dict[str, Any]:
  """What tells this process from every other one."""
  process = _process(os.getpid())
  try:
    # Containers of one host may share its name and count their own processes.
    namespace = os.readlink("/proc/self/ns/pid")
  except OSError:
    namespace = None
  return {
    "host": socket.gethostname(),
    "boot": _read("/proc/sys/kernel/random/boot_id"),
    "namespace": namespace,
    "pid": os.getpid(),
    "start": process and process[1],
  }


def _is_dead(holder):
  """Whether a holder is a process of this host that is no more."""
  me = this_process()
  here = ("host", "boot", "namespace")
  if not me["boot"] or any(holder.get(k) != me[k] for k in here):
    return False
  process = _process(holder.get("pid"))
  return process is None or process[0] == "Z" or process[1] != holder["start"]


class Lock:
  """A lock on one run."""

  def __init__(
    self,
    folder: epath.Path,
    expiry_s: float = EXPIRY_S,
    beat_s: float = BEAT_S,
  ):
    """Names the lock; nothing is taken yet.

    Args:
      folder: the lock's own folder, made if need be.
      expiry_s: a holder that has been silent for so long has lost it.
      beat_s: how often a holder gives a sign of life.
    """
    self._folder = epath.Path(folder)
    self._expiry_s, self._beat_s = expiry_s, beat_s
    self._mine, self._text = None, ""
    self._done = threading.Event()

  def _files(self):
    if not self._folder.is_dir():
      return []
    names = (p for p in self._folder.iterdir() if p.name.isdigit())
    return sorted(names, key=lambda p: int(p.name))

  def holder(self) -> dict[str, Any] | None:
    """Who holds the lock, or None if it can be taken."""
    files = self._files()
    return self._holder_of(files[-1]) if files else None

  def _holder_of(self, path):
    text = _read(path)
    if text is None:
      return None  # Someone removed it, and has made a higher one.
    try:
      holder = json.loads(text)
    except json.JSONDecodeError:
      holder = {"host": "unknown"}  # A filesystem that shows it half.
    if holder.get("released") or _is_dead(holder):
      return None
    with contextlib.suppress(FileNotFoundError):
      if self._now() - storage.modified(path) > self._expiry_s:
        return None
    return holder

  def _now(self):
    """The time by the clock of the store, which hosts may differ from."""
    probe = self._folder / f".clock.{uuid.uuid4().hex}"
    try:
      probe.write_text("")
    except (OSError, UserError):
      return time.time()  # someone who may only look
    now = storage.modified(probe)
    probe.unlink()
    return now

  def acquire(self) -> bool:
    """Takes the lock if it is free; returns whether it did."""
    self._folder.mkdir(parents=True, exist_ok=True)
    # One look: what is made must follow the very file that was judged.
    last = next(reversed(self._files()), None)
    if last and self._holder_of(last) is not None:
      return False
    number = int(last.name) + 1 if last else 1
    mine = self._folder / f"{number:06d}"
    if not self._make(mine):
      return False
    if self._files()[-1] != mine:
      mine.unlink()
      return False
    for old in self._files()[:-1]:
      old.unlink(missing_ok=True)
    self._mine = mine
    self._thread = threading.Thread(target=self._beat, daemon=True)
    self._thread.start()
    return True

  def _make(self, path):
    """Makes a holder's file, whole or not at all; False if there is one."""
    facts = {**this_process(), "id": uuid.uuid4().hex}
    self._text = json.dumps(facts) + "\n"
    try:
      return storage.create(path, self._text)
    except OSError as e:
      raise UserError(
        f"cannot lock {path}: {e.strerror}; the study's workdir needs a "
        "filesystem with hard links, as local disks and NFS have, or gs://"
      ) from e

  def _beat(self):
    while not self._done.wait(self._beat_s):
      try:
        if held := self._files()[-1:] == [self._mine]:
          storage.touch(self._mine, self._text)
      except (OSError, UserError):
        continue  # a filesystem that is away for a moment
      if not held and not self._done.is_set():
        # Asleep for too long: another worker goes on with the run. To write
        # anything more would spoil what it does.
        print(
          f"error: lost the lock {self._folder} to another worker",
          file=sys.stderr,
          flush=True,
        )
        os._exit(1)

  def release(self) -> None:
    """Gives the lock back."""
    self._done.set()
    self._thread.join()  # or its last sign of life would undo the release
    storage.write(self._mine, json.dumps({"released": True}) + "\n")


@contextlib.contextmanager
def held(lock: Lock):
  """Takes a lock for a block of code; yields whether it could be had."""
  if not lock.acquire():
    yield False
    return
  try:
    yield True
  finally:
    lock.release()
