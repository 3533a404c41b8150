"""torchvision's loaders, to compare with; needs torch, torchvision and Linux.

Each is a DataLoader whose workers decode from memory and apply
`v2.RandomResizedCrop(224, scale=(0.05, 1))`, to uint8 [3, 224, 224]. They live
in a process of their own, since torch and TensorFlow do not always get along in
one: `start` runs this file, which then answers over its standard streams.
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

_BATCHES_AHEAD = 2  # of each worker; DataLoader's default
# Name: decoded by Pillow, antialiased.
_KINDS = {
  "torchvision decode_jpeg, antialias=False": (False, False),
  "torchvision decode_jpeg, antialias=True": (False, True),
  "torchvision PIL (which always antialiases)": (True, True),
}


def start(paths: list[pathlib.Path], workers: int) -> list[Loader]:
  """Starts one DataLoader of each kind, with `workers` processes each.

  Raises:
    ValueError: if torch or torchvision are not there, or do not start.
  """
  for package in ("torch", "torchvision"):
    if importlib.util.find_spec(package) is None:
      raise ValueError(f"--peers: {package} is not installed.")
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

  if ask(list(map(str, paths))) is None:
    raise ValueError("--peers: torch and torchvision did not start, see above.")
  return [
    Loader(name, lambda seconds, name=name: ask([name, seconds]))
    for name in _KINDS
  ]


def _serve(workers):
  """Answers `start`: first a list of paths, then [kind, seconds] for a turn."""
  import torch
  import torchvision
  from PIL import Image
  from torchvision.transforms import v2

  class Images(torch.utils.data.Dataset):
    """The files over and over, decoded and cropped."""

    def __init__(self, files, pil, antialias):
      self._files = files
      self._pil = pil
      self._crop = v2.RandomResizedCrop(
        224, scale=(0.05, 1.0), antialias=antialias
      )

    def __len__(self):
      return 1 << 40

    def __getitem__(self, index):
      data = self._files[index % len(self._files)]
      if self._pil:
        image = self._crop(Image.open(io.BytesIO(data)).convert("RGB"))
        return v2.functional.pil_to_tensor(image)
      encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
      rgb = torchvision.io.ImageReadMode.RGB
      return self._crop(torchvision.io.decode_jpeg(encoded, mode=rgb))

  files = [pathlib.Path(p).read_bytes() for p in json.loads(input())]
  turns = {}
  for name, kind in _KINDS.items():
    others = multiprocessing.active_children()
    loader = torch.utils.data.DataLoader(
      Images(files, *kind),
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
