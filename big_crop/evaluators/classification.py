"""Top-1, top-5 and loss, for one label or a set of labels per image.

Subclasses of `Evaluator` compute further metrics from the same predictions
(`calibration`), or the same metrics on attacked images (`adversarial`).
"""

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_crop.data.eval_data import EvalData
from big_crop.evaluators import imagenet
from big_crop.objectives import losses
from big_crop.runtime import hosts, progress, sharding
from pp_ops.checks import check_number
from pp_ops.errors import UserError


class Task(NamedTuple):
  """The settings that the compiled programs depend on.

  Attributes:
    predict: (variables, image [B, H, W, C]) -> logits [B, num_classes], and
      activations.
    num_classes: number of classes of the model.
    loss_name: a name for `losses.get`.
    classes: the classes that predictions are restricted to; None for all.
    class_of: class_of[i] is the model's class for label i of the dataset; None
      if the dataset's labels are the model's classes.
  """

  predict: Callable[[Any, jax.Array], tuple[jax.Array, Any]]
  num_classes: int
  loss_name: str
  classes: tuple[int, ...] | None
  class_of: tuple[int, ...] | None

  def _chosen(self, x):
    return x if self.classes is None else x[:, np.array(self.classes)]

  def logits(self, variables: Any, image: jax.Array) -> jax.Array:
    """The logits [B, n] of the n classes of `self.classes`."""
    return self._chosen(self.predict(variables, image)[0])

  def labels(self, batch: dict[str, jax.Array]) -> jax.Array:
    """The labels [B, n]: above 0 where the class of that logit is right."""
    labels = batch.get("labels", batch.get("label"))
    if labels.ndim == 1:
      if self.class_of:
        labels = jnp.array(self.class_of)[labels]
      labels = jax.nn.one_hot(labels, self.num_classes)
    if labels.shape[-1] != self.num_classes:
      raise UserError(
        f"labels have {labels.shape[-1]} classes, the model {self.num_classes}"
      )
    return self._chosen(labels)

  def loss(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss [B].

    For "softmax_xent" the target is the uniform distribution over the labels.
    """
    if self.loss_name == "softmax_xent":
      labels = labels / jnp.maximum(labels.sum(-1, keepdims=True), 1)
    return losses.get(self.loss_name)(logits, labels)


def image_metrics(
  task: Task, variables: Any, batch: dict[str, jax.Array]
) -> dict[str, jax.Array]:
  """Computes the metrics of each image of a batch.

  With a set of labels, as in ImageNet-ReaL ("Are we done with ImageNet?",
  arXiv:2006.07159), a prediction is right if it is in the set. Images whose set
  is empty, or has none of `task.classes`, are left out.

  Args:
    task: the model and its classes.
    variables: the model's variables.
    batch: `image`, `mask` (0 for padding), and `label` [B] int or `labels`
      [B, num_classes].

  Returns:
    [B] float32: `top1` and `top5`, 0 or 1; `loss`; `confidence`, the largest
    softmax probability; `mask`; and `counts`, 0 for images that are left out.
  """
  logits, labels = task.logits(variables, batch["image"]), task.labels(batch)
  _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
  hits = jnp.take_along_axis(labels, best, axis=-1) > 0
  found = {
    "top1": hits[:, 0],
    "top5": hits.any(-1),
    "loss": task.loss(logits, labels),
    "confidence": jax.nn.softmax(logits.astype(jnp.float32)).max(-1),
    "mask": batch["mask"],
    "counts": labels.max(-1) > 0,
  }
  return {k: v.astype(jnp.float32) for k, v in found.items()}


@functools.lru_cache(maxsize=8)
def program(function: Callable, task: Task, out: jax.sharding.Sharding):
  """jit of `function(task, ...)`, cached so that evaluators can share it."""
  return jax.jit(functools.partial(function, task), out_shardings=out)


class Evaluator:
  """Evaluates every example of a split exactly once.

  Attributes:
    data: the examples.
    class_of: see `Task`.
  """

  def __init__(
    self,
    *,
    predict: Callable[[Any, jax.Array], tuple[jax.Array, Any]],
    mesh: jax.sharding.Mesh,
    num_classes: int,
    seed: int,
    data: dict[str, Any] | EvalData,
    pp_fn: str,
    batch_size: int = 128,
    loss_name: str = "softmax_xent",
    classes: str | list | None = None,
    max_examples: int | None = None,
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
      seed: the run's seed, for a pp string with random ops.
      data: arguments of `sources.get_source`; or an `EvalData` that is already
        open, which keeps its own pp string.
      pp_fn: the pp string; it leaves `image` and `label` or `labels`.
      batch_size: over all devices; a last, smaller batch is padded.
      loss_name: a name for `losses.get`.
      classes: restricts predictions to these class numbers, or to the classes
        of the test set "imagenet_a" or "imagenet_r". Images of other classes
        are left out.
      max_examples: evaluate only this many examples, the first ones.
      engine: what runs the pp string, see `batches.ENGINES`.
      skip_corrupt: leave out images that do not decode, rather than fail.
      num_parallel_calls: number of threads; TensorFlow chooses by default.

    Raises:
      ValueError: if any of it is wrong.
    """
    if not isinstance(data, EvalData):
      data = EvalData(
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
    losses.get(loss_name)
    if max_examples is not None:
      check_number("max_examples", max_examples, 1, whole=True)
    self.data = data
    self._mesh, self._batch_size = mesh, batch_size
    self._max_examples = max_examples
    self.class_of = imagenet.class_of(data.source.class_names, num_classes)
    if classes is not None:
      classes = imagenet.subset(classes, num_classes)
    self._task = Task(predict, num_classes, loss_name, classes, self.class_of)

  def __init_subclass__(cls):
    # A subclass passes **rest to its base. `evaluators.make` reads signatures,
    # so the subclass's signature gets the base's arguments, too.
    own, base = (
      inspect.signature(c.__init__).parameters for c in (cls, cls.__base__)
    )
    taken = {k: p for k, p in (base | own).items() if k not in ("self", "rest")}
    cls.__signature__ = inspect.Signature(list(taken.values()))

  def _changed(
    self, variables: Any, batch: dict[str, jax.Array], number: int
  ) -> dict[str, jax.Array]:
    """Returns the batch that the model gets; `number` is the batch's index."""
    del variables, number
    return batch

  def _metrics(self, rows: dict[str, np.ndarray]) -> dict[str, float]:
    """The metrics of the images that count; there may be none."""
    mean = lambda x: float(x.mean()) if x.size else 0.0
    return {k: mean(rows[k]) for k in ("top1", "top5", "loss")}

  def run(
    self, variables: Any, look: Callable[[jax.Array], None] | None = None
  ) -> dict[str, float]:
    """Evaluates.

    Args:
      variables: the model's variables.
      look: called with the first batch's images [B, H, W, C], as the model gets
        them.

    Returns:
      `top1` and `top5` as fractions, `loss` (mean), `count` (images that
      counted) and, if any were left out, `skipped_corrupt`.
    """
    source, most = self.data.source, self._max_examples
    measure = program(
      image_metrics, self._task, sharding.replicated(self._mesh)
    )
    found, seen = [], 0
    # This number is right, because all batches but the last are full.
    num_batches = None if most is None else -(-most // self._batch_size)
    batches = itertools.islice(self.data.batches(), num_batches)
    with progress.evaluation_bar(
      min(source.num_examples, most or source.num_examples)
    ) as bar:
      for number, (batch, num) in enumerate(batches):
        batch = self._changed(variables, batch, number)
        if look and not number:
          look(batch["image"])
        found.append(measure(variables, batch))
        seen += num
        bar.update(num)
    found = jax.device_get(found)
    rows = {k: np.concatenate([r[k] for r in found]) for k in found[0]}
    kept = np.flatnonzero(rows["mask"])[:most]
    kept = kept[rows["counts"][kept] > 0]
    rows = {k: v[kept].astype(np.float64) for k, v in rows.items()}
    skipped = 0
    if most is None:
      skipped = sum(hosts.gather(source.num_examples - seen))
    return {
      **self._metrics(rows),
      "count": float(len(kept)),
      **({"skipped_corrupt": float(skipped)} if skipped else {}),
    }
