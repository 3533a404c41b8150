"""torchvision's loaders, to compare with; needs torch, torchvision and Linux.

Each is a DataLoader whose workers decode from memory and apply
`v2.RandomResizedCrop(224, scale=(0.05, 1))` and, where that is compared,
`v2.RandAugment(2, 10)`, to uint8 [3, 224, 224]. They live in a process of their
own, since torch and TensorFlow do not always get along in one: `start` runs
this file, which then answers over its standard streams.
"""

import functools
import importlib.util
import io
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time

from big_crop.bench.turns import BATCH, Loader, turn
from pp_ops.errors import UserError

_BATCHES_AHEAD = 2  # of each worker; DataLoader's default
# Name: decoded by Pillow, antialiased.
_KINDS = {
  "torchvision decode_jpeg, antialias=False": (False, False),
  "torchvision decode_jpeg, antialias=True": (False, True),
  "torchvision PIL (which always antialiases)": (True, True),
}
RANDAUG = ", RandAugment"  # at the end of a name


def start(
  paths: list[pathlib.Path], workers: int, randaug: bool
) -> list[Loader]:
  """Starts one DataLoader of each kind, with `workers` processes each.

  Args:
    paths: the images.
    workers: processes of each loader.
    randaug: whether to start each once more with RandAugment.

  Raises:
    ValueError: if torch or torchvision are not there, or do not start.
  """
  for package in ("torch", "torchvision"):
    if importlib.util.find_spec(package) is None:
      raise UserError(f"--peers: {package} is not installed.")
  process = subprocess.Popen(
    [sys.executable, "-m", "big_crop.bench.peers", str(workers)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )

  def ask(question):
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline() or "null")

  names = [*_KINDS, *([n + RANDAUG for n in _KINDS] if randaug else [])]
  if ask([list(map(str, paths)), names]) is None:
    raise UserError("--peers: torch and torchvision did not start, see above.")
  return [
    Loader(name, lambda seconds, name=name: ask([name, seconds]))
    for name in names
  ]


def _serve(workers):
  """Answers `start`: first [paths, names], then [name, seconds] for a turn."""
  import torch
  import torchvision
  from PIL import Image
  from torchvision.transforms import v2

  class Images(torch.utils.data.Dataset):
    """The files over and over, decoded and augmented."""

    def __init__(self, files, pil, antialias, randaug):
      self._files = files
      self._pil = pil
      self._augment = v2.Compose(
        [v2.RandomResizedCrop(224, scale=(0.05, 1.0), antialias=antialias)]
        + [v2.RandAugment(2, 10)] * randaug
      )

    def __len__(self):
      return 1 << 40

    def __getitem__(self, index):
      data = self._files[index % len(self._files)]
      if self._pil:
        image = self._augment(Image.open(io.BytesIO(data)).convert("RGB"))
        return v2.functional.pil_to_tensor(image)
      encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
      rgb = torchvision.io.ImageReadMode.RGB
      return self._augment(torchvision.io.decode_jpeg(encoded, mode=rgb))

  paths, names = json.loads(input())
  files = [pathlib.Path(p).read_bytes() for p in paths]
  turns = {}
  for name in names:
    kind = _KINDS[name.removesuffix(RANDAUG)]
    others = multiprocessing.active_children()
    loader = torch.utils.data.DataLoader(
      Images(files, *kind, name.endswith(RANDAUG)),
      BATCH,
      num_workers=workers,
      prefetch_factor=_BATCHES_AHEAD,
    )
    batches = iter(loader)
    pids = [p.pid for p in multiprocessing.active_children() if p not in others]
    cpu_time = functools.partial(_cpu_time, pids)
    turns[name] = functools.partial(
      turn, batches, workers * _BATCHES_AHEAD, cpu_time
    )
  print(json.dumps(True), flush=True)
  for line in sys.stdin:
    name, seconds = json.loads(line)
    print(json.dumps(turns[name](seconds)), flush=True)


def _cpu_time(pids):
  """Seconds of CPU of this process and of its workers."""
  total = time.process_time()
  for pid in pids:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    # The 14th and 15th field; the 2nd, in parentheses, may hold spaces.
    fields = stat.rpartition(")")[2].split()
    total += sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
  return total


if __name__ == "__main__":
  _serve(int(sys.argv[1]))
