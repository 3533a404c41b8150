"""Runs a peer in its own process, which answers questions as lines of JSON.

torch, TensorFlow and JAX do not always work in one process, and each of them
starts threads on all cores.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from big_crop.runtime import stop
from pp_ops.errors import UserError


def start(
  module: str, packages: tuple[str, ...], *args: str
) -> Callable[[Any], Any]:
  """Starts `python -m big_crop.bench.MODULE ARGS`.

  Args:
    module: the peer.
    packages: names of the packages that the peer imports.
    *args: the peer's command line.

  Returns:
    A function from a question to the answer, both anything that JSON has.

  Raises:
    ValueError: if a package is missing. The returned function raises it if the
      peer has ended without an answer.
  """
  for package in packages:
    if importlib.util.find_spec(package) is None:
      raise UserError(f"--peers: {package} is not installed.")
  process = stop.start(
    [sys.executable, "-m", f"big_crop.bench.{module}", *args],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )

  def ask(question):
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline() or "null")
    if answer is None:
      raise UserError(
        f"--peers: {' and '.join(packages)} did not answer, see above."
      )
    return answer

  return ask
