"""How well a masked autoencoder predicts the patches that it does not see."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from big_crop.data.eval_data import EvalData
from big_crop.runtime import progress, sharding

_SHOWN = 8  # images in a row of the picture


class Evaluator:
  """The mean loss over a split, and a picture of a few reconstructions."""

  def __init__(
    self,
    *,
    reconstruct: Callable[..., tuple[jax.Array, jax.Array, jax.Array]],
    mesh: jax.sharding.Mesh,
    seed: int,
    data: dict[str, Any],
    pp_fn: str,
    batch_size: int = 128,
    engine: str = "tf.data",
  ):
    """Opens the data.

    Args:
      reconstruct: the method of `objectives.masked_autoencoding`.
      mesh: the mesh.
      seed: the run's seed. It determines the hidden patches, so that an image
        hides the same patches at every evaluation.
      data: arguments of `sources.get_source`.
      pp_fn: the pp string; it leaves `image`.
      batch_size: over all devices; a last, smaller batch is padded.
      engine: what runs the pp string, see `batches.ENGINES`.

    Raises:
      ValueError: if any of it is wrong.
    """
    self._data = EvalData(
      mesh,
      seed=seed,
      data=data,
      pp_fn=pp_fn,
      features=("image",),
      batch_size=batch_size,
      engine=engine,
    )
    self._key = jax.random.key(seed)
    self._reconstruct = jax.jit(
      reconstruct, out_shardings=sharding.batch_sharding(mesh)
    )

  def run(self, variables: Any) -> dict[str, float | np.ndarray]:
    """Evaluates.

    Args:
      variables: the model's variables.

    Returns:
      `loss` (mean over the images), and `images` [24 or fewer, H, W, 3]: a row
      of images, a row of what the encoder sees of them, and a row in which
      the predictions fill the gaps.
    """
    total = count = 0.0
    shown = None
    with progress.evaluation_bar(self._data.source.num_examples) as bar:
      for number, (batch, num) in enumerate(self._data.batches()):
        key = jax.random.fold_in(self._key, number)
        image, mask = batch["image"], batch["mask"]
        hidden, filled, loss = self._reconstruct(variables, image, key)
        if shown is None:
          rows = [_mine(x)[: min(num, _SHOWN)] for x in (image, hidden, filled)]
          shown = np.concatenate(rows)
        total, count = total + (mask * loss).sum(), count + mask.sum()
        bar.update(num)
    return {"loss": float(total / count), "images": shown}


def _mine(x):
  """The shards of an array that lie on this host, in the batch's order."""
  return np.concatenate([shard.data for shard in x.addressable_shards])
