"""What an op that is written once for all engines needs of its engine.

Policies choose among other ops and draw their strengths. That is the same
arithmetic in a TensorFlow graph and on an accelerator, so a policy's factory
takes the `Engine` as its first argument. This module does not import
TensorFlow.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple


class Engine(NamedTuple):
  """The parts of an engine that ops written once for all engines use.

  A line-up is a dict from an op's name to a function that gives the op's
  arguments. A policy numbers the ops in the order of the dict. The function
  takes the scalars that the policy draws, and a function from an axis to the
  image's size along it.

  Attributes:
    xp: the array namespace, `tensorflow` or `jax.numpy`.
    cast: function (number or array, dtype) -> array of that dtype.
    chooser: function from a line-up and the dtypes of what the policy draws to
      a function (which, image, *drawn) -> image. That function applies op
      number `which` of the line-up; if `which` is beyond the line-up, it
      returns the image unchanged.
  """

  xp: Any
  cast: Callable
  chooser: Callable

  def bind(self, get_op: Callable) -> Callable:
    """The factory `get_op(engine, ...)` as a factory `get_op(...)`."""

    @functools.wraps(get_op)
    def factory(*args, **kwargs):
      return get_op(self, *args, **kwargs)

    signature = inspect.signature(get_op)
    _, *own = signature.parameters.values()
    factory.__signature__ = signature.replace(parameters=own)
    return factory
