"""Eight CPU devices for every test, and peers that have to come first."""

import contextlib
import os

_FLAG = "--xla_force_host_platform_device_count=8"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Where it is installed: it aborts the process if TensorFlow is there before it.
with contextlib.suppress(ImportError):
  import torchvision  # noqa: F401
