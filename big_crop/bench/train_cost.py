r"""What a train step costs: images per second, memory, parameters, FLOPs.

    python -m big_crop.bench train-cost --models all --batches 128

These are the training columns of Tables 1 and 3 of "ResNet strikes back"
(arXiv:2110.00476). `all` means its 25 models, each by default at A1's
training resolution. The numbers of Table 3 stand beside ours: hours of recipe
A1 on V100s, and the memory of each V100, at A1's batch size of 2048 over all
GPUs. The step is that of `bench step`, on random images.
"""

from typing import Any

import jax

from big_crop.bench import infer, step
from big_crop.runtime import sharding


def measure(
  model_name: str, args: dict[str, Any], res: int, batch: int, num: int
) -> dict[str, float]:
  """Measures train steps on one device; see `infer.measure`."""
  mesh = sharding.make_mesh([("data", 1)], jax.devices()[:1])
  built = step.build(model_name, args, batch, res, mesh=mesh)
  state = built.state

  def work():
    nonlocal state
    state, metrics = built.run(state, built.batch)
    return metrics

  return dict(
    params=sum(x.size for x in jax.tree.leaves(state.params)) / 1e6,
    gflop=built.flops / batch / 1e9,
    images_per_s=step.rate(work, batch, num),
    peak_mb=infer.peak_mb(built.run),
  )


def main(argv: list[str]) -> None:
  """Runs the command."""

  def theirs(row):
    if (row["source"], row["recipe"]) != ("Table 3", "a1"):
      return {}
    gpus = f"{row['hours']} h on {row['gpus']}"
    return {"A1 on V100s": gpus, "GB of each": row["train_gb"]}

  infer.report("train-cost", __doc__, argv, measure, theirs, "train_res")
