"""What the engines of the input pipeline share.

An engine is a module that runs pp strings over a source's examples:
`input_pipeline` in tf.data on the host, `device_pipeline` in JAX on the
devices. This module does not import TensorFlow. Each engine has:

    get_preprocess_fn(spec) -> pp, the function of a pp string
    lookup(name) -> the op of that name in the engine's registry
    apply(pp, images) -> images after pp, all of whose ops are on the image
    feature_specs(source, pp, features)
      {name: jax.ShapeDtypeStruct} of an example, for the wanted features that
      the pp function leaves
    device_batches(source, pp, features, batch_size, *, mesh, seed, start=0,
                   repeats=1, ...)
      yields the endless training batches: (global arrays, this host's `Batch`
      that they came from, without its data)
    eval_device_batches(source, pp, features, batch_size, *, mesh, seed=0, ...)
      yields every example once, in stored order: (global arrays [B, ...] with
      "mask" [B] float32, which is 0 for padding; the number of this host's
      examples in the batch)
    describe(source, mesh, ...) -> what a run's first line says of the data
    OPTIONS: the keys of config.input that are further arguments of
      `device_batches`, `eval_device_batches` and `describe`

`source` is this host's share, `batch_size` counts this host's examples, `seed`
is the run's seed, and `start` is the `position` of a former batch. `repeats` is
repeated augmentation (Hoffer et al., arXiv:1901.09335; Berman et al.,
arXiv:1902.05509): each image comes this many times in a row, and so in one
global batch, augmented anew each time. An epoch keeps its length and shows one
image in `repeats`, as with DeiT's sampler. All raise a one-line ValueError if a
feature is missing or has no fixed shape, if `repeats` is not a whole number
from 1 to 255, and for a corrupt example, which the error names.
"""

import importlib
import itertools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from big_crop import names
from pp_ops.errors import UserError

# config.input.engine -> the engine's module. That of tf.data loads TensorFlow.
ENGINES = {
  "tf.data": "big_crop.data.input_pipeline",
  "device": "big_crop.data.device_pipeline",
}

# Names of the features that a pp string must leave; all others are dropped. A
# tuple of names stands for alternatives, of which one suffices.
Features = Sequence[str | tuple[str, ...]]


class Batch(NamedTuple):
  """One host's part of a batch.

  Attributes:
    data: features by name, [local batch size, ...].
    mask: [local batch size] float32, 0 for padding. None in training.
    position: where the next batch starts in the stream of examples.
    skipped: number of corrupt examples left out since the previous batch.
  """

  data: dict[str, np.ndarray]
  mask: np.ndarray | None
  position: int
  skipped: int


def engine(name: str) -> types.ModuleType:
  """The module of an engine.

  Raises:
    ValueError: if there is no engine of that name.
  """
  names.check("config.input.engine", name, ENGINES)
  return importlib.import_module(ENGINES[name])


def names_of(features: Features) -> list[str]:
  """All names in a list of features, alternatives included."""
  alternatives = ((f,) if isinstance(f, str) else f for f in features)
  return list(itertools.chain.from_iterable(alternatives))


def check_features(found: Mapping[str, Any], features: Features) -> None:
  """Raises a one-line ValueError unless the wanted features are there."""
  for feature in features:
    wanted = (feature,) if isinstance(feature, str) else feature
    if not set(wanted) & set(found):
      missing = " nor ".join(map(repr, wanted))
      what = "neither" if len(wanted) > 1 else "no feature"
      raise UserError(f"the pp string leaves {what} {missing}")


def check_repeats(repeats: int) -> None:
  """Raises a one-line ValueError unless `repeats` is an int from 1 to 255."""
  if not (isinstance(repeats, int) and 1 <= repeats < 256):
    raise UserError(f"repeats is {repeats!r}: need a whole number, 1 to 255")


def ahead(
  batches: Iterator[tuple[dict[str, jax.Array], Any]],
) -> Iterator[tuple[dict[str, jax.Array], Any]]:
  """Yields the same batches, but requests each one a step before it is needed.

  Work on the devices is asynchronous, so the next batch is then made while the
  current one is used.
  """
  queue = []
  for batch in batches:
    queue.append(batch)
    if len(queue) == 2:
      yield queue.pop(0)
  yield from queue
