"""Checks of the values of a config.

A value must have the kind of its default in `config`, and pass the check of its
key in `CHECKS`, if there is one. Arguments of a model, an optimiser or an
evaluator are checked by these; here they must only be finite and fit into JSON.
"""

import math
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from big_crop import names
from pp_ops.checks import check_number
from pp_ops.errors import UserError

MOST_STEPS = 2**31 - 1  # a step is an int32 on the devices


def _number(low, high=math.inf, whole=False):
  return lambda where, value: check_number(where, value, low, high, whole)


def _list_of(*kinds):
  """A check of lists whose items are of one kind, or pairs of two kinds."""
  name = ", ".join(k.__name__ for k in kinds)
  name = f"({name}) pairs" if len(kinds) > 1 else f"{name} items"

  def check(where, value):
    for item in value:
      parts = (item,) if len(kinds) == 1 else item
      good = isinstance(parts, list | tuple) and len(parts) == len(kinds)
      if not good or not all(map(names.is_of_kind, parts, kinds)):
        raise UserError(f"{where}={value!r}: need a list of {name}")

  return check


def check_data(where: str, data: Any) -> None:
  """Raises unless `data` is a dict with `name`, `split`, perhaps `data_dir`."""
  kinds = {"name": str, "split": str, "data_dir": str | None}
  if not isinstance(data, dict | ConfigDict):
    raise UserError(f"{where}={data!r}: need a dict of {', '.join(kinds)}")
  for key, value in data.items():
    names.check(where, key, kinds)
    names.check_kind(f"{where}.{key}", value, kinds[key])
  for key in ("name", "split"):
    if key not in data:
      raise UserError(f"{where}.{key} is not set")


def _entries(where, value):
  for name, entry in value.items():
    if not isinstance(entry, ConfigDict):
      raise UserError(f"{where}.{name}={entry!r}: need a dict")


_WHOLE = _number(1, whole=True)

CHECKS = {
  "seed": _number(0, 2**31 - 1, whole=True),  # because JAX makes a key of it
  "total_steps": _number(0, MOST_STEPS, whole=True),
  "total_examples": _number(0, whole=True),
  "total_epochs": _number(0),
  "num_classes": _WHOLE,
  "input.data": check_data,
  "input.batch_size": _WHOLE,
  "input.repeats": _number(1, 255, whole=True),
  "input.shuffle_buffer_size": _number(1, 2**31, whole=True),
  "input.num_parallel_calls": _number(1, 1024, whole=True),
  "pp_modules": _list_of(str),
  "model_load.dont_load": _list_of(str),
  "lr": _number(0),
  "wd": _number(0),
  "lr_mults": _list_of(str, float),
  "wd_mults": _list_of(str, float),
  "agc_exclude": _list_of(str),
  "grad_accum": _WHOLE,
  "ema_decay": _number(0, 1),
  "mesh": _list_of(str, int),
  "sharding_strategy": _list_of(str, str),
  "evals": _entries,
  "log_training_steps": _WHOLE,
  "ckpt_steps": _WHOLE,
  "keep_ckpt_steps": _WHOLE,
}
# The kind may differ from the default's: `schedule` may also be a list of
# (regex, dict).
_OF_ANY_KIND = ("schedule",)


def leaves(where: str, value: Any) -> Iterator[tuple[str, Any]]:
  """(dotted key, value) of all values; items of lists come one by one."""
  if isinstance(value, dict | ConfigDict):
    for key, inner in value.items():
      if not isinstance(key, str):
        raise UserError(f"{where} has the key {key!r}: need a string")
      yield from leaves(f"{where}.{key}", inner)
  elif isinstance(value, list | tuple):
    for inner in value:
      yield from leaves(where, inner)
  else:
    yield where, value


def _check_kinds(where, config, default):
  for key in default:
    dotted = f"{where}.{key}"
    if key not in config:
      if where in ("config", "config.input"):
        raise UserError(f"{dotted} is not set")
      # A config file may replace a whole dict; its reader has defaults for the
      # keys that are then missing.
      continue
    value = config[key]
    if isinstance(default[key], ConfigDict) and isinstance(value, ConfigDict):
      _check_kinds(dotted, value, default[key])
    elif key not in _OF_ANY_KIND:
      kind = default.get_type(key)
      if (value is None and default[key] is None) or kind is type(None):
        continue
      names.check_kind(dotted, value, dict if kind is ConfigDict else kind)


def check_leaves(config: ConfigDict) -> None:
  """Raises unless each value is finite and of a type that JSON can hold."""
  for where, value in leaves("config", config):
    if isinstance(value, float) and not math.isfinite(value):
      raise UserError(f"{where} is {value}: need a finite number")
    if not isinstance(value, bool | int | float | str | None):
      raise UserError(
        f"{where} is {value!r}: need a number, a string, None, or a list or "
        "dict of such, which config.json can hold"
      )


def check(config: ConfigDict, default: ConfigDict) -> None:
  """Checks every value of a run's config.

  Args:
    config: the config.
    default: `big_crop.config.default_config()`.
  """
  check_leaves(config)
  _check_kinds("config", config, default)
  for key, check_value in CHECKS.items():
    value = config
    for part in key.split("."):
      value = value.get(part)
    if value is not None:
      check_value(f"config.{key}", value)
