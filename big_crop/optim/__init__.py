"""config -> optax chain: update rule, decoupled decay, schedules, freezing."""

from collections.abc import Mapping, Sequence
from typing import Any

import optax

from big_crop import trees
from big_crop.optim import (
  schedules,
  scion,  # noqa: F401  registers scale_by_scion
)
from big_crop.optim.factories import build, register

__all__ = ["frozen_mask", "make", "register"]

_WD_MULTS = ((".*/kernel$", 1.0),)


def make(
  config: Mapping[str, Any],
  params: Any,
  *,
  total_steps: int,
  batch_size: int,
  data_size: int,
) -> tuple[optax.GradientTransformation, list[optax.Schedule]]:
  """Builds the optimiser, with big_vision's config keys and meaning.

  At step t a parameter p with gradient g becomes

      u = rule(clip(g))
      p - f(t) * (lr * lr_mult * u + wd * wd_mult * p)

  so weight decay is decoupled (Loshchilov & Hutter, arXiv:1711.05101,
  Algorithm 2): scaled by the schedule f, but not by the learning rate.

  Keys of `config`:
    optax_name: the rule; see `factories.build`.
    optax: its keyword arguments. Default none.
    lr: the base learning rate.
    wd: the base weight decay. Default 0.
    lr_mults, wd_mults: lists of (regex, factor > 0 or >= 0) over parameter
      names, first match wins. Without a match a parameter has factor 1 and no
      weight decay, respectively; `wd_mults` is `[(".*/kernel$", 1.0)]` unless
      given.
    schedule: a dict for `schedules.make`, or a list of (regex, dict or None)
      that covers every parameter. None freezes: no update, no decay, no
      optimiser state. Default constant.
    grad_clip_norm: the largest global norm of the gradients of all parameters
      that are not frozen. Default none.

  Args:
    config: a ConfigDict or dict; other keys are ignored.
    params: the parameters, or anything with their tree structure.
    total_steps: steps of the whole run.
    batch_size: examples per step, over all devices.
    data_size: examples per epoch.

  Returns:
    The transformation, whose updates are to be added to the parameters, and
    the schedule functions f, step -> factor, one for each pattern that is not
    frozen, in the order of the config.

  Raises:
    ValueError: one line, for everything above that does not hold.
  """
  for key in ("optax_name", "lr"):
    if config.get(key) is None:
      raise ValueError(f"config.{key} is missing.")
  rules = _schedule_rules(config)
  sizes = {
    "total_steps": total_steps,
    "batch_size": batch_size,
    "data_size": data_size,
  }
  fns = [
    None if schedule is None else schedules.make(schedule, **sizes)
    for _, schedule in rules
  ]
  names = [name for name, _ in trees.named_leaves(params)]
  schedule_of = _cover(names, rules)
  lr, wd = config["lr"], config.get("wd") or 0.0
  lr_mults = config.get("lr_mults") or ()
  wd_mults = (config.get("wd_mults") or _WD_MULTS) if wd else ()
  lr_mult = _multipliers(names, lr_mults, "lr_mults", default=1.0)
  wd_mult = _multipliers(names, wd_mults, "wd_mults", default=0.0)

  # One group for each combination that occurs, each with a chain of its own.
  group_of, groups = {}, {}
  for name in names:
    fn = fns[schedule_of[name]]
    if fn is None:
      group_of[name], chain = "frozen", optax.set_to_zero()
    else:
      group_of[name] = (
        f"schedule{schedule_of[name]}_lr{lr_mult[name]}_wd{wd_mult[name]}"
      )
      chain = optax.chain(
        optax.scale(lr * lr_mult[name]),
        optax.add_decayed_weights(wd * wd_mult[name]),
        optax.scale_by_learning_rate(fn),
      )
    groups[group_of[name]] = chain

  rule = build(config["optax_name"], config.get("optax") or {})
  if (clip := config.get("grad_clip_norm")) is not None:
    if clip <= 0:
      raise ValueError(f"config.grad_clip_norm is {clip}, but must be > 0.")
    rule = optax.chain(optax.clip_by_global_norm(clip), rule)
  tx = optax.chain(
    optax.masked(rule, _tree(params, lambda n: group_of[n] != "frozen")),
    optax.partition(groups, _tree(params, group_of.__getitem__)),
  )
  return tx, [fn for fn in fns if fn is not None]


def frozen_mask(config: Mapping[str, Any], params: Any) -> Any:
  """Returns the tree of `params` with True where `config.schedule` is None."""
  rules = _schedule_rules(config)
  index = _cover([name for name, _ in trees.named_leaves(params)], rules)
  return _tree(params, lambda name: rules[index[name]][1] is None)


def _tree(params: Any, value_of: Any) -> Any:
  return trees.map_with_names(lambda name, _: value_of(name), params)


def _schedule_rules(config: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
  schedule = config.get("schedule") or {}
  if not isinstance(schedule, list | tuple):
    return [(".*", schedule)]
  return schedule


def _cover(names: list[str], rules: Sequence[tuple[str, Any]]) -> dict:
  index_of = trees.first_match(names, rules, "config.schedule")
  for name in names:
    if name not in index_of:
      raise ValueError(
        f"config.schedule does not cover {name!r}; add a (regex, dict) for it,"
        " or (regex, None) to freeze it."
      )
  if all(rules[index][1] is None for index in index_of.values()):
    raise ValueError("config.schedule freezes every parameter.")
  return index_of


def _multipliers(
  names: list[str], rules: Sequence[tuple[str, float]], key: str, default: float
) -> dict[str, float]:
  """Returns the factor of each name, `default` where no rule matches."""
  index_of = trees.first_match(names, rules, f"config.{key}")
  for pattern, factor in rules:
    if factor < 0 or (key == "lr_mults" and factor == 0):
      raise ValueError(
        f"config.{key}: factor {factor} of {pattern!r} must be positive; to"
        " freeze, give the schedule None."
      )
  return {
    name: rules[index_of[name]][1] if name in index_of else default
    for name in names
  }
