"""Packs in processes that are killed at each write; see test_pack.py."""

import itertools
import os
import random
import shutil
import signal
import sys

from PIL import Image

from big_crop import pack
from big_crop.data import packed

packed.BLOCK = 8
Image.init()  # here, because it is slow and each child would repeat it
data, out = sys.argv[1:]
names = ["write", "fsync", "fdatasync", "replace", "ftruncate", "unlink"]
real = {name: getattr(os, name) for name in names}
# Not needed, because what a killed process has written stays without it.
real["fsync"] = real["fdatasync"] = lambda fd: None


def run(last):
  """Packs in a process that is killed at call `last` of `names`; its status."""
  pid = os.fork()
  if pid:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
  count = itertools.count()

  def deadly(name):
    def call(*args, **kwargs):
      if next(count) == last:
        if name == "write":
          real[name](args[0], args[1][: len(args[1]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
      return real[name](*args, **kwargs)

    return call

  for name in names:
    setattr(os, name, deadly(name))
  sys.stderr = open(os.devnull, "w")
  pack.pack(data, out, 32, skip_corrupt=True, jobs=1)
  os._exit(0)


def content():
  found = {}
  for folder, _, files in os.walk(out):
    for file in files:
      with open(os.path.join(folder, file), "rb") as f:
        found[folder, file] = f.read()
  return found


assert run(-1) == 0
right = content()
rng = random.Random(0)
for last in itertools.count():
  shutil.rmtree(out)
  status = run(last)
  if not status:
    break
  if last % 4 == 0:
    run(rng.randrange(20))  # so that some are killed twice
  assert status == -signal.SIGKILL and run(-1) == 0
  now = content()
  assert now.keys() == right.keys(), (last, now.keys())
  assert all(now[k] == right[k] for k in right), last
print(last)
