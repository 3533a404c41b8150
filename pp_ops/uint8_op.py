"""Helpers of ops on uint8 images: registration, fill, choosing one of many."""

import functools
from collections.abc import Callable

import tensorflow as tf

from pp_ops.augmentations import check_fill_fits, check_uint8_image
from pp_ops.registry import lookup, register


def register_uint8(name: str) -> Callable[[Callable], Callable]:
  """Decorator: registers a factory of ops on uint8 images.

  Each op, called by a pp string or directly, then maps a uint8 [height, width,
  channels] image, 3 channels or 1, to one of the same shape. For anything else
  it raises a one-line error.

  Args:
    name: what the pp string calls it.
  """

  def add(factory):
    @functools.wraps(factory)
    def checked_factory(*args, **kwargs):
      op = factory(*args, **kwargs)

      @functools.wraps(op)  # The registry asks the op whether it takes an rng.
      def checked_op(image, *rest, **rng):
        image = tf.convert_to_tensor(image)
        check_uint8_image(name, image, image.shape.rank)
        return tf.ensure_shape(op(image, *rest, **rng), image.shape)

      return checked_op

    return register(name)(checked_factory)

  return add


def filled(height, width, image: tf.Tensor, fill) -> tf.Tensor:
  """A uint8 image [height, width, channels of `image`] filled with `fill`."""
  channels = image.shape[-1]
  check_fill_fits(fill, channels)
  shape = [height, width, channels]
  if isinstance(fill, int):  # several times faster than broadcasting
    return tf.fill(shape, tf.constant(fill, tf.uint8))
  return tf.broadcast_to(tf.constant(fill, tf.uint8), shape)


def ops_of(line_up: dict[str, Callable[..., tuple]]) -> list[Callable]:
  """The ops of a policy's line-up, see `pp_ops.engines.Engine`.

  Args:
    line_up: name -> function that gives the op's arguments, from what a policy
      draws and a function from an axis to the image's size along it, int32.

  Returns:
    Functions (uint8 image, *drawn) -> image, in the line-up's order.
  """

  def op(name, args_at):
    def on_image(image, *drawn):
      side = lambda axis: tf.shape(image)[axis]
      return lookup(name).factory(*args_at(*drawn, side))(image)

    return on_image

  return [op(name, args_at) for name, args_at in line_up.items()]


def one_of(ops, *args: tf.TensorSpec):
  """Prepares the choice of one op per image.

  Args:
    ops: functions from (image, *args) to an image, or to nested tensors. All
      return the same dtypes and static shapes.
    *args: dtypes and shapes of the further arguments.

  Returns:
    A function from (int32 scalar tensor i, image, *args) to
    ops[i](image, *args), which runs only that op.
  """

  # Cached, because tracing some twenty ops takes seconds and a pipeline traces
  # more than once: for its element's shapes, for its epochs, and for every
  # image when it runs eagerly.
  @functools.lru_cache(maxsize=4)
  def branches(shape, dtype):
    spec = [tf.TensorSpec(shape, dtype), *args]
    return [
      tf.function(op, autograph=False).get_concrete_function(*spec)
      for op in ops
    ]

  def choose(which, image, *inputs):
    found = branches(image.shape, image.dtype)
    like = tf.nest.flatten(found[0].structured_outputs)
    # Not tf.switch_case, because it inlines all branches in the graph, where
    # skipping 15 of them took an eighth of the time.
    out = tf.raw_ops.Case(
      branch_index=which,
      input=[image, *inputs],
      Tout=[x.dtype for x in like],
      branches=found,
      output_shapes=[x.shape for x in like],
    )
    return tf.nest.pack_sequence_as(found[0].structured_outputs, out)

  return choose
