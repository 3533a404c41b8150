"""Initialises a run from existing weights: `config.model_init`."""

import jax

from big_crop.runtime import checkpoint
from big_crop.weights import augreg, big_vision_folders, fit, npz, torch_files
from big_crop.weights.torch_names import from_torch
from pp_ops.errors import UserError


def initialise(state, path, model, dont_load=(), index=None):
  """Replaces the initial parameters of a train state by loaded ones.

  Args:
    state: a new `big_crop.step.TrainState`, on the devices.
    path: an .npz file or a checkpoint folder of big_vision, either with a part
      of its tree after a colon, see `npz.load_npz`; "augreg:" and the name of
      a checkpoint, see `augreg.resolve`; a .pth, .pt, .bin, .tar or
      .safetensors file with the names of the model's `torch_layers()`; or
      another run's workdir or one of its checkpoints. From a run that has
      averaged weights, the averages are taken.
    model: the state's model, or None if the objective has none.
    dont_load: see `fit.adapt`.
    index: path of AugReg's index.csv; needed for names with "augreg:".

  Returns:
    The state with parameters, model state and averages replaced, sharded as
    before. A collection that a run or a PyTorch file lacks stays as it is; an
    .npz file must have all.
  """
  if str(path).startswith(augreg.PREFIX):
    path = augreg.resolve(path, index)
  file, _ = npz.split_part(path)
  if file.endswith(".npz") or big_vision_folders.find(file):
    loaded = {"params": npz.load_npz(path)}
    if state.model_state:
      loaded |= {k: npz.load_npz(path, k) for k in state.model_state}
  elif str(path).endswith(torch_files.SUFFIXES):
    if model is None:
      raise UserError(
        f"{path} has PyTorch's names, but the run's objective has no `model` "
        "that translates them; save the weights as .npz"
      )
    loaded = from_torch(model, torch_files.load(path))
  else:
    loaded = checkpoint.load_variables(path)

  def replace(variables):
    new = dict(variables)
    for collection in new.keys() & loaded.keys():
      old = new[collection]
      fitted = fit.adapt(loaded[collection], old, dont_load)
      shardings = jax.tree.map(lambda x: x.sharding, old)
      new[collection] = jax.device_put(fitted, shardings)
    return new

  variables = replace({"params": state.params, **state.model_state})
  return state.replace(
    params=variables.pop("params"),
    model_state=variables,
    ema=state.ema and replace(state.ema),
  )
