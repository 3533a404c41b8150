"""Lets TensorFlow start without its usual lines about GPUs and instructions.

Some of these lines come from C++ before TensorFlow has read any setting. All of
them come only once: when TensorFlow is imported, and when it first looks for a
GPU, which JAX owns here. We therefore do both while a filter behind file
descriptor 2 drops the lines that match `_CHATTER`. TF_CPP_MIN_LOG_LEVEL=0 turns
the filter off.
"""

import contextlib
import importlib.machinery
import os
import subprocess
import sys

_CHATTER = (
  "All log messages before absl::InitializeLog",
  "Could not find cuda drivers",
  "failed call to cuInit",
  "TensorFlow binary is optimized to use",
  "To enable the following instructions:",
  "oneDNN custom operations are on",
  "Unable to register cu.* factory",
  "computation placer already registered",
)
# The filter is a process of its own, so that it still passes on the last words
# of a process that crashes.
_FILTER = """
import re, sys
for line in sys.stdin.buffer:
  if not re.search(sys.argv[1].encode(), line):
    sys.stdout.buffer.write(line)
    sys.stdout.flush()
"""


def install() -> None:
  """Makes the first `import tensorflow` a quiet one."""
  # JAX sets the same level, but TensorFlow may be imported before JAX.
  level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
  if level != "0" and "tensorflow" not in sys.modules:
    sys.meta_path.insert(0, _Finder)


class _Finder:
  """Finds TensorFlow where Python would, and adds the filter to its import."""

  @staticmethod
  def find_spec(name, path=None, target=None):
    """Returns the spec of TensorFlow, None for other modules."""
    if name != "tensorflow":
      return None
    spec = importlib.machinery.PathFinder.find_spec(name, path, target)
    if spec is not None and spec.loader is not None:
      run = spec.loader.exec_module

      def exec_module(module):
        with _filtered_stderr():
          run(module)
          module.config.list_physical_devices("GPU")

      spec.loader.exec_module = exec_module
    return spec


@contextlib.contextmanager
def _filtered_stderr():
  command = [sys.executable, "-ISc", _FILTER, "|".join(_CHATTER)]
  saved = os.dup(2)
  child = subprocess.Popen(
    command,
    stdin=subprocess.PIPE,
    stdout=saved,
    start_new_session=True,  # so that it does not get a terminal's Ctrl-C
  )
  os.dup2(child.stdin.fileno(), 2)
  child.stdin.close()
  try:
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
    # The wait has a limit, because the filter goes on while any process that
    # the import started holds its standard input open.
    with contextlib.suppress(subprocess.TimeoutExpired):
      child.wait(1)
