"""Runs our commands as processes that need not import everything again.

A process that has imported what the commands import, and has started nothing
else, forks for each command. The child is then what `python -m MODULE ...` is:
it runs the module as `__main__`, its tail included, with output of its own.
"""

import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import traceback
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]

# What the commands import, but not they themselves: runpy must load these.
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
  "big_crop.runtime.pictures",
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


class Commands:
  """Commands to be run one after the other; a context manager."""

  def __enter__(self):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # beside the users' config files
    self._server = subprocess.Popen(
      [sys.executable, __file__],
      env=env,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    return self

  def __exit__(self, *exc):
    self._server.stdin.close()
    self._server.wait()

  def run(self, module: str, *argv: str, cwd: pathlib.Path) -> Result:
    """Runs `python -m module *argv` in a folder."""
    request = [module, [str(a) for a in argv], str(cwd)]
    self._server.stdin.write(json.dumps(request) + "\n")
    self._server.stdin.flush()
    return Result(*json.loads(self._server.stdout.readline()))


def _child(module, argv, cwd):
  """Runs a command; returns its exit status."""
  sys.argv = [module, *argv]
  os.chdir(cwd)
  sys.path[0] = cwd  # as `python -m` has it
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  except SystemExit as e:
    if not isinstance(e.code, int | None):
      print(e.code, file=sys.stderr)
      return 1
    return e.code or 0
  except BaseException:
    traceback.print_exc()
    return 1
  return 0


def _fork(module, argv, cwd):
  with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    pid = os.fork()
    if pid == 0:
      os.dup2(out.fileno(), 1)
      os.dup2(err.fileno(), 2)
      status = _child(module, argv, cwd)
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(status)
    _, waited = os.waitpid(pid, 0)
    texts = []
    for file in (out, err):
      file.seek(0)
      texts.append(file.read().decode(errors="replace"))
  return Result(os.waitstatus_to_exitcode(waited), *texts)


def _serve():
  for name in _IMPORTS:
    __import__(name)
  answers = os.fdopen(os.dup(1), "w")
  for line in sys.stdin:
    result = _fork(*json.loads(line))
    answers.write(json.dumps(result) + "\n")
    answers.flush()


if __name__ == "__main__":
  _serve()
