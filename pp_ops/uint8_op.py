"""What the ops on uint8 images share: registration and argument checks."""

import functools
import math
from collections.abc import Callable

import tensorflow as tf

from pp_ops.errors import UserError
from pp_ops.registry import register


def register_uint8(name: str) -> Callable[[Callable], Callable]:
  """Decorator: registers a factory of ops on uint8 images.

  Each op, called by a pp string or directly, then maps a uint8 [height, width,
  channels] image, 3 channels or 1, to one of the same shape, and says so in one
  line if it gets anything else.

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
        _check_image(name, image)
        return tf.ensure_shape(op(image, *rest, **rng), image.shape)

      return checked_op

    return register(name)(checked_factory)

  return add


def _check_image(name, image):
  shape = image.shape
  good = shape.rank == 3 and shape[-1] in (1, 3)
  if image.dtype != tf.uint8 or not good:
    raise UserError(
      f"op {name!r} got {image.dtype.name} {shape}: need uint8 [height, width, "
      "channels] with 3 channels or 1, as decoded"
    )


def check_number(
  name: str, value, low: float, high: float = math.inf, whole: bool = False
) -> None:
  """Raises a one-line ValueError unless low <= value <= high.

  A tensor passes: what is drawn in the graph is not known yet.

  Args:
    name: the argument's.
    value: number or scalar tensor.
    low: least that is allowed.
    high: most that is allowed.
    whole: whether it must be an int.
  """
  if tf.is_tensor(value):
    return
  kinds = int if whole else (int, float)
  number = isinstance(value, kinds) and not isinstance(value, bool)
  if not (number and math.isfinite(value) and low <= value <= high):
    ends = [f"{low:g} <= "] * math.isfinite(low) + [name]
    ends += [f" <= {high:g}"] * math.isfinite(high)
    what = "a whole number" if whole else "a number"
    bounds = "".join(ends) if len(ends) > 1 else "finite"
    raise UserError(f"{name}={value!r}: need {what}, {bounds}")


def check_fill(fill) -> None:
  """Raises a one-line ValueError unless `fill` is a grey level, or three."""
  values = fill if isinstance(fill, (tuple, list)) else [fill]
  if len(values) not in (1, 3) or not all(
    type(v) is int and 0 <= v <= 255 for v in values
  ):
    raise UserError(
      f"fill={fill!r}: need a whole number, 0 to 255, or one per channel"
    )


def filled(height, width, image: tf.Tensor, fill) -> tf.Tensor:
  """uint8 [height, width, channels of `image`] of nothing but `fill`."""
  channels = image.shape[-1]
  if not isinstance(fill, int) and len(fill) not in (1, channels):
    raise UserError(f"fill={fill!r} for an image of {channels} channel: need 1")
  shape = [height, width, channels]
  if isinstance(fill, int):  # several times faster than broadcasting
    return tf.fill(shape, tf.constant(fill, tf.uint8))
  return tf.broadcast_to(tf.constant(fill, tf.uint8), shape)


def one_of(ops, *args: tf.TensorSpec):
  """Prepares the choice of one op per image.

  Args:
    ops: functions from (uint8 image, *args) to an image of the same shape.
    *args: what the further arguments look like.

  Returns:
    A function from (int32 scalar tensor i, image, *args) to
    ops[i](image, *args), of which only that op runs.
  """

  # Kept, because tracing some twenty ops takes seconds and a pipeline asks for
  # them more than once: for the shapes of its elements, for its epochs, and at
  # every image where it runs eagerly.
  @functools.lru_cache(maxsize=4)
  def branches(shape):
    spec = [tf.TensorSpec(shape, tf.uint8), *args]
    return [
      tf.function(op, autograph=False).get_concrete_function(*spec)
      for op in ops
    ]

  def choose(which, image, *inputs):
    # Not tf.switch_case, which lays all branches side by side in the graph:
    # skipping 15 of them took an eighth of the time.
    (out,) = tf.raw_ops.Case(
      branch_index=which,
      input=[image, *inputs],
      Tout=[tf.uint8],
      branches=branches(image.shape),
      output_shapes=[image.shape],
    )
    return out

  return choose
