"""One worker per run, on any number of hosts that share its workdir.

A lock is a folder of files named 000001, 000002, ..., one for each holder so
far; the highest number is the current holder. A worker takes the lock by
creating the file with the next number, which succeeds for one worker only. It
may do so if the current holder has released the lock, is dead, or has been
silent for too long. Then it lists the folder once more and gives up if its file
is not the highest, because lower files may be removed at any time; the highest
never is. So two workers that find the same dead holder never both succeed it,
and no second lock is needed.

`storage.create` creates a file for one worker only. Ages are measured by the
clock of the filesystem or object store.

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

# A holder whose file is older has lost the lock. Far more than BEAT_S, because
# NFS may show a modification time a minute late.
EXPIRY_S = 300.0
BEAT_S = 15.0  # A holder updates its file this often.


def _read(path):
  """A file's text, stripped, or None if it can't be read."""
  try:
    return epath.Path(path).read_text().strip()
  except OSError:
    return None


def _process(pid):
  """State and start time of a process of this host, or None if it has ended."""
  text = _read(f"/proc/{pid}/stat")
  if text is None:
    return None
  fields = text.rpartition(")")[2].split()
  return fields[0], fields[19]


def this_process() -> dict[str, Any]:
  """Facts that identify this process among all processes of all hosts."""
  process = _process(os.getpid())
  try:
    # Containers on one host may share its name, and each numbers its processes
    # from 1. The PID namespace tells them apart.
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
  """Whether a holder is known to have ended: a process of this host only."""
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
    """Names the lock without taking it.

    Args:
      folder: the lock's own folder, created when the lock is taken.
      expiry_s: seconds without a sign of life after which a holder has lost the
        lock.
      beat_s: seconds between a holder's signs of life.
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
    try:
      holder = json.loads(path.read_text())
    except FileNotFoundError:
      return None  # Removed, by the worker that made a higher file.
    except (OSError, json.JSONDecodeError):
      # The file cannot be read now, or the filesystem shows a part of it.
      holder = {"host": "unknown"}
    if holder.get("released") or _is_dead(holder):
      return None
    with contextlib.suppress(FileNotFoundError):
      if self._now() - storage.modified(path) > self._expiry_s:
        return None
    return holder

  def _now(self):
    """The time by the filesystem's clock, because hosts' clocks may differ."""
    probe = self._folder / f".clock.{uuid.uuid4().hex}"
    try:
      probe.write_text("")
    except (OSError, UserError):
      return time.time()  # this user has no permission to write here
    now = storage.modified(probe)
    probe.unlink()
    return now

  def acquire(self) -> bool:
    """Takes the lock if it is free; returns whether it did."""
    self._folder.mkdir(parents=True, exist_ok=True)
    # The folder is listed once: the number that we create must follow the file
    # that we found free, not one that was created since.
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
    """Creates our holder's file atomically; False if it already exists."""
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
        continue  # the filesystem may be unavailable for a moment
      if not held and not self._done.is_set():
        # This process was suspended for too long, and another worker has taken
        # over the run. Exit at once, because whatever we write would corrupt
        # that worker's files.
        print(
          f"error: lost the lock {self._folder} to another worker",
          file=sys.stderr,
          flush=True,
        )
        os._exit(1)

  def release(self) -> None:
    """Releases the lock."""
    self._done.set()
    self._thread.join()  # else its last sign of life could undo the release
    storage.write(self._mine, json.dumps({"released": True}) + "\n")


@contextlib.contextmanager
def held(lock: Lock):
  """Tries to hold a lock for a block of code; yields whether it is held."""
  if not lock.acquire():
    yield False
    return
  try:
    yield True
  finally:
    lock.release()
