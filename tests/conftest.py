"""Eight CPU devices, quick compilation, and peers that must load first."""

import collections
import contextlib
import gc
import os
import pathlib
from importlib import metadata

import forked_commands

ROOT = pathlib.Path(__file__).parents[1]

# These programs are small and run a few times: making them fast would take most
# of the suite's time. An unknown flag aborts the process; these are known to
# JAX 0.7 to 0.11.
_FLAGS = (
  "--xla_force_host_platform_device_count=8"
  " --xla_backend_optimization_level=0"
  " --xla_cpu_use_fusion_emitters=false"
  " --xla_cpu_parallel_codegen_split_count=1"
)
if int(metadata.version("jaxlib").split(".")[1]) >= 10:
  # Devices that share a core wait long for each other. After 40 seconds XLA
  # would take this for a deadlock and abort.
  _FLAGS += (
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    " --xla_cpu_collective_timeout_seconds=600"
  )
if _FLAGS not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests, their processes and later runs share what is compiled. Each worker has
# its own cache, because writes are not atomic.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla" / _WORKER)
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# If TensorFlow is imported before torchvision, torchvision aborts the process.
with contextlib.suppress(ImportError):
  import torchvision

  torchvision.torch.set_num_threads(1)  # pytest's workers use the other cores

import jax  # noqa: E402, the settings above come first
import orbax.checkpoint as ocp  # noqa: E402
import pytest  # noqa: E402
from absl import logging  # noqa: E402

# By default each of the eight devices writes a slice of each replicated array,
# and every slice is a program to compile. That default is tested by the tests
# that start processes of their own, because these do not load this file.
logging.set_verbosity(logging.ERROR)  # it would warn of the override
ocp.type_handlers.register_type_handler(
  jax.Array,
  ocp.type_handlers.ArrayHandler(use_replica_parallel=False),
  override=True,
)
logging.set_verbosity(logging.WARNING)


@pytest.fixture(scope="session")
def commands():
  """Runs commands as processes that need not import everything again."""
  with forked_commands.Commands() as found:
    yield found


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
  """What `pytest.mark.first` says."""
  seen = collections.Counter()
  for item in items:
    if mark := item.get_closest_marker("first"):
      name = item.nodeid.partition("[")[0]
      seen[name] += 1
      if seen[name] > mark.args[0]:
        item.add_marker("slow")


def pytest_collection_finish():
  """Spares the garbage collector all imported objects, because they stay."""
  gc.collect()
  gc.freeze()


def pytest_unconfigure():
  gc.unfreeze()  # or else nanobind reports frozen objects as leaks
