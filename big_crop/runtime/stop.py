"""Stopping well: what Ctrl-C and SIGTERM do to a command.

The first Ctrl-C (SIGINT) ends the process at once, unless the command holds it
off (`hold`) to save something first. The second one always ends the process at
once. The status is 130 in both cases.

A thread sees to this, and nothing is raised. Python would run a signal handler
in the main thread, which XLA's compiler may keep busy for minutes. And
KeyboardInterrupt gets lost in callbacks from C++, while every thread and every
child process that it meets prints a traceback.
"""

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from big_crop.runtime import quiet

STATUS = 128 + signal.SIGINT
# A stop that takes longer is announced.
_PATIENCE_S = 1.0
# Tells a process that `start` made the id of its parent.
_PARENT = "BIG_CROP_PARENT"
_FORWARDED = (signal.SIGINT, signal.SIGTERM)

_sigterm = _interrupted = False  # what has been asked for
_held = _all_hosts = _at_once = False
_silent = _told = False
_end_of_line = ""
_stderr = 2
_children: list[subprocess.Popen] = []
_cleanups: list[Callable[[], None]] = []


def listen(
  *, goes_on: bool = False, sigterm: bool = False, at_once: bool = False
) -> None:
  """Takes over SIGINT; every command calls this before its slow imports.

  And makes TensorFlow's import a quiet one, which is a command's business too:
  whoever imports `big_crop` into a program of his own finds all as it was.

  Args:
    goes_on: whether the same command goes on where this one stops. A stopped
      user is told so.
    sigterm: whether SIGTERM too asks for a stop, rather than ends the process.
    at_once: whether nothing may hold a Ctrl-C off.
  """
  global _silent, _end_of_line, _at_once, _stderr
  quiet.install()
  _at_once = at_once
  _stderr = os.dup(2)  # It may be redirected for a while.
  _end_of_line = "; the same command goes on" if goes_on else ""
  parent = int(os.environ.pop(_PARENT, 0))
  _silent = parent > 0
  # Python's C handler writes each signal's number into this pipe, whatever the
  # main thread is doing.
  readable, writable = os.pipe()
  os.set_blocking(writable, False)
  signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
  signal.signal(signal.SIGINT, lambda *_: None)
  if sigterm:
    signal.signal(signal.SIGTERM, _on_sigterm)
  threading.Thread(target=_watch, args=(readable, parent), daemon=True).start()
  # The first callback that is registered runs last. Python then restores the
  # default action of every signal but the ignored ones.
  atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
  if parent:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _on_sigterm(signum, frame):
  del signum, frame
  global _sigterm
  _sigterm = True


def _watch(pipe, parent):
  """Waits for Ctrl-C; the death of the parent counts as one."""
  global _interrupted
  announced = orphaned = False
  while True:
    slow = _interrupted and not announced
    timeout = _PATIENCE_S if slow or parent else None
    ready, _, _ = select.select([pipe], [], [], timeout)
    count = os.read(pipe, 64).count(signal.SIGINT) if ready else 0
    if parent and not orphaned and os.getppid() != parent:
      orphaned = True
      count += 1
    if count and (count > 1 or _interrupted or not (_held or _all_hosts)):
      _end()
    if count:
      _interrupted = True
      if _all_hosts:
        os.kill(os.getpid(), signal.SIGTERM)
    elif slow and not ready:
      announced = True
      if not _told:
        _say("Ctrl-C: stopping after this step; again to end at once")


def _end():
  try:
    for child in _children:
      child.kill()
    # In a thread, because a filesystem may not answer.
    cleaner = threading.Thread(target=_clean, daemon=True)
    cleaner.start()
    cleaner.join(_PATIENCE_S)
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    behind_bar = os.isatty(_stderr) or getattr(bars, "_instances", ())
    _say_stopped("\n" if behind_bar else "")
  finally:
    os._exit(STATUS)


def _clean():
  for function in list(_cleanups):
    with contextlib.suppress(Exception):
      function()


def _say_stopped(start=None):
  global _told
  if not _told:
    _told = True
    _say(f"stopped by Ctrl-C{_end_of_line}", start)


def _say(text, start=None):
  """Prints a line, whatever locks on sys.stderr the main thread holds."""
  if _silent and not _sigterm:
    return
  if start is None:  # On a terminal the line replaces the one of progress.
    start = "\r\033[K" if os.isatty(_stderr) else ""
  with contextlib.suppress(OSError):
    os.write(_stderr, f"{start}{text}\n".encode())


@contextlib.contextmanager
def cleaning(function: Callable[[], None]) -> Iterator[None]:
  """Calls a function if Ctrl-C ends the process at once within the block."""
  _cleanups.append(function)
  try:
    yield
  finally:
    _cleanups.remove(function)


def hold(on: bool = True) -> None:
  """Whether the first Ctrl-C only sets `requested`, which the caller grants."""
  global _held
  _held = on and not _at_once


def requested() -> bool:
  """Whether to stop: for a SIGTERM, or for a Ctrl-C that was held off."""
  return _sigterm or _interrupted


def tell(what: str) -> None:
  """Prints what the command did upon a request to stop."""
  global _told
  _told = True
  _say(f"{'Ctrl-C' if _interrupted else 'SIGTERM'}: {what}")


def finish() -> None:
  """Ends a command that has done its work, with status 130 after a Ctrl-C."""
  if _interrupted:
    _say_stopped()
    sys.exit(STATUS)
  hold(False)


def stop_all_hosts() -> None:
  """From now on a Ctrl-C is passed on to SIGTERM's handler, which is JAX's."""
  global _all_hosts
  _all_hosts = True
  if _sigterm:  # JAX has not seen a SIGTERM that came before.
    os.kill(os.getpid(), signal.SIGTERM)


def start(command: list[str], **options) -> subprocess.Popen:
  """Starts a process that calls `listen`, and that ends when this one does.

  The process has a group of its own. A terminal's Ctrl-C goes to the whole
  group of this process, and the child must get it once, from `wait`. Signals
  that come before it listens are kept for it. The options are those of
  `subprocess.Popen`.
  """
  signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
  try:
    env = {**os.environ, _PARENT: str(os.getpid())}
    child = subprocess.Popen(command, env=env, process_group=0, **options)
  finally:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
  _children.append(child)
  return child


def wait() -> list[int]:
  """Waits for all that `start` made, and passes requests to stop on to them.

  Returns:
    Their statuses.
  """
  hold()
  passed_on = set()
  while any(child.poll() is None for child in _children):
    came = zip(_FORWARDED, (_interrupted, _sigterm), strict=True)
    for signum in {s for s, flag in came if flag} - passed_on:
      passed_on.add(signum)
      for child in _children:
        child.send_signal(signum)
    time.sleep(0.2)
  statuses = [child.returncode for child in _children]
  _children.clear()
  return statuses
