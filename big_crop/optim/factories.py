"""The update rules that `config.optax_name` can name."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from big_crop import names
from pp_ops.checks import check_number
from pp_ops.errors import UserError


class AroundLearningRate(NamedTuple):
  """An update rule in two parts, with the learning rate between them.

  Attributes:
    before: maps gradients to an ascent direction.
    after: gets this direction times minus the learning rate and the schedule.
      It is applied to each group of parameters with the same schedule and
      factors separately.
  """

  before: optax.GradientTransformation
  after: optax.GradientTransformation


Rule = optax.GradientTransformation | AroundLearningRate
Factory = Callable[..., Rule]

# These need the loss, are a learning rate, or bring their own.
_NOT_UPDATE_RULES = {
  "scale_by_backtracking_linesearch",
  "scale_by_distance_over_gradients",
  "scale_by_learning_rate",
  "scale_by_polyak",
  "scale_by_rprop",
  "scale_by_schedule",
  "scale_by_zoom_linesearch",
}

# Arguments that `optim.make` passes itself, and so config.optax must not have;
# and what to set instead.
_GIVEN = {
  "weight_decay": "set config.wd, and config.wd_in='rule'",
  "split_outputs": "the model says it, see big_crop.models",
}

# The largest values of arguments with these names, whatever the rule; the least
# is 0.
_MOST = {"b1": 1, "b2": 1, "decay": 1, "eps": math.inf, "eps_root": math.inf}

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

  The factory returns a transformation of gradients into an ascent direction,
  like optax's `scale_by_*`, because `optim.make` applies learning rate, weight
  decay, schedule and sign after it; or it returns an `AroundLearningRate`. A
  factory with an argument `weight_decay` can be used with
  `config.wd_in = "rule"`: it then gets a tree of floats, like the parameters
  that are not frozen, and otherwise None. A factory with an argument
  `split_outputs` gets the model's; see `optim.layout`.

  Args:
    name: a new name.

  Returns:
    A decorator that returns its factory unchanged.
  """

  def add(factory: Factory) -> Factory:
    if name in _FACTORIES:
      raise UserError(f"An update rule named {name!r} exists already.")
    _FACTORIES[name] = factory
    return factory

  return add


def build(
  name: str,
  kwargs: Mapping[str, Any],
  weight_decay: Any | None = None,
  split_outputs: Sequence[str] | None = None,
) -> Rule:
  """Builds the update rule `name`.

  Args:
    name: one of optax's `scale_by_*`, `trace` (momentum), `identity` (plain
      SGD), `ema`, or a registered name. Full optimisers such as `adam` are
      left out: they end in the learning rate and the minus sign.
    kwargs: `config.optax`.
    weight_decay: see `register`; None unless `config.wd_in = "rule"`.
    split_outputs: see `register`.

  Returns:
    The rule.

  Raises:
    ValueError: in one line, for an unknown rule, or a wrong argument of it.
  """
  if name not in _FACTORIES:
    raise names.unknown("config.optax_name", name, _FACTORIES)
  factory = _FACTORIES[name]
  for key, instead in _GIVEN.items():
    if key in kwargs:
      raise UserError(f"config.optax.{key}: {instead}.")
  if weight_decay is not None:
    if "weight_decay" not in _arguments(factory):
      able = [
        n for n, f in _FACTORIES.items() if "weight_decay" in _arguments(f)
      ]
      raise UserError(
        f"config.wd_in is 'rule', but {name} has no weight decay; use"
        f" 'gradient' or 'update', or one of {', '.join(able)}."
      )
    kwargs = dict(kwargs, weight_decay=weight_decay)
  if "split_outputs" in _arguments(factory):
    kwargs = dict(kwargs, split_outputs=split_outputs)
  try:
    inspect.signature(factory).bind(**kwargs)
  except TypeError as e:
    known = [n for n in _arguments(factory) if n not in _GIVEN]
    raise UserError(
      f"config.optax: {e}; the arguments of {name} are:"
      f" {', '.join(known) or 'none'}."
    ) from None
  names.check_arguments("config.optax", factory, kwargs)
  for key, value in kwargs.items():
    where = f"config.optax.{key}"
    if key in _MOST and names.is_of_kind(value, float):
      check_number(where, value, 0, _MOST[key])
    if key.endswith("dtype") and isinstance(value, str):
      try:
        jnp.dtype(value)
      except TypeError:
        raise UserError(f"{where}={value!r} is no dtype") from None
  return factory(**kwargs)


def _arguments(factory: Factory) -> Mapping[str, inspect.Parameter]:
  return inspect.signature(factory).parameters


def add_decay(weight_decay: Any) -> optax.GradientTransformation:
  """Adds to each update its parameter times its weight decay.

  The decays are a tree of floats like the parameters. optax.add_decayed_weights
  takes only one decay for all parameters.
  """
  add = lambda update, param, decay: update + decay * param
  return optax.stateless(
    lambda updates, params: jax.tree.map(add, updates, params, weight_decay)
  )


def decays(weight_decay: Any, params: Any) -> Any:
  """Returns the tree of weight decays, zeros where none are given."""
  if weight_decay is None:
    return jax.tree.map(lambda _: 0.0, params)
  return weight_decay
