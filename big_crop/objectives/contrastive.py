"""Contrastive learning with a queue: MoCo v2.

He et al., https://arxiv.org/abs/1911.05722, Algorithm 1, and Chen et al.,
https://arxiv.org/abs/2003.04297, with the head that CropMix takes from AsymSiam
(arXiv:2203.16822). A query and a key are two views of one image; the keys of
other images come from a queue of past ones.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from big_crop import models, names
from big_crop.models.projected import Projected
from big_crop.objectives.base import Aux
from big_crop.objectives.base import Objective as Base
from pp_ops.checks import check_number
from pp_ops.errors import UserError

ARGUMENTS = dict(
  queue=65_536,
  momentum=0.999,
  temperature=0.2,
  groups=8,
  hidden=2048,
  out=128,
)


class Objective(Base):
  """Picks the key of the query's own image among the keys of a queue.

  `config.model_name` and `config.model` define the encoder. A batch holds two
  views of each image: queries are computed from `image`, keys from `image2`.
  `config.objective` may hold

    queue: number of keys in the queue, a multiple of the batch size.
    momentum: m of momentum encoder = m * momentum encoder + (1 - m) * encoder.
    temperature: similarities are divided by it.
    groups: number of parts of a batch that batch norm normalises separately,
      whatever the number of devices. In MoCo they are the 8 GPUs of a machine.
      Keys are shuffled among the groups (MoCo, section 3.3), because the model
      could otherwise recognise a query's key by their common batch statistics.
    hidden, out: widths of the projection's hidden layers and of its output.

  With gradient accumulation (`config.grad_accum`) each microbatch is cut into
  `groups` parts.

  Metrics: `contrast_top1`, how often the right key is the nearest; `alignment`
  (of queries with their keys) and `uniformity` (of queries among each other) of
  Wang and Isola (arXiv:2005.10242); and `feature_std`, the standard deviation
  of a query's entries over the batch, times sqrt(out): 1 where queries are
  spread over the sphere, 0 where all are the same.
  """

  features = ("image", "image2")

  def __init__(self, config, num_classes):
    del num_classes
    given = config.objective.to_dict()
    for key in given:
      names.check("argument of config.objective", key, ARGUMENTS)
    given = ARGUMENTS | given
    for key in ("queue", "groups", "hidden", "out"):
      check_number(f"config.objective.{key}", given[key], 1, whole=True)
    check_number("config.objective.momentum", given["momentum"], 0, 1)
    check_number("config.objective.temperature", given["temperature"], 1e-6)
    batch, accum = config.input.batch_size, config.grad_accum
    self._queue, self._groups = given["queue"], given["groups"]
    if self._queue % batch:
      raise UserError(
        f"config.objective.queue is {self._queue}: need a multiple of "
        f"config.input.batch_size, {batch}, as a batch of keys replaces another"
      )
    if batch % (accum * self._groups):
      raise UserError(
        f"config.objective.groups is {self._groups}: need a divisor of a "
        f"microbatch, which has {batch / accum:g} examples"
      )
    self._momentum = given["momentum"]
    self._temperature = given["temperature"]
    backbone = models.get_model(config.model_name, 0, **config.model)
    self.model = Projected(backbone, given["hidden"], given["out"])

  def init(self, rng, specs: Mapping[str, jax.ShapeDtypeStruct]):
    image = jnp.zeros((1, *specs["image"].shape))
    return dict(self.model.init(rng, image))

  def init_extra(self, rng, variables):
    queue = jax.random.normal(rng, (self._queue, self.model.out))
    return {
      "queue": _normalised(queue),
      "oldest": jnp.zeros((), jnp.int32),
      "momentum": variables["params"],
    }

  def prepare(self, batch, rng):
    del rng
    for key in self.features:
      if not jnp.issubdtype(batch[key].dtype, jnp.floating):
        raise UserError(
          f"the view {key!r} is {batch[key].dtype}; end input.pp with a float "
          f'op for each view, such as vgg_value_range(key="{key}")'
        )
    return dict(batch)

  def loss(self, params, model_state, extra, batch, rng):
    shuffle_rng, query_rng, key_rng = jax.random.split(rng, 3)
    queries, new_state = self._embed(
      params, model_state, batch["image"], query_rng
    )
    order = jax.random.permutation(shuffle_rng, len(queries))
    shuffled = batch["image2"][order]
    keys, _ = self._embed(extra["momentum"], model_state, shuffled, key_rng)
    keys = jax.lax.stop_gradient(keys[jnp.argsort(order)])
    right = (queries * keys).sum(-1, keepdims=True)
    others = queries @ extra["queue"].T
    logits = jnp.concatenate([right, others], axis=1) / self._temperature
    label = jnp.zeros(len(logits), jnp.int32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    metrics = {
      "contrast_top1": (logits.argmax(-1) == 0).mean(),
      **spread(queries, keys),
    }
    return loss, Aux(new_state, metrics, keys)

  def update_extra(self, extra, variables, outputs):
    momentum = optax.incremental_update(
      variables["params"], extra["momentum"], 1 - self._momentum
    )
    oldest = extra["oldest"]
    queue = jax.lax.dynamic_update_slice(extra["queue"], outputs, (oldest, 0))
    oldest = (oldest + len(outputs)) % self._queue
    return {"queue": queue, "oldest": oldest, "momentum": momentum}

  def predict(self, variables, image):
    """The encoder's features [B, D], and its dict of activations."""
    return self.model.apply(variables, image, method="encode")

  def warning(self, metrics):
    if metrics["feature_std"] < 0.01:
      return (
        "the queries have collapsed: their entries differ by "
        f"{metrics['feature_std']:.2g} of what spread ones would over a batch; "
        "try a lower lr, a longer warm-up or a higher temperature"
      )
    return None

  def _embed(self, params, model_state, image, rng):
    """Projections [B, out] of length 1, and the new running statistics.

    The running statistics are those of the first group, because PyTorch's
    DistributedDataParallel copies the first GPU's to all before each step.
    """

    def one(image, rng):
      return self.model.apply(
        {"params": params, **model_state},
        image,
        train=True,
        rngs={"dropout": rng},
        mutable=list(model_state),
      )

    groups = image.reshape(self._groups, -1, *image.shape[1:])
    x, state = jax.vmap(one)(groups, jax.random.split(rng, self._groups))
    first = jax.tree.map(lambda s: s[0], state)
    return _normalised(x.reshape(-1, x.shape[-1])), first


def _normalised(x):
  length = jnp.linalg.norm(x, axis=-1, keepdims=True)
  return x / jnp.maximum(length, 1e-12)


def spread(queries: jax.Array, keys: jax.Array) -> dict[str, jax.Array]:
  """Measures how close the views of an image are, and how spread the queries.

  Wang and Isola, https://arxiv.org/abs/2005.10242: alignment E |q - k|^2,
  uniformity log E exp(-2 |q - q'|^2) over pairs of different images.

  Args:
    queries: [B, D] of length 1.
    keys: [B, D] of length 1, of the same images.

  Returns:
    float32 scalars: `alignment`, `uniformity` and `feature_std`.
  """
  n, width = queries.shape
  distance = 2 - 2 * queries @ queries.T
  others = ~jnp.eye(n, dtype=bool)
  near = jnp.where(others, jnp.exp(-2 * distance), 0).sum()
  return {
    "alignment": jnp.square(queries - keys).sum(-1).mean(),
    "uniformity": jnp.log(near / max(n * (n - 1), 1)),
    "feature_std": queries.std(0).mean() * width**0.5,
  }
