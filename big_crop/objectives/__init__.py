"""Objectives: what training minimises. `config.objective_name` names a file.

`big_crop.objectives.base` says what an objective is and when the trainer calls
which of its methods.
"""

from typing import Any

from big_crop import names
from big_crop.config import default_config
from big_crop.objectives.base import Aux, Batch, Objective
from pp_ops.errors import UserError

__all__ = ["KEYS", "Aux", "Batch", "Objective", "make"]

# config.objective_name -> the module of its Objective.
_MODULES = {
  "classification": "big_crop.objectives.classification",
  "contrastive": "big_crop.objectives.contrastive",
  "masked_autoencoding": "big_crop.objectives.masked_autoencoding",
}

# Top-level keys of the config that only objectives read.
KEYS = ("num_classes", "loss", "targets", "mixup", "mixing")


def make(config: Any, num_classes: int | None) -> Objective:
  """Makes the objective that a config names.

  Args:
    config: the config. `objective_name` is one of this package's modules, or
      the dotted path of a module that has an `Objective`.
    num_classes: number of classes of the training dataset, if it says.

  Returns:
    The objective.

  Raises:
    ValueError: one line, for an unknown name, for a key that is set although
      this objective does not read it, and whatever the objective itself raises.
  """
  name = config.objective_name
  module = names.import_named(
    "config.objective_name", name, _MODULES, needs="Objective"
  )
  usual, given = default_config().to_dict(), config.to_dict()
  for key in KEYS:
    if key not in module.Objective.config_keys and given[key] != usual[key]:
      raise UserError(
        f"config.{key} is set, but the objective {name!r} does not read it"
      )
  return module.Objective(config, num_classes)
