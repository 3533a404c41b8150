"""Top-1, top-5 and loss on images that an attack has changed: FGSM and PGD.

x, in [0, 1], is an image before its normalisation. All operations are on each
pixel and channel separately:

    FGSM (Goodfellow et al., arXiv:1412.6572):
      x' = clip(x + eps sign(dL/dx), 0, 1)
    PGD (Madry et al., arXiv:1706.06083), `steps` times:
      x' <- clip(x' + step_size sign(dL/dx'), x - eps, x + eps), then to [0, 1]

L is the loss `loss_name`, by default the cross-entropy, of the model in
evaluation mode, where batch norm uses its running averages. The cross-entropy's
target for a set of labels is the uniform distribution over the set. In the code
the image stays normalised, so that a step of s in pixel values becomes a step
of s (white - black).
"""

import jax
import jax.numpy as jnp

from big_crop.evaluators import classification, pixels
from big_crop.evaluators.classification import Task
from big_crop.runtime import sharding
from pp_ops.checks import check_number


def attack_step(
  task: Task,
  variables,
  batch: dict[str, jax.Array],
  image: jax.Array,
  limits: dict[str, jax.Array],
) -> jax.Array:
  """Takes one step of an attack.

  Args:
    task: the model and its loss.
    variables: the model's variables.
    batch: the batch, with the image [B, H, W, C] before the attack.
    image: [B, H, W, C], the image after the previous steps.
    limits: `eps` and `step`, [C], in the units of the normalised image; `low`
      and `high`, [C], the range of its values.

  Returns:
    The image after the step.
  """

  def loss(x):
    logits = task.logits(variables, x)
    return task.loss(logits, task.labels(batch)).sum()

  moved = image + limits["step"] * jnp.sign(jax.grad(loss)(image))
  return within(moved, batch["image"], limits)


def within(moved: jax.Array, image: jax.Array, limits) -> jax.Array:
  """Clips `moved` to within eps of `image` and to the range of pixel values."""
  near = jnp.clip(moved, image - limits["eps"], image + limits["eps"])
  return jnp.clip(near, limits["low"], limits["high"])


def start_at_random(
  task: Task,
  image: jax.Array,
  limits: dict[str, jax.Array],
  seed: jax.Array,
  number: jax.Array,
) -> jax.Array:
  """Moves each image by a uniform random shift of at most eps per value.

  `number` is the index of the batch; it makes the batches' shifts differ.
  """
  del task
  key = jax.random.fold_in(jax.random.key(seed), number)
  shift = jax.random.uniform(key, image.shape, minval=-1.0, maxval=1.0)
  return within(image + limits["eps"] * shift, image, limits)


class Evaluator(classification.Evaluator):
  """Evaluates every example after an attack on it; `steps=1` is FGSM."""

  def __init__(
    self,
    *,
    mesh: jax.sharding.Mesh,
    seed: int,
    eps: float = 8 / 255,
    steps: int = 1,
    step_size: float | None = None,
    random_start: bool = False,
    **rest,
  ):
    """Opens the data.

    Args:
      mesh: the mesh.
      seed: the run's seed; the random start depends on it, too.
      eps: the largest change of a pixel value in [0, 1].
      steps: number of steps.
      step_size: by how much one step changes a pixel value in [0, 1]; by
        default `eps` for one step, and 2.5 eps / steps for more, so that every
        point within eps can be reached.
      random_start: start at a uniform random point within eps. It depends on
        the seed and the batch size.
      **rest: see `classification.Evaluator`.

    Raises:
      ValueError: if any of it is wrong, or if the pp string does not end with
        an affine normalisation of uint8 images.
    """
    check_number("eps", eps, 0, 1)
    check_number("steps", steps, 1, whole=True)
    if step_size is None:
      step_size = eps if steps == 1 else 2.5 * eps / steps
    check_number("step_size", step_size, 0, 1)
    super().__init__(mesh=mesh, seed=seed, **rest)
    found = pixels.find(self.data)
    black, white = jnp.array(found.black), jnp.array(found.white)
    unit = jnp.abs(white - black)
    limits = {
      "eps": eps * unit,
      "step": step_size * unit,
      "low": jnp.minimum(black, white),
      "high": jnp.maximum(black, white),
    }
    self._limits = jax.device_put(limits, sharding.replicated(mesh))
    self._steps, self._seed = steps, seed if random_start else None

  def _changed(self, variables, batch, number):
    place = sharding.batch_sharding(self._mesh)
    step = classification.program(attack_step, self._task, place)
    image = batch["image"]
    if self._seed is not None:
      start = classification.program(start_at_random, self._task, place)
      image = start(image, self._limits, self._seed, number)
    for _ in range(self._steps):
      image = step(variables, batch, image, self._limits)
    return batch | {"image": image}
