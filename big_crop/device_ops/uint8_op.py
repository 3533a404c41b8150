"""Ops on uint8 images as parameters of a few stages, as policies need them.

Under `jax.vmap` every image goes through all branches of a condition, so a
policy that chose among 15 ops by a condition would run 15 ops for each image.
Instead, an op is a `Part`: parameters for one of a few stages, such as a table
of grey levels, a blend of two images, an affine move or a covered box. A policy
runs each stage once, with parameters that it picks per image. A stage that the
image's op does not use gets parameters that leave the image unchanged.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from big_crop.device_ops.registry import register
from pp_ops.augmentations import check_uint8_image

# The registered factories, without the checks of images that `register_uint8`
# adds.
_FACTORIES: dict[str, Callable] = {}


class Stage(NamedTuple):
  """What one kind of op does to an image.

  Attributes:
    run: (image, parameters) -> image, uint8 [H, W, C].
    nothing: image -> the parameters that leave it unchanged.
  """

  run: Callable[[jax.Array, Any], jax.Array]
  nothing: Callable[[jax.Array], Any]


class Part(NamedTuple):
  """An op: a stage, and image -> the parameters that the op gives to it."""

  stage: Stage
  parameters: Callable[[jax.Array], Any]


def run(part: Part, image: jax.Array) -> jax.Array:
  """Applies one op to a uint8 [H, W, C] image."""
  return part.stage.run(image, part.parameters(image))


def run_one_of(
  parts: Sequence[Part], which: jax.Array, image: jax.Array
) -> jax.Array:
  """Applies `parts[which]`; returns the image unchanged if `which` is no index.

  `which` is an int32 scalar, which under `jax.vmap` may differ between images;
  the image is uint8 [H, W, C].
  """
  for stage in dict.fromkeys(part.stage for part in parts):
    chosen = stage.nothing(image)
    for i, part in enumerate(parts):
      if part.stage is stage:
        pick = functools.partial(jnp.where, which == i)
        chosen = jax.tree.map(pick, part.parameters(image), chosen)
    # Without the barrier XLA may fuse a stage into the next one, and recompute
    # a pixel each time that the next stage reads it.
    image = jax.lax.optimization_barrier(stage.run(image, chosen))
  return image


def chooser(line_up: dict[str, Callable[..., tuple]], *dtypes) -> Callable:
  """The choice of an op from a line-up; see `pp_ops.engines`."""
  del dtypes  # Tracing finds out the dtypes by itself.

  def choose(which, image, *drawn):
    side = lambda axis: image.shape[axis]
    parts = [
      _FACTORIES[name](*args_at(*drawn, side))
      for name, args_at in line_up.items()
    ]
    return run_one_of(parts, which, image)

  return choose


def register_uint8(name: str) -> Callable[[Callable], Callable]:
  """Decorator: registers a factory of ops on uint8 images, and returns it.

  The factory returns a `Part` or a function of (image, rng). The registered op
  raises a one-line error for anything but uint8 [H, W, 3 or 1].
  """

  def add(factory):
    @functools.wraps(factory)
    def checked_factory(*args, **kwargs):
      op = factory(*args, **kwargs)
      if isinstance(op, Part):
        op = functools.partial(run, op)

      @functools.wraps(op)  # The registry asks the op whether it takes an rng.
      def checked_op(image, **rng):
        check_uint8_image(name, image, image.ndim)
        return op(image, **rng)

      return checked_op

    register(name)(checked_factory)
    _FACTORIES[name] = factory
    return factory

  return add
