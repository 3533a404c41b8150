"""Models: one file each, with `Model(num_classes, **kw)`.

A model is a Flax module for which

    logits, out = model.apply(variables, image, train=train,
                              rngs={"dropout": key})

takes images [B, H, W, 3], float, and returns float32 logits [B, num_classes]
and a dict of intermediate activations. `train` and the "dropout" key matter to
dropout, stochastic depth and batch norm only; batch norm's running statistics
are the "batch_stats" collection (`mutable=["batch_stats"]` when training).

A model may also define these, which other parts of the project look up, so that
a new architecture is one new file:

  last_layer()     a `common.LastLayer`: where Grad-CAM and relevance are taken
  torch_layers()   its layers' names in PyTorch, see `weights.torch_names`
  split_outputs    regexes of kernels [d, ...] in which every axis but the first
                   is an output axis. Kernels that are named as in Flax's
                   attention need no regex; see `optim.layout`
"""

import inspect

from big_crop import names

# model_name -> the module of its Model.
_MODULES = {
  "convnext": "big_crop.models.convnext",
  "densenet": "big_crop.models.densenet",
  "efficientnet": "big_crop.models.efficientnet",
  "preact_resnet": "big_crop.models.preact_resnet",
  "regnet": "big_crop.models.regnet",
  "repvgg": "big_crop.models.repvgg",
  "resnet": "big_crop.models.resnet",
  "small_vit": "big_crop.models.small_vit",
  "swin": "big_crop.models.swin",
  "vit": "big_crop.models.vit",
  "wide_resnet": "big_crop.models.wide_resnet",
  "xception": "big_crop.models.xception",
}


def get_model(model_name, num_classes, **kw):
  """Builds a model by name.

  Args:
    model_name: a module of this package ("vit", "resnet") or the dotted path
      of a module of the user's own that has `Model(num_classes, **kw)`.
    num_classes: size of the logits.
    **kw: the model's own arguments (config.model).

  Returns:
    A Flax module.

  Raises:
    ValueError: no such module, no `Model` in it, or an unknown argument.
  """
  module = names.import_named("model_name", model_name, _MODULES, needs="Model")
  params = inspect.signature(module.Model).parameters
  if all(p.kind != p.VAR_KEYWORD for p in params.values()):
    for name in kw:
      names.check(f"argument of {module.__name__}.Model", name, params)
  return module.Model(num_classes, **kw)
