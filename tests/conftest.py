"""Eight CPU devices for every test, and peers that have to come first."""

import contextlib
import os

_FLAGS = (
  "--xla_force_host_platform_device_count=8"
  " --xla_backend_optimization_level=0"
  " --xla_cpu_collective_call_terminate_timeout_seconds=600"
  " --xla_cpu_collective_timeout_seconds=600"
)
if _FLAGS not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Where it is installed: it aborts the process if TensorFlow is there before it.
with contextlib.suppress(ImportError):
  import torchvision  # noqa: F401
