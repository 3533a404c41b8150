"""Measures features by nearest neighbours and by linear classifiers on them.

The features of a split are computed once, without augmentation, so that the
linear probe here is fast. The papers' linear probe, which trains a head on
augmented images, is configs/cropmix/linear_probe.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.sharding import Mesh

from big_crop import names
from big_crop.data.eval_data import EvalData
from big_crop.runtime import progress, sharding
from pp_ops.checks import check_number
from pp_ops.errors import UserError

METHODS = ("knn", "linear", "few_shot")


class Features(NamedTuple):
  """The features of a split, in the order in which it is stored.

  Attributes:
    x: float32 [n, D].
    label: int [n].
  """

  x: np.ndarray
  label: np.ndarray


def _unit(x):
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def nearest(
  bank: Features, x: np.ndarray, k: int, temperature: float
) -> np.ndarray:
  """Classifies features by a weighted vote of their nearest neighbours.

  Wu et al., https://arxiv.org/abs/1805.01978, section 3.4: each of the k
  nearest neighbours by cosine similarity votes for its own class with the
  weight exp(cosine / temperature).

  Args:
    bank: the features and labels of the possible neighbours.
    x: float [n, D], the features to classify.
    k: number of neighbours; all of the bank if it has fewer.
    temperature: see above.

  Returns:
    The class of each row of x, int [n].
  """
  num_classes = int(bank.label.max()) + 1
  known, label = jnp.array(_unit(bank.x)), jnp.array(bank.label)

  @jax.jit
  def votes(x):
    near, index = jax.lax.top_k(x @ known.T, min(k, len(label)))
    # Subtracting the nearest neighbour's cosine prevents an overflow of exp. It
    # scales all votes alike, so the winner stays the same.
    weight = jnp.exp((near - near[:, :1]) / temperature)
    classes = jax.nn.one_hot(label[index], num_classes)
    return (weight[..., None] * classes).sum(1).argmax(-1)

  chunks = np.array_split(_unit(x), -(-len(x) // 1024))
  return np.concatenate([votes(c) for c in chunks])


def fit(train: Features, l2: float, max_steps: int) -> Callable:
  """Multinomial logistic regression by L-BFGS.

  Minimises mean cross-entropy + l2 / 2 |W|^2 without a penalty on the bias, as
  scikit-learn's `LogisticRegression` with C = 1 / (n l2). Before that, each
  feature is centred, and all features are divided by one number, so that their
  overall variance is 1.

  Args:
    train: the training examples.
    l2: weight of the penalty.
    max_steps: maximum number of L-BFGS iterations.

  Returns:
    A function: features [n, D] -> logits [n, classes].
  """
  num_classes, width = int(train.label.max()) + 1, train.x.shape[1]
  mean = train.x.mean(0)
  scale = 1 / max(float((train.x - mean).std()), 1e-12)
  x = jnp.array((train.x - mean) * scale)
  label = jnp.array(train.label)

  @jax.jit
  @jax.value_and_grad
  def loss(flat):
    w = flat.reshape(width + 1, num_classes)
    logits = x @ w[:-1] + w[-1]
    right = jnp.take_along_axis(logits, label[:, None], 1)[:, 0]
    entropy = jax.nn.logsumexp(logits, axis=1) - right
    return entropy.mean() + l2 / 2 * jnp.square(w[:-1]).sum()

  found = scipy.optimize.minimize(
    lambda w: [np.float64(v) for v in jax.device_get(loss(jnp.float32(w)))],
    np.zeros((width + 1) * num_classes),
    jac=True,
    method="L-BFGS-B",
    options={"maxiter": max_steps, "gtol": 1e-6, "ftol": 1e-10},
  )
  w = found.x.reshape(width + 1, num_classes)
  return lambda x: (x - mean) * scale @ w[:-1] + w[-1]


def few_shot(
  train: Features, x: np.ndarray, shots: int, l2: float, seed: int
) -> np.ndarray:
  """Classifies by ridge regression on a few training examples of each class.

  The same as big_vision's `fewshot_lsr`: each feature is brought to mean 0 and
  variance 1 over the drawn examples, a constant 100 is appended for the bias,
  and targets are 1 for the right class and -1 for others. Then
  W = (X^T X + l2 I)^-1 X^T Y, in float64.

  Args:
    train: the examples to draw from.
    x: float [n, D], the features to classify.
    shots: examples per class; all of a class that has fewer.
    l2: weight of the penalty.
    seed: seed of the draw.

  Returns:
    The class of each row of x, int [n].
  """
  order = np.random.default_rng(seed).permutation(len(train.label))
  classes = np.unique(train.label)
  chosen = np.concatenate(
    [order[train.label[order] == c][:shots] for c in classes]
  )
  few = train.x[chosen].astype(np.float64)
  mean, std = few.mean(0), few.std(0) + 1e-5
  scaled = lambda x: np.pad(
    (x - mean) / std, ((0, 0), (0, 1)), constant_values=100
  )
  few = scaled(few)
  y = np.where(train.label[chosen][:, None] == classes, 1.0, -1.0)
  # X^T (X X^T + l2 I)^-1 Y is the same W. We solve the smaller system.
  if len(few) < few.shape[1]:
    w = few.T @ np.linalg.solve(few @ few.T + l2 * np.eye(len(few)), y)
  else:
    w = np.linalg.solve(few.T @ few + l2 * np.eye(few.shape[1]), few.T @ y)
  return classes[(scaled(x) @ w).argmax(1)]


class Evaluator:
  """Classifies one split with the features and labels of another."""

  def __init__(
    self,
    *,
    predict: Callable[[Any, jax.Array], tuple[jax.Array, Any]],
    mesh: Mesh,
    seed: int,
    data: dict[str, Any],
    pp_fn: str,
    train: str = "train",
    test: str = "validation",
    methods: tuple = METHODS,
    feature: str | None = None,
    k: int = 200,
    temperature: float = 0.07,
    l2: float = 1e-4,
    max_steps: int = 500,
    shots: tuple = (1, 5, 10, 25),
    few_shot_l2: float = 2.0**10,
    few_shot_draws: int = 3,
    batch_size: int = 128,
    engine: str = "tf.data",
  ):
    """Opens the data.

    Args:
      predict: the objective's `predict`.
      mesh: the mesh.
      seed: the run's seed, for a pp string with random ops.
      data: arguments of `sources.get_source`, without the split.
      pp_fn: the pp string, of both splits; it leaves `image` and `label`.
      train: split for neighbours and for training the classifiers.
      test: split to classify.
      methods: some of `METHODS`.
      feature: the name of an activation [B, ..., D]; its axes of positions or
        tokens are averaged. None for "pre_logits", the head's input, or for the
        output of the objective's `predict` if there is no "pre_logits".
      k: number of neighbours.
      temperature: temperature of their votes, see `nearest`.
      l2: see `fit`.
      max_steps: see `fit`.
      shots: numbers of examples per class, see `few_shot`.
      few_shot_l2: `l2` of `few_shot`.
      few_shot_draws: number of random draws of the examples; their accuracies
        are averaged.
      batch_size: over all devices; a last, smaller batch is padded.
      engine: what runs the pp string, see `batches.ENGINES`.

    Raises:
      ValueError: if any of it is wrong.
    """
    for method in methods:
      names.check("methods", method, METHODS)
    check_number("k", k, 1, whole=True)
    check_number("temperature", temperature, 1e-6)
    check_number("l2", l2, 0)
    check_number("max_steps", max_steps, 1, whole=True)
    for number in shots:
      check_number("shots", number, 1, whole=True)
    check_number("few_shot_l2", few_shot_l2, 0)
    check_number("few_shot_draws", few_shot_draws, 1, whole=True)
    self._methods = methods
    self._shots, self._few = shots, (few_shot_l2, few_shot_draws)
    self._neighbours = dict(k=k, temperature=temperature)
    self._probe = dict(l2=l2, max_steps=max_steps)
    self._data = [
      EvalData(
        mesh,
        seed=seed,
        data={**data, "split": split},
        pp_fn=pp_fn,
        features=("image", "label"),
        batch_size=batch_size,
        engine=engine,
      )
      for split in (train, test)
    ]

    def of_batch(variables, batch):
      x, activations = predict(variables, batch["image"])
      if feature is None:
        x = activations.get("pre_logits", x)
      else:
        names.check("activation of `feature`", feature, activations)
        x = activations[feature]
      if not hasattr(x, "ndim") or x.ndim < 2:
        raise UserError(
          f"feature={feature!r} is no array [B, ..., D]: name another"
        )
      x = x.astype(jnp.float32).mean(tuple(range(1, x.ndim - 1)))
      return x, batch["label"], batch["mask"]

    # Replicated on all devices, so that every host has all features.
    self._of_batch = jax.jit(of_batch, out_shardings=sharding.replicated(mesh))

  def run(self, variables: Any) -> dict[str, float]:
    """Evaluates.

    Args:
      variables: the model's variables.

    Returns:
      As fractions, `knn_top1`, `linear_top1`, `linear_train_top1` and, for each
      of `shots`, `few_shot_5_top1` and so on; `count`, the number of test
      images; and `spread`, 0 if all test images have the same features:
      features are scaled to length 1, and `spread` is their mean standard
      deviation over the images times sqrt(D).
    """
    train, test = (self._read(variables, data) for data in self._data)
    found = {"count": float(len(test.x))}
    found["spread"] = float(
      _unit(test.x).std(0).mean() * test.x.shape[1] ** 0.5
    )
    if "knn" in self._methods:
      classes = nearest(train, test.x, **self._neighbours)
      found["knn_top1"] = float((classes == test.label).mean())
    if "linear" in self._methods:
      classify = fit(train, **self._probe)
      for name, f in (("linear_top1", test), ("linear_train_top1", train)):
        found[name] = float((classify(f.x).argmax(1) == f.label).mean())
    if "few_shot" in self._methods:
      l2, draws = self._few
      for shots in self._shots:
        right = [
          few_shot(train, test.x, shots, l2, seed) == test.label
          for seed in range(draws)
        ]
        found[f"few_shot_{shots}_top1"] = float(np.mean(right))
    return found

  def _read(self, variables, data):
    parts = []
    with progress.evaluation_bar(data.source.num_examples) as bar:
      for batch, num in data.batches():
        x, label, mask = jax.device_get(self._of_batch(variables, batch))
        parts.append((x[mask > 0], label[mask > 0]))
        bar.update(num)
    x, label = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Features(x, label)
