"""Takes configs as big_vision's config files write them.

Such a file makes an empty ConfigDict and sets what it needs, mostly under the
names that we use, too. This module lays it over our defaults. Keys that do not
change results are dropped. Keys that we do not support, or that mean something
else here, raise a one-line error that says what to write instead.
"""

from typing import Any

from ml_collections import ConfigDict

from big_crop import names
from pp_ops.errors import UserError

# Dropped: caches, queues, time-outs, and options that would change nothing.
_WITHOUT_EFFECT = (
  "ckpt_timeout",
  "fewshot",  # big_vision's trainer does not read it either
  "prefetch_to_device",
  "wandb",
  "input.cache",
  "input.cache_raw",
  "input.prefetch",
  "input.data.skip_decode",  # the pp string decodes
  "mixup.fold_in",  # our keys are a function of seed and step
)
_OF_EVALUATORS = ("cache", "cache_final", "cache_raw", "prefetch")
# big_vision's modules of ops, which are not imported: we have its image ops.
_PP_MODULES = ("ops_general", "ops_image", "archive.randaug", "ops_text")

_INSTEAD = {
  "sharding_rules": "sharding_strategy alone decides",
  "from_data_dir": "write input.data.data_dir",
  "label_key": "the pp string names it: end it with onehot(..., key=...)",
  "pred": "an objective of your own has a `predict`",
  "prefix": "metrics have the name of the entry in config.evals",
}
_CHOICES = {
  "optax_name": {
    "big_vision.momentum_hp": "'trace' with optax ="
    " dict(decay=0.9, accumulator_dtype='bfloat16')",
    "big_vision.scale_by_adafactor": "'scale_by_adam' or one of optax's",
  },
  "model_name": {
    "bit": "'resnet', whose norm is batch norm",
    "bit_paper": "'resnet', whose norm is batch norm",
    "mlp_mixer": "'vit'",
  },
}


def is_one(config: ConfigDict, default: ConfigDict) -> bool:
  """Whether a config is in big_vision's form.

  Such a config has the `input` of a run but not all keys of `default`.
  """
  return "input" in config and not set(default) <= set(config)


def over_default(config: ConfigDict, default: ConfigDict) -> ConfigDict:
  """Lays one of big_vision's configs over our default.

  Args:
    config: what the file's `get_config` returned.
    default: `big_crop.config.default_config()`; changed and returned.

  Raises:
    ValueError: in one line, for a key or value that is not supported.
  """
  given = config.to_dict()
  for key, choices in _CHOICES.items():
    if given.get(key) in choices:
      raise UserError(
        f"config.{key} {given[key]!r} of big_vision is not here; write "
        f"{choices[given[key]]}"
      )
  modules = given.get("pp_modules", ())
  given["pp_modules"] = [m for m in modules if m not in _PP_MODULES]
  if given.get("wd", 0.0) is None:
    given["wd"] = 0.0
  if "init_head_bias" in given:
    given.setdefault("model", {})["head_bias"] = given.pop("init_head_bias")
  evals = given.get("evals", {})
  for name, entry in evals.items():
    evals[name] = {k: v for k, v in entry.items() if k not in _OF_EVALUATORS}
    if str(entry.get("type")).startswith("fewshot"):
      raise UserError(
        f"config.evals.{name}.type {entry['type']!r} is not here; leave out"
        f" config.evals.{name}"
      )
    for key in evals[name]:
      if key in _INSTEAD:
        raise _refusal(f"config.evals.{name}", key)
  if given.get("objective_name", "classification") == "classification":
    given.setdefault("loss", "sigmoid_xent")  # big_vision's default
  # Our default schedule is removed, because big_vision's trainer has none.
  default.schedule = {}
  _lay(given, default, "config")
  return default


def _lay(given: dict[str, Any], place: ConfigDict, where: str) -> None:
  for key, value in given.items():
    dotted = f"{where}.{key}".removeprefix("config.")
    if dotted in _WITHOUT_EFFECT:
      continue
    if key not in place:
      if key in _INSTEAD:
        raise _refusal(where, key)
      if place.is_locked:
        raise names.unknown(where, key, place)
      place[key] = value
    elif isinstance(place[key], ConfigDict) and isinstance(value, dict):
      _lay(value, place[key], f"{where}.{key}")
    else:
      with place.ignore_type():
        place[key] = value


def _refusal(where, key):
  return UserError(
    f"{where}.{key} of big_vision's is not here: {_INSTEAD[key]}"
  )
