"""Runs our commands as processes that need not import everything again.

A process that has imported what the commands import, and has started nothing
else, forks for each command. The child then does what `python -m MODULE ...`
does: it runs the module as `__main__`, with output files of its own.
"""

import atexit
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]

# Modules that the commands import. The commands themselves are not among them,
# because runpy must load these.
_IMPORTS = (
  "big_crop.parts",
  "big_crop.data.input_pipeline",
  "big_crop.data.device_pipeline",
  "big_crop.data.critters",
  "big_crop.evaluators.classification",
  "big_crop.measure.measurement",
  "big_crop.saliency.measurement",
  "big_crop.study.report",
  "big_crop.study.worker",
  "big_crop.display.pictures",
  "big_crop.models.vit",
  "pp_ops.crops",
)


class Result(NamedTuple):
  """What a command did.

  Attributes:
    status: its exit status.
    out: its standard output.
    err: its standard error.
  """

  status: int
  out: str
  err: str


class Process:
  """A command that runs beside this process, like a `subprocess.Popen`.

  Attributes:
    pid: its process id.
    returncode: its exit status, or None before `poll` or `wait` found it.
  """

  def __init__(self, commands: "Commands", pid: int):
    self._commands, self.pid, self.returncode = commands, pid, None

  def poll(self) -> int | None:
    if self.returncode is None:
      self.returncode = self._commands.ask("poll", self.pid)
    return self.returncode

  def wait(self, timeout: float = 600) -> int:
    deadline = time.monotonic() + timeout
    while self.poll() is None:
      if time.monotonic() > deadline:
        raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
      time.sleep(0.01)
    return self.returncode

  def send_signal(self, signum: int):
    if self.poll() is None:
      os.kill(self.pid, signum)

  def kill(self):
    self.send_signal(signal.SIGKILL)


class Commands:
  """The process that forks the commands; a context manager."""

  def __enter__(self):
    self._server = subprocess.Popen(
      [sys.executable, __file__],
      env=_environment({}),
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    return self

  def __exit__(self, *exc):
    self._server.stdin.close()
    self._server.wait()

  def ask(self, name: str, *args):
    self._server.stdin.write(json.dumps([name, *args]) + "\n")
    self._server.stdin.flush()
    return json.loads(self._server.stdout.readline())

  def start(self, module: str, *argv, cwd=ROOT, out, err=None, env=()):
    """Starts `python -m module *argv` in a folder.

    Args:
      module: what to run.
      *argv: its arguments.
      cwd: the folder.
      out: the file that gets its standard output.
      err: the file that gets its standard error; by default the same.
      env: what is different in its environment.

    Returns:
      The `Process`.
    """
    argv = [str(a) for a in argv]
    files = [str(out), str(err or out)]
    for name in files:
      pathlib.Path(name).write_text("")
    args = module, argv, str(cwd), files, _environment(env)
    return Process(self, self.ask("start", *args))

  def run(self, module: str, *argv: str, cwd: pathlib.Path) -> Result:
    """Runs `python -m module *argv` in a folder to its end."""
    with tempfile.TemporaryDirectory() as folder:
      out, err = (pathlib.Path(folder, name) for name in ("out", "err"))
      status = self.start(module, *argv, cwd=cwd, out=out, err=err).wait()
      texts = [file.read_text(errors="replace") for file in (out, err)]
    return Result(status, *texts)


def _environment(env):
  """This process's, with one device; the other flags make compilation quick."""
  flags = "--xla_force_host_platform_device_count=1"
  return {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",  # beside the users' config files
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
    **dict(env),
  }


def _run(module, argv, cwd, files, env):
  """Turns this process into the command."""
  for target, name in enumerate((os.devnull, *files)):
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    os.dup2(os.open(name, flags), target)
  os.environ.clear()
  os.environ.update(env)
  sys.argv = [module, *argv]
  os.chdir(cwd)
  # As `python -m` has it.
  sys.path[:1] = [cwd, *env["PYTHONPATH"].split(os.pathsep)]
  status = 0
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  except SystemExit as e:
    status = e.code or 0
    if not isinstance(status, int):
      print(status, file=sys.stderr)
      status = 1
  except BaseException:
    traceback.print_exc()
    status = 1
  # All that Python does at its end, except destroying the modules, which takes
  # seconds.
  threading._shutdown()
  atexit._run_exitfuncs()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def _poll(pid):
  waited, status = os.waitpid(pid, os.WNOHANG)
  return os.waitstatus_to_exitcode(status) if waited else None


def _serve():
  for name in _IMPORTS:
    __import__(name)
  answers = os.fdopen(os.dup(1), "w")
  for line in sys.stdin:
    name, *args = json.loads(line)
    if name == "poll":
      answer = _poll(*args)
    elif not (answer := os.fork()):
      _run(*args)
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
  _serve()
