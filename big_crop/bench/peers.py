"""torchvision's loaders, to compare with; needs torch, torchvision and Linux.

Each is a DataLoader whose workers decode images from memory and apply
`v2.RandomResizedCrop(224, scale=(0.05, 1))`. To compare with RandAugment,
`v2.RandAugment(2, 10)` follows; to compare with CropMix, CropMix of two views
replaces the crop. The result is uint8 [3, 224, 224]. The loaders run in their
own process, because torch and TensorFlow do not always work in one: `start`
runs this file, which then answers over its standard streams.
"""

import functools
import io
import json
import multiprocessing
import os
import pathlib
import random
import sys
import time

from big_crop.bench import peer
from big_crop.bench.turns import BATCH, Loader, turn
from big_crop.runtime import stop

_BATCHES_AHEAD = 2  # of each worker; DataLoader's default
# Name -> (whether Pillow decodes, antialias).
_KINDS = {
  "torchvision decode_jpeg, antialias=False": (False, False),
  "torchvision decode_jpeg, antialias=True": (False, True),
  "torchvision PIL (which always antialiases)": (True, True),
}
# Ending of a loader's name -> the op that the loader is compared with.
AUGMENTS = {"": None, ", RandAugment": "randaug", ", CropMix": "cropmix"}


def names(augments: list[str]) -> list[str]:
  """The names of the loaders for these keys of `AUGMENTS`."""
  return [kind + augment for augment in augments for kind in _KINDS]


def start(
  paths: list[pathlib.Path], workers: int, augments: list[str]
) -> list[Loader]:
  """Starts a DataLoader for each kind in `_KINDS` and each of `augments`.

  Args:
    paths: the images.
    workers: worker processes of each loader.
    augments: keys of `AUGMENTS`.

  Raises:
    ValueError: if torch or torchvision is not installed or does not start.
  """
  ask = peer.start("peers", ("torch", "torchvision"), str(workers))
  ask([list(map(str, paths)), names(augments)])
  return [
    Loader(name, lambda seconds, name=name: ask([name, seconds]))
    for name in names(augments)
  ]


def _serve(workers):
  """Answers `start`: first [paths, names], then [name, seconds] for a turn."""
  import torch
  import torchvision
  from PIL import Image
  from torchvision.transforms import v2

  class CropMix:
    """As in the paper, each view is cropped from the decoded image."""

    def __init__(self, crops):
      self._crops = crops

    def __call__(self, image):
      views = [
        v2.functional.to_image(crop(image)).float() for crop in self._crops
      ]
      random.shuffle(views)
      heavier, lighter = views
      weight = random.betavariate(0.2, 0.2)
      if weight > 0.5:
        heavier, lighter, weight = lighter, heavier, 1 - weight
      lighter = lighter[torch.randperm(3)]
      return (weight * lighter + (1 - weight) * heavier).round().byte()

  class Images(torch.utils.data.Dataset):
    """The files in an endless loop, decoded and augmented."""

    def __init__(self, files, pil, antialias, augment):
      self._files = files
      self._pil = pil
      crop = lambda low, high: v2.RandomResizedCrop(
        224, scale=(low, high), antialias=antialias
      )
      if augment == "cropmix":
        self._augment = CropMix([crop(0.01, 0.505), crop(0.505, 1.0)])
      else:
        randaug = [v2.RandAugment(2, 10)] * (augment == "randaug")
        self._augment = v2.Compose([crop(0.05, 1.0), *randaug])

    def __len__(self):
      return 1 << 40

    def __getitem__(self, index):
      data = self._files[index % len(self._files)]
      if self._pil:
        image = self._augment(Image.open(io.BytesIO(data)).convert("RGB"))
        return v2.functional.to_image(image)
      encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
      rgb = torchvision.io.ImageReadMode.RGB
      return self._augment(torchvision.io.decode_jpeg(encoded, mode=rgb))

  paths, wanted = json.loads(input())
  files = [pathlib.Path(p).read_bytes() for p in paths]
  turns = {}
  for name in wanted:
    kind, augment = next(
      (kind, op)
      for start, kind in _KINDS.items()
      for end, op in AUGMENTS.items()
      if name == start + end
    )
    others = multiprocessing.active_children()
    loader = torch.utils.data.DataLoader(
      Images(files, *kind, augment),
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
  """CPU seconds of this process and of the workers `pids`."""
  total = time.process_time()
  for pid in pids:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    # utime and stime are fields 14 and 15. They are counted from the ")" after
    # field 2, because field 2 may contain spaces.
    fields = stat.rpartition(")")[2].split()
    total += sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
  return total


if __name__ == "__main__":
  stop.listen()
  _serve(int(sys.argv[1]))
