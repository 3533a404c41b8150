"""What an op that is written once needs of the engine that runs it.

Policies choose among other ops and draw their strengths. That is the same
arithmetic in a graph of TensorFlow and on an accelerator, so their factories
take the `Engine` as their first argument. No TensorFlow here.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple


class Engine(NamedTuple):
  """An engine, as far as ops that are written once know it.

  A line-up is a dict, in the order in which a policy numbers its ops: name of
  the op -> function that gives the op's arguments, from the scalars that the
  policy draws and a function from axis to the image's size along it.

  Attributes:
    xp: the array namespace, `tensorflow` or `jax.numpy`.
    cast: function from a number or array and a dtype to that dtype.
    chooser: function from a line-up and the dtypes of what is drawn to a
      function (which, image, *drawn) -> image. It applies the op of that number
      in the line-up, and leaves the image as it is where there is none.
  """

  xp: Any
  cast: Callable
  chooser: Callable

  def bind(self, get_op: Callable) -> Callable:
    """A factory whose first argument is the engine, for this engine."""

    @functools.wraps(get_op)
    def factory(*args, **kwargs):
      return get_op(self, *args, **kwargs)

    signature = inspect.signature(get_op)
    _, *own = signature.parameters.values()
    factory.__signature__ = signature.replace(parameters=own)
    return factory
