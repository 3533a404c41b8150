"""The update rules that `config.optax_name` can name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import optax

from big_crop import names

Factory = Callable[..., optax.GradientTransformation]

# Those that need the loss, or that bring a learning rate of their own.
_NOT_UPDATE_RULES = {
  "scale_by_backtracking_linesearch",
  "scale_by_distance_over_gradients",
  "scale_by_learning_rate",
  "scale_by_polyak",
  "scale_by_rprop",
  "scale_by_schedule",
  "scale_by_zoom_linesearch",
}

_FACTORIES: dict[str, Factory] = {
  name: getattr(optax, name)
  for name in dir(optax)
  if name.startswith("scale_by_") and name not in _NOT_UPDATE_RULES
} | {name: getattr(optax, name) for name in ("ema", "identity", "trace")}


def register(name: str) -> Callable[[Factory], Factory]:
  """Makes a factory available as `config.optax_name = name`.

      @register("scale_by_my_rule")
      def scale_by_my_rule(beta=0.9):
        return optax.chain(...)

  What it returns maps gradients to an ascent direction, like optax's
  `scale_by_*`: learning rate, weight decay, schedule and sign come after it.

  Args:
    name: a new name.

  Returns:
    A decorator that returns its factory unchanged.

  Raises:
    ValueError: if the name is taken.
  """

  def add(factory: Factory) -> Factory:
    if name in _FACTORIES:
      raise ValueError(f"An update rule named {name!r} exists already.")
    _FACTORIES[name] = factory
    return factory

  return add


def build(name: str, kwargs: Mapping[str, Any]) -> optax.GradientTransformation:
  """Builds the update rule `name`.

  Args:
    name: one of optax's `scale_by_*`, `trace` (momentum), `identity` (plain
      SGD), `ema`, or a registered name. Full optimisers such as `adam` are
      left out: they end in the learning rate and the minus sign.
    kwargs: `config.optax`.

  Returns:
    The transformation.

  Raises:
    ValueError: for an unknown name, an argument that the rule does not have,
      and one that it needs and does not get.
  """
  if name not in _FACTORIES:
    raise names.unknown("config.optax_name", name, _FACTORIES)
  factory = _FACTORIES[name]
  try:
    inspect.signature(factory).bind(**kwargs)
  except TypeError as e:
    known = ", ".join(inspect.signature(factory).parameters) or "none"
    raise ValueError(
      f"config.optax: {e}; the arguments of {name} are: {known}."
    ) from None
  return factory(**kwargs)
