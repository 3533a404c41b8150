"""Huge pages: which commands start again, and what their memory is then."""

import os
import re
import subprocess
import sys

import pytest

from big_crop.runtime import pages

# A command in whose memory 256 MB are written.
_COMMAND = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("pages", {path!r})
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)
pages.use_huge_pages()
held = bytearray(b"x") * (256 << 20)
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
print(open("/proc/self/smaps_rollup").read())
"""


def _run(tmp_path, module, tunables):
  """(what GLIBC_TUNABLES is in the command, kB that it has in huge pages)."""
  package, name = module.split(".")
  (tmp_path / package).mkdir()
  file = tmp_path / package / f"{name}.py"
  file.write_text(_COMMAND.format(path=pages.__file__))
  env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
  done = subprocess.run(
    [sys.executable, "-X", "faulthandler", "-m", module, "--a", "b c"],
    cwd=tmp_path,
    env={**env, **tunables},
    capture_output=True,
    text=True,
    check=True,
  )
  said, *rollup = done.stdout.splitlines()
  assert said.endswith(" ['--a', 'b c']")
  huge = re.search(r"AnonHugePages: *(\d+)", "".join(rollup))
  return said.removesuffix(" ['--a', 'b c']"), int(huge[1])


@pytest.mark.skipif(
  not pages._on_request(), reason="needs huge pages on request, and glibc 2.35"
)
@pytest.mark.parametrize(
  "module, before, after, huge",
  [
    ("big_crop.some", None, "glibc.malloc.hugetlb=1", True),
    (
      "big_crop.some",
      "glibc.malloc.perturb=0",
      "glibc.malloc.perturb=0:glibc.malloc.hugetlb=1",
      True,
    ),
    (
      "big_crop.some",
      "glibc.malloc.hugetlb=0",
      "glibc.malloc.hugetlb=0",
      False,
    ),
    ("another.program", None, "None", False),
  ],
)
def test_commands_take_huge_pages(tmp_path, module, before, after, huge):
  tunables = {} if before is None else {"GLIBC_TUNABLES": before}
  said, kilobytes = _run(tmp_path, module, tunables)
  assert said == after
  assert (kilobytes > 200 << 10) == huge


@pytest.mark.parametrize(
  "modes, library, asks",
  [
    ("always [madvise] never", "glibc 2.36", True),
    ("always [madvise] never", "glibc 2.34", False),
    ("always [madvise] never", "musl", False),
    ("[always] madvise never", "glibc 2.36", False),
    ("always madvise [never]", "glibc 2.36", False),
    (None, "glibc 2.36", False),
  ],
)
def test_asks_only_where_asking_helps(
  monkeypatch, tmp_path, modes, library, asks
):
  if modes is not None:
    (tmp_path / "enabled").write_text(modes)
  monkeypatch.setattr(pages, "_MODES", tmp_path / "enabled")
  monkeypatch.setattr(os, "confstr", lambda name: library)
  assert pages._on_request() == asks
