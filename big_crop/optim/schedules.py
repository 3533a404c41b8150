"""Learning-rate schedules: step -> factor of the base learning rate."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from big_crop import names
from big_crop.optim import schedules_by_epoch
from pp_ops.errors import UserError

UNITS = ("steps", "examples", "epochs", "percent")
# decay_type -> its keys. Durations are written without their unit.
_DECAYS = {
  "constant": (),
  "cosine": ("min_factor", "warmup_prefix"),
  "linear": ("min_factor", "warmup_prefix"),
  "rsqrt": ("timescale",),
  "step": ("decay_rate", "decay", "milestones"),
}
_DURATIONS = ("warmup", "cooldown", "decay", "milestones")
_COMMON = ("decay_type", "warmup", "warmup_init", "cooldown", "per", "lr_noise")

# The types of values. Keys that are not listed take numbers.
_KINDS = {
  "decay_type": str,
  "per": str,
  "lr_noise": list,
  "lr_noise_type": str,
  "warmup_prefix": bool,
}


def to_steps(
  prefix: str,
  config: Mapping[str, Any],
  *,
  batch_size: int | None = None,
  data_size: int | None = None,
  total_steps: int | None = None,
  default: int | None = None,
) -> int | None:
  """Reads a duration in any of the units of big_vision's configs.

  The key is `{prefix}_steps`, `{prefix}_examples`, `{prefix}_epochs` or
  `{prefix}_percent`, which is a fraction in [0, 1] of all steps. Examples,
  epochs and percent are rounded to whole steps, halves to even, and to at least
  one step unless the value is 0.

  Args:
    prefix: e.g. `warmup`.
    config: has the key; None counts as absent.
    batch_size: examples per step, over all devices.
    data_size: examples per epoch.
    total_steps: steps of the whole run.
    default: what to return if no key is given.

  Returns:
    A number of steps, or `default`.

  Raises:
    ValueError: in one line, for two keys, a value out of range, or a unit whose
      size (batch_size, data_size or total_steps) is not given.
  """
  given = {
    unit: config[f"{prefix}_{unit}"]
    for unit in UNITS
    if config.get(f"{prefix}_{unit}") is not None
  }
  if not given:
    return default
  if len(given) > 1:
    keys = " and ".join(f"{prefix}_{unit}" for unit in given)
    raise UserError(f"{keys} are given; keep one.")
  ((unit, value),) = given.items()
  names.check_kind(f"{prefix}_{unit}", value, float)
  if value < 0 or (unit == "percent" and value > 1):
    right = "in [0, 1]" if unit == "percent" else "at least 0"
    raise UserError(f"{prefix}_{unit} is {value}, but must be {right}.")
  if unit == "steps":
    return int(value)
  steps_per_unit = _steps_per_unit(unit, batch_size, data_size, total_steps)
  if steps_per_unit is None:
    raise UserError(f"{prefix}_{unit} cannot be used here; use {prefix}_steps.")
  return max(1, round(value * steps_per_unit)) if value else 0


def _steps_per_unit(
  unit: str,
  batch_size: int | None,
  data_size: int | None,
  total_steps: int | None,
) -> float | None:
  return {
    "steps": 1,
    "examples": batch_size and 1 / batch_size,
    "epochs": batch_size and data_size and data_size / batch_size,
    "percent": total_steps,
  }[unit]


def make(
  config: Mapping[str, Any],
  *,
  total_steps: int,
  batch_size: int,
  data_size: int,
  where: str = "config.schedule",
) -> optax.Schedule:
  """Builds one schedule.

  With T = `total_steps`, W = warmup, C = cooldown, all in steps, the factor of
  step s = 0, 1, ..., T - 1 is

      f(s) = rise(s) * decay(s) * min(1, (T - s) / C) * (1 + noise(epoch of s))
      rise(s) = min(1, w0 + (1 - w0) s / W)

  where a W or C of 0 drops its factor. With q = (s - W) / (T - W), for s >= W,

      constant  decay = 1
      cosine    decay = m + (1 - m) (1 + cos(pi q)) / 2
                                                 SGDR, arXiv:1608.03983, eq. 5
      linear    decay = m + (1 - m) (1 - q)
      rsqrt     decay = 1 / sqrt(1 + (s - W) / timescale)   arXiv:2106.04560
      step      decay = decay_rate ^ (drops up to step s)   arXiv:1512.03385

  and decay = 1 for s < W. So with a warmup the first update has factor w0, and
  step W has factor 1, unless `warmup_prefix` is False or decay_type is step.
  Cosine and linear would reach m at step T, after the last step.

  Keys of `config`:
    decay_type: default constant.
    warmup_{steps, examples, epochs, percent}, cooldown_{...}: W and C, 0 unless
      given.
    warmup_init: w0 in [0, 1]. Default 0; with a warmup and `per="epoch"` it
      must be given.
    min_factor: m in [0, 1], for cosine and linear. Default 0.
    warmup_prefix: False makes cosine and linear begin at step 0 (q = s / T), so
      that the warmup replaces their first W steps. This is timm's default.
      Default True.
    timescale: in steps, for rsqrt. Default 10,000.
    decay_rate: in [0, 1], for step, with either decay_{...} or
      milestones_{...}.
    decay_{...}: the distance between two drops.
    milestones_{...}: the list of drops. Both kinds of drops are counted from
      step 0, with or without a warmup.
    per: `epoch` holds the factor of an epoch's first step over the epoch, as
      timm does. Default `step`.
    lr_noise: (first, last), fractions of the run. In epochs that begin between
      them the factor is multiplied by 1 + noise ("ResNet strikes back",
      appendix B).
    lr_noise_type: `normal`, truncated to +- lr_noise_pct, or `uniform`. Default
      normal.
    lr_noise_pct: the noise's largest absolute value. Default 0.67.
    lr_noise_std: standard deviation of the normal distribution that is
      truncated. Default 1.
    lr_noise_seed: the noise is a function of this seed and the epoch. Default
      42.

  Args:
    config: as above.
    total_steps: steps of the whole run.
    batch_size: examples per step, over all devices.
    data_size: examples per epoch.
    where: the config key, for errors.

  Returns:
    A function from a step (int or int32 scalar) to a scalar factor, which is in
    [0, 1] except for noise. The function has no state, and so gives the same on
    all hosts and after a restart.

  Raises:
    ValueError: unknown keys or decay types, durations that do not fit, and
      numbers out of range.
  """
  config = dict(config)
  decay_type = config.get("decay_type", "constant")
  names.check(f"{where}.decay_type", decay_type, _DECAYS)
  noise = schedules_by_epoch.NOISE if config.get("lr_noise") is not None else ()
  known = []
  for key in (*_COMMON, *noise, *_DECAYS[decay_type]):
    known += [f"{key}_{u}" for u in UNITS] if key in _DURATIONS else [key]
  for key in config:
    if key not in known:
      raise names.unknown(f"{where} ({decay_type})", key, known)
    kind = list if key.startswith("milestones") else _KINDS.get(key, float)
    if config[key] is not None:
      names.check_kind(f"{where}.{key}", config[key], kind)
  sizes = {
    "batch_size": batch_size,
    "data_size": data_size,
    "total_steps": total_steps,
  }
  try:
    schedule = _warmup_decay_cooldown(config, decay_type, sizes)
    return schedules_by_epoch.make(config, schedule, **sizes)
  except UserError as e:
    raise UserError(f"{where}: {e}") from None


def _warmup_decay_cooldown(
  config: dict[str, Any], decay_type: str, sizes: dict[str, int]
) -> optax.Schedule:
  total_steps = sizes["total_steps"]
  warmup = to_steps("warmup", config, default=0, **sizes)
  cooldown = to_steps("cooldown", config, default=0, **sizes)
  # Runs of 0 or 1 steps are for debugging and may have any warmup.
  if total_steps > 1 and warmup + cooldown > total_steps:
    raise UserError(
      f"warmup of {warmup} and cooldown of {cooldown} steps do not fit into the"
      f" run's {total_steps}."
    )
  first = schedules_by_epoch.fraction(config, "warmup_init", 0.0)
  prefix = config.get("warmup_prefix", decay_type != "step")
  begin = warmup if prefix else 0
  if decay_type == "step":
    schedule = _drops(config, sizes)
  else:
    schedule = _decay(config, decay_type, max(1, total_steps - begin))
  if warmup:
    rise = optax.linear_schedule(first, 1.0, warmup)
    late = lambda step, main=schedule: main(step + (warmup - begin))
    schedule = optax.join_schedules([rise, late], [warmup])
  if cooldown:
    fall = optax.linear_schedule(1.0, 0.0, cooldown, total_steps - cooldown)
    return lambda step, main=schedule: main(step) * fall(step)
  return schedule


def _decay(
  config: dict[str, Any], decay_type: str, steps: int
) -> optax.Schedule:
  """Returns the decay as a function of the steps since it began."""
  least = schedules_by_epoch.fraction(config, "min_factor", 0.0)
  match decay_type:
    case "constant":
      return optax.constant_schedule(1.0)
    case "cosine":
      return optax.cosine_decay_schedule(1.0, steps, alpha=least)
    case "linear":
      return optax.linear_schedule(1.0, least, steps)
  timescale = config.get("timescale", 10_000)
  if timescale <= 0:
    raise UserError(f"timescale is {timescale}, but must be > 0.")
  return lambda step: (1.0 + step / timescale) ** -0.5


def _drops(config: dict[str, Any], sizes: dict[str, int]) -> optax.Schedule:
  """Returns the step decay as a function of the run's step."""
  rate = schedules_by_epoch.fraction(config, "decay_rate", None)
  given = [
    (prefix, unit, config[f"{prefix}_{unit}"])
    for prefix in ("decay", "milestones")
    for unit in UNITS
    if config.get(f"{prefix}_{unit}") is not None
  ]
  if len(given) != 1:
    raise UserError(
      "step needs either decay_epochs, for a drop every so often, or"
      " milestones_epochs, for a list of drops (or another unit than epochs)."
    )
  ((prefix, unit, value),) = given
  scale = _steps_per_unit(unit, **sizes)
  if prefix == "decay":
    # With "percent" a run of few steps, for debugging, is no mistake.
    if value <= 0 or (value * scale < 1 and unit != "percent"):
      raise UserError(f"decay_{unit} is {value}: need at least one step.")
    count = int(sizes["total_steps"] / max(value * scale, 1))
    value = [value * drop for drop in range(1, count + 1)]
  # Each drop is rounded by itself, because multiples of a rounded distance
  # would drift away from the epochs.
  steps = np.array(sorted(round(v * scale) for v in value), np.int32)
  return lambda step: (
    jnp.float32(rate) ** jnp.searchsorted(steps, step, side="right")
  )
