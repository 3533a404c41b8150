"""Eight CPU devices for every test, compiled programs that are kept, peers.

These settings are environment variables because the processes that tests start
inherit them.
"""

import contextlib
import getpass
import os
import pathlib
import tempfile

_FLAG = "--xla_force_host_platform_device_count=8"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Compilation is most of the suite's time, and many tests compile the same
# program. JAX finds a program by a hash of its contents, its compiler flags and
# the version of XLA, so that a kept one is never a wrong one.
_CACHE = pathlib.Path(tempfile.gettempdir()) / f"big_crop-{getpass.getuser()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# Where it is installed: it aborts the process if TensorFlow is there before it.
with contextlib.suppress(ImportError):
  import torchvision  # noqa: F401
