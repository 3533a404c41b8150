"""config -> optax chain: clipping, update rule, decay, schedules, freezing.

`make` builds the chain. The modules:

schedules            learning-rate schedules: step -> factor
schedules_by_epoch   what a schedule does once per epoch: `per`, `lr_noise`
scaling              the learning rate at another batch size
factories            the update rules by name, and `register` for your own
agc                  adaptive gradient clipping
layout               which axes of a parameter are inputs, which outputs
all others           update rules that optax lacks, one or two a module
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

from big_crop import names as known_names
from big_crop import trees
from big_crop.optim import (  # noqa: F401  some only register their rule
  adamp,
  agc,
  lamb_and_lars,
  rmsprop_tf,
  schedules,
  scion,
)
from big_crop.optim.factories import (
  AroundLearningRate,
  add_decay,
  build,
  register,
)
from pp_ops.errors import UserError

__all__ = ["frozen_mask", "make", "register"]

_WD_MULTS = ((".*/kernel$", 1.0),)
_WD_IN = ("update", "gradient", "rule")


def make(
  config: Mapping[str, Any],
  params: Any,
  *,
  total_steps: int,
  batch_size: int,
  data_size: int,
  split_outputs: Sequence[str] | None = None,
) -> tuple[optax.GradientTransformation, list[optax.Schedule]]:
  """Builds the optimiser, with big_vision's config keys and meaning.

  At step t a parameter p with gradient g becomes

      u = rule(clip(g))
      p - f(t) * (lr * lr_mult * u + wd * wd_mult * p)

  Weight decay is then decoupled (Loshchilov & Hutter, arXiv:1711.05101,
  Algorithm 2): scaled by the schedule f, but not by the learning rate. That is
  `wd_in = "update"`. With "gradient", weight decay is an L2 penalty:

      u = rule(clip(g) + wd * wd_mult * p)
      p - f(t) * lr * lr_mult * u

  With "rule", the update rule itself decays the weights (LAMB, LARS, AdamP), so
  that the decay is scaled by the learning rate, too.

  Keys of `config`:
    optax_name: the rule; see `factories.build`.
    optax: the rule's keyword arguments. Default none.
    lr: the base learning rate.
    wd: the base weight decay. Default 0.
    wd_in: where weight decay acts, as above. Default "update".
    lr_mults, wd_mults: lists of (regex, factor) over parameter names; the first
      match wins. Factors of lr_mults are > 0, those of wd_mults >= 0. A
      parameter without a match has lr_mult 1, and wd_mult 0. `wd_mults` is
      `[(".*/kernel$", 1.0)]` unless given.
    schedule: a dict for `schedules.make`, or a list of (regex, dict or None)
      that covers every parameter. None freezes: no update, no decay, no
      optimiser state. Default constant.
    grad_clip_norm: the largest global norm of the gradients of all parameters
      that are not frozen. Default none.
    agc: the clip factor of adaptive gradient clipping, which excludes
      grad_clip_norm. Default none.
    agc_exclude: regexes of parameters that `agc` does not clip. Default none
      here, but the head in `big_crop.config`.

  Args:
    config: a ConfigDict or dict; other keys are ignored.
    params: the parameters, or anything with their tree structure.
    total_steps: steps of the whole run.
    batch_size: examples per step, over all devices.
    data_size: examples per epoch.
    split_outputs: the model's patterns; None: see `layout.splits_output`.

  Returns:
    The transformation, whose updates are to be added to the parameters; and
    the schedule functions f, step -> factor, one for each pattern of `schedule`
    that is not frozen, in the order of the config.

  Raises:
    ValueError: in one line, for a key that is missing or has a wrong value, and
      for a regex that is no parameter's first match.
  """
  for key in ("optax_name", "lr"):
    if config.get(key) is None:
      raise UserError(f"config.{key} is missing.")
  rules = _schedule_rules(config)
  names = [name for name, _ in trees.named_leaves(params)]
  schedule_of = _cover(names, rules)
  sizes = {
    "total_steps": total_steps,
    "batch_size": batch_size,
    "data_size": data_size,
  }
  fns = [
    None if schedule is None else schedules.make(schedule, **sizes)
    for _, schedule in rules
  ]
  lr, wd = config["lr"], config.get("wd") or 0.0
  lr_mults = config.get("lr_mults") or ()
  wd_mults = config.get("wd_mults")
  if wd_mults is None:
    wd_mults = _WD_MULTS
  lr_mult = _multipliers(names, lr_mults, "lr_mults", default=1.0)
  wd_mult = _multipliers(names, wd_mults if wd else (), "wd_mults", default=0.0)

  wd_in = config.get("wd_in") or "update"
  known_names.check("config.wd_in", wd_in, _WD_IN)
  frozen = frozen_mask(config, params)
  decay = jax.tree.map(
    lambda freeze, mult: optax.MaskedNode() if freeze else wd * mult,
    frozen,
    _tree(params, wd_mult.__getitem__),
  )
  rule, after = _clip_decay_and_rule(config, names, wd_in, decay, split_outputs)

  # optax.partition needs one chain for each combination of schedule, learning
  # rate and weight decay that occurs.
  group_of, groups = {}, {}
  for name in names:
    fn = fns[schedule_of[name]]
    if fn is None:
      group_of[name], chain = "frozen", optax.set_to_zero()
    else:
      mult = wd_mult[name] if wd_in == "update" else 0.0
      group_of[name] = f"schedule{schedule_of[name]}_lr{lr_mult[name]}_wd{mult}"
      chain = optax.chain(
        optax.scale(lr * lr_mult[name]),
        optax.add_decayed_weights(wd * mult),
        optax.scale_by_learning_rate(fn),
        *after,
      )
    groups[group_of[name]] = chain

  tx = optax.chain(
    optax.masked(rule, jax.tree.map(lambda freeze: not freeze, frozen)),
    optax.partition(groups, _tree(params, group_of.__getitem__)),
  )
  return tx, [fn for fn in fns if fn is not None]


def frozen_mask(config: Mapping[str, Any], params: Any) -> Any:
  """Returns the tree of `params` with True where `config.schedule` is None."""
  rules = _schedule_rules(config)
  index = _cover([name for name, _ in trees.named_leaves(params)], rules)
  return _tree(params, lambda name: rules[index[name]][1] is None)


def _clip_decay_and_rule(
  config: Mapping[str, Any],
  names: list[str],
  wd_in: str,
  decay: Any,
  split_outputs: Sequence[str] | None,
) -> tuple[optax.GradientTransformation, list[optax.GradientTransformation]]:
  """Returns the transformations before and after the learning rate."""
  name = config["optax_name"]
  rule = build(
    name,
    config.get("optax") or {},
    weight_decay=decay if wd_in == "rule" else None,
    split_outputs=split_outputs,
  )
  after = []
  if isinstance(rule, AroundLearningRate):
    if config.get("wd") and wd_in == "update":
      raise UserError(
        f"config.wd_in is 'update', but {name} has momentum after the learning"
        " rate, which would take the decay in; use 'gradient'."
      )
    rule, after = rule.before, [rule.after]
  before = _clipping(config, names, split_outputs)
  if wd_in == "gradient":
    before.append(add_decay(decay))
  return (optax.chain(*before, rule) if before else rule), after


def _clipping(
  config: Mapping[str, Any],
  names: list[str],
  split_outputs: Sequence[str] | None,
) -> list[optax.GradientTransformation]:
  clips = {
    key: config[key]
    for key in ("grad_clip_norm", "agc")
    if config.get(key) is not None
  }
  for key, clip in clips.items():
    if clip <= 0:
      raise UserError(f"config.{key} is {clip}, but must be > 0.")
  if len(clips) == 2:
    raise UserError("config.grad_clip_norm and config.agc are set; keep one.")
  if "agc" in clips:
    exclude = [(regex, None) for regex in config.get("agc_exclude") or ()]
    excluded = trees.first_match(names, exclude, "config.agc_exclude")
    return [
      agc.adaptive_grad_clip(
        clips["agc"], excluded, split_outputs=split_outputs
      )
    ]
  return [optax.clip_by_global_norm(clip) for clip in clips.values()]


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
      raise UserError(
        f"config.schedule does not cover {name!r}; add a (regex, dict) for it,"
        " or (regex, None) to freeze it."
      )
  if all(rules[index][1] is None for index in index_of.values()):
    raise UserError("config.schedule freezes every parameter.")
  return index_of


def _multipliers(
  names: list[str], rules: Sequence[tuple[str, float]], key: str, default: float
) -> dict[str, float]:
  """Returns the factor of each name, `default` where no rule matches."""
  index_of = trees.first_match(names, rules, f"config.{key}")
  for pattern, factor in rules:
    if factor < 0 or (key == "lr_mults" and factor == 0):
      raise UserError(
        f"config.{key}: factor {factor} of {pattern!r} must be positive; to"
        " freeze, give the schedule None."
      )
  return {
    name: rules[index_of[name]][1] if name in index_of else default
    for name in names
  }
