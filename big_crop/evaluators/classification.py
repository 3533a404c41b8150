"""Top-1, top-5 and loss, for one label or a set of labels per image."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from big_crop.data.eval_data import EvalData
from big_crop.objectives import losses
from big_crop.runtime import progress
from pp_ops.errors import UserError


def batch_sums(
  logits: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
  loss_fn: Callable[[jax.Array, jax.Array], jax.Array],
) -> dict[str, jax.Array]:
  """What a batch adds to the metrics.

  With a set of labels, as ImageNet-ReaL has ("Are we done with ImageNet?",
  arXiv:2006.07159), a prediction counts if it is in the set; images whose set
  is empty are left out.

  Args:
    logits: [B, C] float.
    labels: [B] int, or [B, C] with the labels' entries above 0.
    mask: [B] float, 0 for padding.
    loss_fn: (logits, labels [B, C]) -> [B].

  Returns:
    float32 scalars: the sums `top1`, `top5` and `loss`, and `count`.
  """
  if labels.ndim == 1:
    labels = jax.nn.one_hot(labels, logits.shape[-1])
  mask = mask * (labels.max(-1) > 0)
  _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
  hits = jnp.take_along_axis(labels, best, axis=-1) > 0
  return {
    "top1": (mask * hits[:, 0]).sum(),
    "top5": (mask * hits.any(-1)).sum(),
    "loss": jnp.where(mask > 0, loss_fn(logits, labels), 0).sum(),
    "count": mask.sum(),
  }


class Evaluator:
  """Evaluates every example of a split exactly once."""

  def __init__(
    self,
    *,
    predict: Callable[[Any, jax.Array], tuple[jax.Array, Any]],
    mesh: jax.sharding.Mesh,
    num_classes: int,
    seed: int,
    data: dict[str, Any],
    pp_fn: str,
    batch_size: int = 128,
    loss_name: str = "softmax_xent",
    engine: str = "tf.data",
    skip_corrupt: bool = False,
    num_parallel_calls: int | None = None,
  ):
    """Opens the data.

    Args:
      predict: (variables, image [B, H, W, C]) -> logits [B, num_classes], and
        activations.
      mesh: the mesh.
      num_classes: number of classes.
      seed: the run's, for a pp string with random ops.
      data: arguments of `sources.get_source`.
      pp_fn: the pp string; it leaves `image` and `label` or `labels`.
      batch_size: over all devices; a last, smaller batch is padded.
      loss_name: a name for `losses.get`.
      engine: what runs the pp string, see `batches.ENGINES`.
      skip_corrupt: leave out images that do not decode, rather than fail.
      num_parallel_calls: threads; TensorFlow chooses by default.

    Raises:
      ValueError: if any of it is wrong.
    """
    self._data = EvalData(
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
    loss_fn = losses.get(loss_name)
    if loss_name == "softmax_xent":
      # A set of labels stands for the uniform distribution over it.
      loss_fn = lambda logits, labels: losses.softmax_xent(
        logits, labels / jnp.maximum(labels.sum(-1, keepdims=True), 1)
      )

    def sums(variables, batch):
      labels = batch.get("labels", batch.get("label"))
      if labels.ndim == 2 and labels.shape[-1] != num_classes:
        raise UserError(
          f"labels have {labels.shape[-1]} classes, the model {num_classes}"
        )
      logits, _ = predict(variables, batch["image"])
      return batch_sums(logits, labels, batch["mask"], loss_fn)

    self._sums = jax.jit(sums)

  def run(self, variables: Any) -> dict[str, float]:
    """Evaluates.

    Args:
      variables: the model's.

    Returns:
      `top1` and `top5` as fractions, `loss` (mean), `count` (images that
      counted) and, if any were left out, `skipped_corrupt`.
    """
    total, seen = None, 0
    with progress.evaluation_bar(self._data.source.num_examples) as bar:
      for batch, num in self._data.batches():
        seen += num
        sums = self._sums(variables, batch)
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        bar.update(num)
    total = {k: float(v) for k, v in jax.device_get(total).items()}
    count = total.pop("count")
    metrics = {k: v / count if count else 0.0 for k, v in total.items()}
    skipped = self._data.source.num_examples - seen
    return {
      **metrics,
      "count": count,
      **({"skipped_corrupt": float(skipped)} if skipped else {}),
    }
