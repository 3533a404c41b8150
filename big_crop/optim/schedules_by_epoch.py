"""What a learning-rate schedule does once per epoch: `per` and `lr_noise`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from big_crop import names
from pp_ops.errors import UserError

# Options of lr_noise, with their defaults.
NOISE = {
  "lr_noise_type": "normal",
  "lr_noise_pct": 0.67,
  "lr_noise_std": 1.0,
  "lr_noise_seed": 42,
}


def make(
  config: Mapping[str, Any],
  schedule: optax.Schedule,
  *,
  total_steps: int,
  batch_size: int,
  data_size: int,
) -> optax.Schedule:
  """Holds a schedule over each epoch, and multiplies it by noise.

  Epoch e begins at step round(e * data_size / batch_size). `schedules.make`
  explains the sizes and the config's keys `per` and `lr_noise*`. Without these
  keys, `schedule` itself is returned.
  """
  per = config.get("per", "step")
  names.check("per", per, ("step", "epoch"))
  if per == "step" and config.get("lr_noise") is None:
    return schedule
  warmup = [
    k
    for k, v in config.items()
    if v and k.startswith("warmup_") and k != "warmup_prefix"
  ]
  if per == "epoch" and warmup and "warmup_init" not in config:
    raise UserError(
      f"per='epoch' with {warmup[0]} trains the whole first epoch at"
      " warmup_init; give it, since its default is 0. timm's warm-up begins at"
      " a rate of 1e-5: warmup_init = 1e-5 / lr."
    )
  steps_per_epoch = data_size / batch_size
  begins = steps_per_epoch * np.arange(int(total_steps / steps_per_epoch) + 1)
  # Rounded as `to_steps` rounds, so that a warmup of whole epochs ends at the
  # step at which an epoch begins.
  starts = begins.round().astype(np.int32)
  epoch_of = lambda step: jnp.searchsorted(starts, step, side="right") - 1
  if per == "epoch":
    main = schedule
    schedule = lambda step: main(jnp.take(starts, epoch_of(step)))
  if config.get("lr_noise") is None:
    return schedule
  noise = _noise(config)
  match config["lr_noise"]:
    case [int() | float() as first, int() | float() as last] if (
      0 <= first <= last <= 1
    ):
      pass
    case given:
      raise UserError(
        f"lr_noise is {given}: need two rising fractions of the run."
      )
  # A tolerance of one step, because total_steps is rounded: the rounding must
  # not move the noise by a whole epoch.
  noisy = (begins > first * total_steps - 1) & (begins < last * total_steps - 1)

  def with_noise(step):
    epoch = epoch_of(step)
    return schedule(step) * (1 + jnp.take(noisy, epoch) * noise(epoch))

  return with_noise


def _noise(config: Mapping[str, Any]) -> Callable[[jax.Array], jax.Array]:
  """Returns epoch -> relative noise."""
  options = NOISE | {k: v for k, v in config.items() if k in NOISE}
  kind, std = options["lr_noise_type"], options["lr_noise_std"]
  names.check("lr_noise_type", kind, ("normal", "uniform"))
  pct = fraction(options, "lr_noise_pct", None)
  if std <= 0:
    raise UserError(f"lr_noise_std is {std}, but must be > 0.")

  def noise(epoch):
    key = jax.random.key(options["lr_noise_seed"])
    key = jax.random.fold_in(key, epoch)
    if kind == "uniform":
      return jax.random.uniform(key, minval=-pct, maxval=pct)
    return std * jax.random.truncated_normal(key, -pct / std, pct / std)

  return noise


def fraction(
  config: Mapping[str, Any], key: str, default: float | None
) -> float:
  """Returns `config[key]` or else the default; raises unless in [0, 1]."""
  value = config.get(key, default)
  if value is None or not 0 <= value <= 1:
    raise UserError(f"{key} is {value}, but must be in [0, 1].")
  return value
