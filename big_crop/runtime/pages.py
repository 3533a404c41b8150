"""Huge pages for the memory that a command's arrays lie in."""

import itertools
import os
import pathlib
import sys

_MODES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_NAME, _TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def use_huge_pages() -> None:
  """Starts the command again, once, with huge pages in glibc's malloc.

  On a CPU each train step writes gigabytes of activations to memory that malloc
  has just got from the kernel. With pages of 4 kB, an eighth of the step or
  more goes into getting that memory. Most Linux systems give 2 MB pages only to
  programs that ask for them. glibc 2.35 and later asks if an environment
  variable, which it reads when a process starts, says so.

  Does nothing where pages are huge anyway or never, with another C library, and
  if GLIBC_TUNABLES already says something about huge pages.
  """
  words = sys.orig_argv
  is_command = any(
    flag == "-m" and name.startswith("big_crop.")
    for flag, name in itertools.pairwise(words)
  )
  tunables = os.environ.get(_NAME, "")
  if not is_command or _TUNABLE in tunables or not _on_request():
    return
  added = f"{tunables}:{_TUNABLE}=1" if tunables else f"{_TUNABLE}=1"
  command = [sys.executable, *words[1:]]
  os.execve(sys.executable, command, {**os.environ, _NAME: added})


def _on_request():
  """Whether this system gives huge pages to programs that ask for them."""
  try:
    library, version = os.confstr("CS_GNU_LIBC_VERSION").split()
    major, minor = map(int, version.split("."))
    glibc = library == "glibc" and (major, minor) >= (2, 35)
    return glibc and "[madvise]" in _MODES.read_text()
  except (AttributeError, OSError, ValueError):  # another C library, or system
    return False
