"""timm's train step, to compare with; needs torch and timm.

It runs in its own process, because torch and JAX each start threads on all
cores: `start` runs this file, which answers over its standard streams.
"""

import json
import sys
import time
from collections.abc import Callable

from big_crop.bench import peer
from big_crop.runtime import stop
from pp_ops.errors import UserError

# Our model: timm's. Some differ in the class token or the pooling, which hardly
# changes the speed.
_NAMES = {
  ("vit", "Ti/16"): "vit_tiny_patch16_224",
  ("vit", "S/16"): "vit_small_patch16_224",
  ("vit", "B/16"): "vit_base_patch16_224",
  ("vit", "L/16"): "vit_large_patch16_224",
  ("vit", "DeiT-Ti/16"): "deit_tiny_patch16_224",
  ("vit", "DeiT-S/16"): "deit_small_patch16_224",
  ("vit", "DeiT-B/16"): "deit_base_patch16_224",
  **{("resnet", n): f"resnet{n}" for n in ("18", "34", "50", "101", "152")},
  ("resnet", "50d"): "resnet50d",
  ("resnet", "se50"): "seresnet50",
  ("resnet", "x50_32x4d"): "resnext50_32x4d",
  **{("regnet", f"Y-{n}GF"): f"regnety_{n:02}0" for n in (4, 8, 16, 32)},
  **{("efficientnet", f"B{n}"): f"efficientnet_b{n}" for n in range(5)},
}


def start(
  model: str, variant: str, batch: int, res: int, dtype: str
) -> Callable[[int], list[float]]:
  """Builds timm's counterpart of a model, and runs two steps to warm up.

  Returns:
    A function from a number of steps to [seconds per step, CPU seconds per
    step], and from 0 to the FLOP/s of a matrix product of the same dtype.

  Raises:
    ValueError: if torch or timm is not installed, or `_NAMES` lacks the model.
  """
  if (model, variant) not in _NAMES:
    known = ", ".join(f"{m} {v}" for m, v in _NAMES)
    raise UserError(f"--peers: no peer of {model} {variant}; of {known}")
  ask = peer.start("timm_peer", ("torch", "timm"))
  ask([_NAMES[model, variant], batch, res, dtype])
  return ask


def _serve():
  """Answers `start`: first [name, batch, res, dtype], then numbers of steps."""
  import timm
  import torch

  name, batch, res, dtype = json.loads(input())
  device = "cuda" if torch.cuda.is_available() else "cpu"
  kw = {"img_size": res} if "patch" in name else {}
  model = timm.create_model(name, num_classes=1000, **kw).to(device).train()
  optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
  image = torch.rand(batch, 3, res, res, device=device) * 2 - 1
  label = torch.randint(1000, (batch,), device=device)
  cast = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")

  def step():
    optimiser.zero_grad(set_to_none=True)
    with cast:
      loss = torch.nn.functional.cross_entropy(model(image), label)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())  # waits for the device

  step()
  step()
  size = 2048 if device == "cpu" else 8192
  dtype = getattr(torch, dtype)
  x, y = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

  def peak():
    times = []
    for _ in range(6):
      start = time.perf_counter()
      float((x @ y)[0, 0])  # waits for the device
      times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times[1:])

  print(json.dumps(True), flush=True)
  for line in sys.stdin:
    steps = json.loads(line)
    if not steps:
      print(json.dumps(peak()), flush=True)
      continue
    start_time = time.perf_counter(), time.process_time()
    for _ in range(steps):
      step()
    end = time.perf_counter(), time.process_time()
    seconds = [(b - a) / steps for a, b in zip(start_time, end, strict=True)]
    print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
  stop.listen()
  _serve()
