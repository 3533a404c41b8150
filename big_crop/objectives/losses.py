"""Classification losses, one number per example."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from big_crop import names

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def softmax_xent(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Softmax cross-entropy, -sum_c y_c log softmax(z)_c.

  Args:
    logits: [B, C], any float dtype; computed in float32.
    labels: [B, C] float, a distribution over the classes.

  Returns:
    [B] float32, in nats.
  """
  return optax.softmax_cross_entropy(*_float32(logits, labels))


def sigmoid_xent(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Binary cross-entropy of each class, summed over the classes.

  -sum_c [y_c log sigmoid(z_c) + (1 - y_c) log sigmoid(-z_c)]. The sum, not the
  mean, is big_vision's convention.

  Args:
    logits: [B, C], any float dtype; computed in float32.
    labels: [B, C] float in [0, 1]; any number of classes may be on.

  Returns:
    [B] float32, in nats.
  """
  logits, labels = _float32(logits, labels)
  return optax.sigmoid_binary_cross_entropy(logits, labels).sum(axis=-1)


def mean_sigmoid_xent(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Binary cross-entropy of each class, averaged over the classes.

  `sigmoid_xent` / C, which is timm's `BinaryCrossEntropy`. The learning rates
  of "ResNet strikes back" are for this loss. For the arguments see
  `sigmoid_xent`.

  Returns:
    [B] float32, in nats.
  """
  return sigmoid_xent(logits, labels) / logits.shape[-1]


_LOSSES = {
  "softmax_xent": softmax_xent,
  "sigmoid_xent": sigmoid_xent,
  "mean_sigmoid_xent": mean_sigmoid_xent,
}


def get(name: str) -> Loss:
  """Returns the loss of this name: (logits [B, C], labels [B, C]) -> [B]."""
  if name not in _LOSSES:
    raise names.unknown("config.loss", name, _LOSSES)
  return _LOSSES[name]


def _float32(*arrays: jax.Array) -> list[jax.Array]:
  return [array.astype(jnp.float32) for array in arrays]
