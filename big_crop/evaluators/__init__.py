"""Evaluators: one file each, named in the config by `type`.

A module here has an `Evaluator`, whose `run(variables)` returns a dict. Values
are floats, or images [N, H, W, 3], which the trainer draws in the workdir as
EVALUATOR_KEY.png. The keyword arguments of its constructor come from its entry
in `config.evals`. If the constructor has any of the following arguments, the
run provides them:
  predict: (variables, image [B, H, W, C]) -> outputs [B, ...] and activations
    by name, jitted; the objective's `predict`.
  mesh: the mesh.
  seed: the run's seed.
  engine: what runs its pp string: the run's `config.input.engine`, unless its
    entry has an `engine`.
The objective's `for_evaluators()` provides more; that of classification:
  model: the Flax module, see `big_crop.models`.
  num_classes: number of classes.
"""

import inspect
from typing import Any

from big_crop import names
from pp_ops.errors import UserError

# config.evals.NAME.type -> the module of its Evaluator.
_MODULES = {
  "adversarial": "big_crop.evaluators.adversarial",
  "calibration": "big_crop.evaluators.calibration",
  "classification": "big_crop.evaluators.classification",
  "reconstruction": "big_crop.evaluators.reconstruction",
  "representation": "big_crop.evaluators.representation",
  "saliency": "big_crop.saliency.evaluator",
}


def make(name: str, config: dict[str, Any], **context):
  """Makes the evaluator of one entry of `config.evals`.

  Args:
    name: its name in the config, for errors.
    config: its `type`, and the arguments of that type.
    **context: the arguments that the run and the objective provide, see above.

  Returns:
    The evaluator.

  Raises:
    ValueError: unknown type or arguments.
  """
  where = f"config.evals.{name}"
  kind = config.get("type", "classification")
  module = names.import_named(
    f"{where}.type", kind, _MODULES, needs="Evaluator"
  )
  # The trainer reads these.
  own = ("type", "log_steps", "log_epochs", "log_examples", "log_percent")
  arguments = {k: v for k, v in config.items() if k not in own}
  engine = context.pop("engine", "tf.data")
  parameters = inspect.signature(module.Evaluator).parameters
  for key in arguments:
    if key not in parameters or key in context:
      raise names.unknown(
        where, key, [*own, *(p for p in parameters if p not in context)]
      )
  names.check_arguments(where, module.Evaluator, arguments)
  for key, p in parameters.items():
    if p.default is p.empty and key not in (*arguments, *context):
      raise UserError(
        f"{where}: the evaluator {kind!r} needs {key!r}, which neither the"
        " config nor the objective's for_evaluators gives"
      )
  context = {k: v for k, v in context.items() if k in parameters}
  if "engine" in parameters:
    arguments.setdefault("engine", engine)
  try:
    return module.Evaluator(**context, **arguments)
  except UserError as e:
    raise UserError(f"{where}: {e}") from e
