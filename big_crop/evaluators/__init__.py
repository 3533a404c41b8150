"""Evaluators: one file each, named in the config by `type`.

A module here has an `Evaluator`, whose `run(variables)` returns a dict of
floats. Its keyword arguments are those of its entry in `config.evals`, and what
it names of the run's own:
  model: the Flax module, see `big_crop.models`.
  predict: (variables, image [B, H, W, C]) -> logits [B, num_classes], jitted.
  mesh: the mesh.
  num_classes: number of classes.
  seed: the run's seed.
"""

import importlib
import importlib.util
import inspect
from typing import Any

from big_crop import names

# config.evals.NAME.type -> the module of its Evaluator.
_MODULES = {
  "classification": "big_crop.evaluators.classification",
  "saliency": "big_crop.saliency.evaluator",
}


def make(name: str, config: dict[str, Any], **context):
  """Makes the evaluator of one entry of `config.evals`.

  Args:
    name: its name in the config, for errors.
    config: its `type`, and the arguments of that type.
    **context: the run's own, see above.

  Returns:
    The evaluator.

  Raises:
    ValueError: unknown type or arguments.
  """
  where = f"config.evals.{name}"
  kind = config.get("type", "classification")
  if kind in _MODULES:
    module = importlib.import_module(_MODULES[kind])
  elif "." in kind and importlib.util.find_spec(kind.split(".")[0]):
    module = importlib.import_module(kind)
  else:
    raise names.unknown(f"{where}.type", kind, _MODULES)
  # The trainer reads these.
  own = ("type", "log_steps", "log_epochs", "log_examples", "log_percent")
  arguments = {k: v for k, v in config.items() if k not in own}
  parameters = inspect.signature(module.Evaluator).parameters
  for key in arguments:
    if key not in parameters or key in context:
      raise names.unknown(
        where, key, [*own, *(p for p in parameters if p not in context)]
      )
  context = {k: v for k, v in context.items() if k in parameters}
  try:
    return module.Evaluator(**context, **arguments)
  except ValueError as e:
    raise ValueError(f"{where}: {e}") from e
