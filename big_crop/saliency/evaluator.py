"""Entropies of saliency maps: how sparse a model's saliency is.

`big_crop.saliency.maps` defines the maps and their entropy. The target class of
an image is its label, as in "You May Be Running the Wrong Inception Crop",
section 6.3.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from big_crop.data.eval_data import EvalData
from big_crop.runtime import progress, sharding
from big_crop.saliency import maps as saliency_maps
from pp_ops.errors import UserError

QUANTILES = (5, 25, 50, 75, 95)  # percent


class Batch(NamedTuple):
  """The saliency maps of a batch, and numbers computed from them.

  Attributes:
    image: [B, H, W, C], on the devices.
    maps: {kind: [B, h, w]}, on the devices.
    rows: NumPy arrays [B]: "label", "prediction", "confidence" (the
      prediction's softmax probability), and for each kind "KIND_entropy" and
      "KIND_empty" (see `saliency_maps.entropy`).
    mask: NumPy [B] bool, False for padding.
  """

  image: jax.Array
  maps: dict[str, jax.Array]
  rows: dict[str, np.ndarray]
  mask: np.ndarray


def statistics(entropies: np.ndarray, empty: np.ndarray) -> dict[str, float]:
  """Summary statistics of the entropies of a split's maps.

  Args:
    entropies: [n] float, in nats.
    empty: [n] bool, as `saliency_maps.entropy` returns it. Maps for which it is
      True are left out.

  Returns:
    "entropy" (mean), "entropy_std" (over the images) and the percentiles
    "entropy_p05" to "entropy_p95"; and "zero_maps", the number of maps that
    were left out. If all were, only "zero_maps".
  """
  left = np.asarray(entropies, np.float64)[~empty]
  found = {"zero_maps": float(empty.sum())}
  if not left.size:
    return found
  found |= {"entropy": float(left.mean()), "entropy_std": float(left.std())}
  percentiles = np.percentile(left, QUANTILES)
  for q, value in zip(QUANTILES, percentiles, strict=True):
    found[f"entropy_p{q:02d}"] = float(value)
  return found


class Evaluator:
  """Computes maps for every example of a split exactly once.

  Attributes:
    kinds: the kinds of maps.
    data: the examples.
  """

  def __init__(
    self,
    *,
    model: nn.Module,
    mesh: jax.sharding.Mesh,
    num_classes: int,
    seed: int,
    data: dict[str, Any],
    pp_fn: str,
    batch_size: int = 128,
    maps: Sequence[str] | None = None,
    engine: str = "tf.data",
    skip_corrupt: bool = False,
    num_parallel_calls: int | None = None,
  ):
    """Opens the data, as `EvalData` does.

    `pp_fn` must leave `image` and `label`, not `labels`, because the maps
    explain the logit of a single class. `maps` are some of "gradient",
    "gradcam" and "relevance"; by default all that the model supports.

    Raises:
      ValueError: if an argument is wrong, or the model does not support a map.
    """
    self.kinds = saliency_maps.choose_kinds(model, maps)
    self.data = EvalData(
      mesh,
      seed=seed,
      data=data,
      pp_fn=pp_fn,
      features=("image", ("label", "labels")),
      batch_size=batch_size,
      engine=engine,
      skip_corrupt=skip_corrupt,
      num_parallel_calls=num_parallel_calls,
    )
    if "label" not in self.data.features:
      raise UserError(
        "pp_fn leaves a set of 'labels': saliency needs one 'label', the class "
        "whose logit is explained"
      )
    if num_classes < (self.data.source.num_classes or 0):
      raise UserError(
        f"the dataset has {self.data.source.num_classes} classes, the model "
        f"{num_classes}"
      )
    make = saliency_maps.make_maps(model, self.kinds)

    def compute(variables, batch):
      maps, logits = make(variables, batch["image"], batch["label"])
      rows = {
        "label": batch["label"],
        "prediction": logits.argmax(-1),
        "confidence": jax.nn.softmax(logits).max(-1),
      }
      for kind, values in maps.items():
        rows[f"{kind}_entropy"], rows[f"{kind}_empty"] = saliency_maps.entropy(
          values
        )
      return maps, (rows, batch["mask"] > 0)

    # The maps stay on the devices that computed them; the rows are replicated,
    # so that every host has all of them.
    self._compute = jax.jit(
      compute, out_shardings=(None, sharding.replicated(mesh))
    )

  def batches(self, variables: Any) -> Iterator[Batch]:
    """Computes the maps batch by batch, in stored order."""
    before = None
    for batch, _ in self.data.batches():
      now = (batch["image"], *self._compute(variables, batch))
      # The devices compute this batch while the caller reads the previous one.
      if before:
        yield Batch(*before[:2], *jax.device_get(before[2]))
      before = now
    yield Batch(*before[:2], *jax.device_get(before[2]))

  def run(self, variables: Any) -> dict[str, float]:
    """Evaluates a model's variables.

    Returns:
      For each kind of map the entries of `statistics`, as `KIND_entropy` and so
      on; and `count`, the number of images, those with zero maps included.
    """
    found = []
    with progress.evaluation_bar(self.data.source.num_examples) as bar:
      for batch in self.batches(variables):
        found.append({k: v[batch.mask] for k, v in batch.rows.items()})
        bar.update(int(batch.mask.sum()))
    rows = {k: np.concatenate([r[k] for r in found]) for k in found[0]}
    metrics = {"count": float(len(rows["label"]))}
    for kind in self.kinds:
      measured = statistics(rows[f"{kind}_entropy"], rows[f"{kind}_empty"])
      metrics |= {f"{kind}_{key}": value for key, value in measured.items()}
    return metrics
