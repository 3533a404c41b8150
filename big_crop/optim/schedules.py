"""Learning-rate schedules: step -> factor of the base learning rate."""

from collections.abc import Mapping
from typing import Any

import optax

from big_crop import names

_UNITS = ("steps", "examples", "epochs", "percent")
_DECAYS = ("constant", "cosine", "linear", "rsqrt")


def to_steps(
  prefix: str,
  config: Mapping[str, Any],
  *,
  batch_size: int | None = None,
  data_size: int | None = None,
  total_steps: int | None = None,
  default: int | None = None,
) -> int | None:
  """Reads a duration given in whichever unit, as big_vision does.

  `{prefix}_steps`, `{prefix}_examples`, `{prefix}_epochs` or
  `{prefix}_percent` (a fraction in [0, 1] of all steps). Anything but 0 comes
  to at least one step; halves round to even.

  Args:
    prefix: e.g. `warmup`.
    config: the keys are looked up here; None counts as absent.
    batch_size: examples per step, over all devices.
    data_size: examples per epoch.
    total_steps: steps of the whole run.
    default: what to return when no unit is given.

  Returns:
    A number of steps, or `default`.

  Raises:
    ValueError: for two units at once, a negative duration, a percent that is
      not in [0, 1], or a unit that cannot be converted here.
  """
  given = {
    unit: config[f"{prefix}_{unit}"]
    for unit in _UNITS
    if config.get(f"{prefix}_{unit}") is not None
  }
  if not given:
    return default
  if len(given) > 1:
    keys = " and ".join(f"{prefix}_{unit}" for unit in given)
    raise ValueError(f"{keys} are given; keep one.")
  ((unit, value),) = given.items()
  if value < 0 or (unit == "percent" and value > 1):
    right = "in [0, 1]" if unit == "percent" else "at least 0"
    raise ValueError(f"{prefix}_{unit} is {value}, but must be {right}.")
  if unit == "steps":
    return int(value)
  steps_per_unit = {
    "examples": batch_size and 1 / batch_size,
    "epochs": batch_size and data_size and data_size / batch_size,
    "percent": total_steps,
  }[unit]
  if steps_per_unit is None:
    raise ValueError(
      f"{prefix}_{unit} cannot be used here; use {prefix}_steps."
    )
  return max(1, round(value * steps_per_unit)) if value else 0


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

      f(s) = min(1, s / W) * decay(s) * min(1, (T - s) / C)

  where a W or C of 0 drops its factor, and with q = (s - W) / (T - W)

      constant  decay = 1
      cosine    decay = (1 + cos(pi q)) / 2        SGDR, arXiv:1608.03983, eq. 5
      linear    decay = 1 - q
      rsqrt     decay = 1 / sqrt(1 + (s - W) / timescale)   arXiv:2106.04560

  for s >= W, and 1 before. So the first update has factor 0 when there is a
  warmup, step W has exactly 1, and cosine and linear would reach 0 at step T.

  Args:
    config: `decay_type` (default constant), `warmup_{steps, examples, epochs,
      percent}` and `cooldown_{...}` (default 0), and for rsqrt `timescale` in
      steps (default 10,000).
    total_steps: steps of the whole run.
    batch_size: examples per step, over all devices.
    data_size: examples per epoch.
    where: the config key, for errors.

  Returns:
    A function from a step (int or int32 array) to a float32 factor in [0, 1].

  Raises:
    ValueError: unknown keys or decay types, durations that do not fit.
  """
  config = dict(config)
  decay_type = config.get("decay_type", "constant")
  if decay_type not in _DECAYS:
    raise names.unknown(f"{where}.decay_type", decay_type, _DECAYS)
  known = {f"{p}_{u}" for p in ("warmup", "cooldown") for u in _UNITS}
  known |= {"decay_type"} | ({"timescale"} if decay_type == "rsqrt" else set())
  for key in config:
    if key not in known:
      raise names.unknown(f"{where} ({decay_type})", key, known)

  sizes = {
    "batch_size": batch_size,
    "data_size": data_size,
    "total_steps": total_steps,
  }
  try:
    warmup = to_steps("warmup", config, default=0, **sizes)
    cooldown = to_steps("cooldown", config, default=0, **sizes)
  except ValueError as e:
    raise ValueError(f"{where}: {e}") from None
  # Runs of 0 or 1 steps are for debugging and may have any warmup.
  if total_steps > 1 and warmup + cooldown > total_steps:
    raise ValueError(
      f"{where}: warmup of {warmup} and cooldown of {cooldown} steps do not fit"
      f" into the run's {total_steps}."
    )

  schedule = _decay(config, decay_type, max(1, total_steps - warmup))
  if warmup:
    rise = optax.linear_schedule(0.0, 1.0, warmup)
    schedule = optax.join_schedules([rise, schedule], [warmup])
  if cooldown:
    fall = optax.linear_schedule(1.0, 0.0, cooldown, total_steps - cooldown)
    return lambda step, main=schedule: main(step) * fall(step)
  return schedule


def _decay(
  config: dict[str, Any], decay_type: str, steps: int
) -> optax.Schedule:
  """Returns the decay as a function of the steps since the end of warmup."""
  match decay_type:
    case "constant":
      return optax.constant_schedule(1.0)
    case "cosine":
      return optax.cosine_decay_schedule(1.0, steps)
    case "linear":
      return optax.linear_schedule(1.0, 0.0, steps)
  timescale = config.get("timescale", 10_000)
  return lambda step: (1.0 + step / timescale) ** -0.5
