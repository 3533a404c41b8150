"""Turns (mixed) label vectors into the targets of the loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from big_crop import names
from pp_ops.errors import UserError

KINDS = ("distribution", "present")


def make(
  kind: str = "distribution",
  smoothing: float = 0.0,
  threshold: float | None = None,
) -> Callable[[jax.Array], jax.Array]:
  """Returns the function from labels to targets that `config.targets` asks for.

  For labels y over C classes and smoothing e:

      distribution  (1 - e) y + e / C, which sums to one
      present       1 - e where y > 0, 0 elsewhere

  "present" is for binary cross-entropy with mixup and CutMix: every class that
  was mixed in counts as present, whatever its weight ("ResNet strikes back",
  section 3). With a threshold t, the targets of kind "distribution" become 1
  where they are greater than t and 0 elsewhere, which undoes the smoothing.
  timm's `--bce-target-thresh` does the same.

  Args:
    kind: "distribution" or "present".
    smoothing: e, in [0, 1); label smoothing (Szegedy et al.,
      https://arxiv.org/abs/1512.00567, section 7).
    threshold: t, in [0, 1), or None.

  Returns:
    labels [B, C] float -> targets of the same shape and dtype.

  Raises:
    ValueError: in one line, for a value out of range, or a threshold with kind
      "present".
  """
  names.check("config.targets.kind", kind, KINDS)
  if not 0 <= smoothing < 1:
    raise UserError(
      f"config.targets.smoothing is {smoothing}, but must be in [0, 1)."
    )
  if threshold is not None:
    if kind == "present":
      raise UserError(
        "config.targets.threshold is for kind 'distribution': 'present' takes"
        " every class above 0."
      )
    if not 0 <= threshold < 1:
      raise UserError(
        f"config.targets.threshold is {threshold}, but must be in [0, 1)."
      )

  def make_targets(labels):
    if kind == "present":
      return jnp.where(labels > 0, 1.0 - smoothing, 0.0).astype(labels.dtype)
    soft = (1.0 - smoothing) * labels + smoothing / labels.shape[-1]
    if threshold is None:
      return soft
    return (soft > threshold).astype(labels.dtype)

  return make_targets
