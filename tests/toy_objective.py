"""An objective with two views, a queue and a momentum encoder.

A small relative of MoCo (He et al., https://arxiv.org/abs/1911.05722), as a
user would write it: it is named in configs by this file's dotted path.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from big_crop import objectives

WIDTH, MOMENTUM, TEMPERATURE = 8, 0.9, 0.2


class Encoder(nn.Module):
  """Images -> unit vectors."""

  @nn.compact
  def __call__(self, image, *, train=False):
    x = nn.Dense(16)(image.reshape(len(image), -1))
    x = nn.Dense(WIDTH)(nn.gelu(x))
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True), {}


class Objective(objectives.Objective):
  """Learns to tell an image's other view from the views in the queue."""

  features = ("image", "image2")

  def __init__(self, config, num_classes):
    self.model = Encoder()
    self.queue_size = config.objective.get("queue_size", 64)

  def init(self, rng, specs):
    image = jnp.zeros((1, *specs["image"].shape))
    return dict(self.model.init(rng, image))

  def init_extra(self, rng, variables):
    queue = jax.random.normal(rng, (self.queue_size, WIDTH))
    queue /= jnp.linalg.norm(queue, axis=-1, keepdims=True)
    return {"queue": queue, "momentum": variables["params"]}

  def loss(self, params, model_state, extra, batch, rng):
    queries, _ = self.model.apply({"params": params}, batch["image"])
    keys, _ = self.model.apply({"params": extra["momentum"]}, batch["image2"])
    positive = (queries * keys).sum(-1, keepdims=True)
    logits = jnp.concatenate([positive, queries @ extra["queue"].T], -1)
    first = jnp.zeros(len(logits), int)
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits / TEMPERATURE, first
    )
    hits = (logits.argmax(-1) == 0).mean()
    return losses.mean(), objectives.Aux(model_state, {"hits": hits}, keys)

  def update_extra(self, extra, variables, outputs):
    queue = jnp.concatenate([outputs, extra["queue"]])[: self.queue_size]
    momentum = optax.incremental_update(
      variables["params"], extra["momentum"], 1 - MOMENTUM
    )
    return {"queue": queue, "momentum": momentum}

  def predict(self, variables, image):
    return self.model.apply(variables, image)


class Evaluator:
  """The spread of the outputs: 0 where they have collapsed."""

  def __init__(self, *, predict, mesh, seed, data, pp_fn, batch_size):
    from big_crop.data.eval_data import EvalData

    self._data = EvalData(
      mesh,
      seed=seed,
      data=data,
      pp_fn=pp_fn,
      features=("image",),
      batch_size=batch_size,
    )

    def sums(variables, batch):
      x, _ = predict(variables, batch["image"])
      mask = batch["mask"][:, None]
      return (mask * x).sum(0), mask.sum()

    self._sums = jax.jit(sums)

  def run(self, variables):
    sums = [self._sums(variables, batch) for batch, _ in self._data.batches()]
    total, count = (sum(x) for x in zip(*jax.device_get(sums), strict=True))
    return {"spread": float(1 - (total / count) @ (total / count))}
