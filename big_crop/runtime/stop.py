"""What Ctrl-C and SIGTERM do to a command.

The first Ctrl-C (SIGINT) ends the process at once, unless the command holds it
off (`hold`) to save something first. The second one always ends the process at
once. The status is 130 in both cases.

A thread of ours handles Ctrl-C, and no exception is raised, for two reasons.
Python would run a signal handler in the main thread, which XLA's compiler may
keep busy for minutes. KeyboardInterrupt gets lost in callbacks from C++, and
every thread and child process that it reaches prints a traceback.
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
# If a stop takes longer than this, a line announces it.
_PATIENCE_S = 1.0
# Environment variable that tells a child made by `start` its parent's id.
_PARENT = "BIG_CROP_PARENT"
_FORWARDED = (signal.SIGINT, signal.SIGTERM)

_sigterm = _interrupted = False  # whether SIGTERM, or Ctrl-C, has come
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

  It also makes TensorFlow's import a quiet one. Both are done here and not when
  `big_crop` is imported, so that importing it into another program changes
  nothing there.

  Args:
    goes_on: whether the same command, given again, goes on where it stopped.
      The message about a stop then says so.
    sigterm: whether SIGTERM also asks for a stop, rather than end the process.
    at_once: whether `hold` has no effect.
  """
  global _silent, _end_of_line, _at_once, _stderr
  quiet.install()
  _at_once = at_once
  _stderr = os.dup(2)  # a copy, because descriptor 2 may be redirected later
  _end_of_line = "; the same command goes on" if goes_on else ""
  parent = int(os.environ.pop(_PARENT, 0))
  _silent = parent > 0
  # Python's C signal handler writes each signal's number into this pipe at
  # once, whatever the main thread is doing.
  readable, writable = os.pipe()
  os.set_blocking(writable, False)
  signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
  signal.signal(signal.SIGINT, lambda *_: None)
  if sigterm:
    signal.signal(signal.SIGTERM, _on_sigterm)
  threading.Thread(target=_watch, args=(readable, parent), daemon=True).start()
  # This callback runs last, because it is registered first. After it Python
  # restores the default action of all signals that are not ignored, so SIGINT
  # must be ignored by then.
  atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
  if parent:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _on_sigterm(signum, frame):
  del signum, frame
  global _sigterm
  _sigterm = True


def _watch(pipe, parent):
  """Reads signals from `pipe` for ever, and answers each Ctrl-C.

  The death of the process `parent` counts as a Ctrl-C; 0 for no parent.
  """
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
    # In a thread with a time limit, because a filesystem may not answer.
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
  """Prints a line without sys.stderr, whose lock the main thread may hold."""
  if _silent and not _sigterm:
    return
  if start is None:  # On a terminal the line replaces the progress line.
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
  """Makes the first Ctrl-C only set `requested`; the caller must then stop."""
  global _held
  _held = on and not _at_once


def requested() -> bool:
  """Whether a SIGTERM, or a Ctrl-C that was held off, asks for a stop."""
  return _sigterm or _interrupted


def tell(what: str) -> None:
  """Prints what the command did in answer to a request to stop."""
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
  """Makes Ctrl-C send SIGTERM to this process, for JAX's handler of SIGTERM.

  JAX's preemption service then stops all hosts; see `hosts.stop_requested`.
  """
  global _all_hosts
  _all_hosts = True
  # A SIGTERM that came earlier is sent to this process once more, so that the
  # handler that JAX has installed since then also sees it.
  if _sigterm:
    os.kill(os.getpid(), signal.SIGTERM)


def start(command: list[str], **options) -> subprocess.Popen:
  """Starts a command that calls `listen`, and that ends when this process does.

  The child has a process group of its own, because a terminal sends Ctrl-C to
  this process's whole group and the child must get it only once, from `wait`.
  Signals that arrive before the child listens are delivered when it does. The
  options are those of `subprocess.Popen`.
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
  """Waits for all children of `start`, and passes requests to stop on to them.

  Returns:
    The exit statuses of the children.
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
