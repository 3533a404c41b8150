"""What is the same in all recipes of "ResNet strikes back".

Ross Wightman, Hugo Touvron, Hervé Jégou, "ResNet strikes back: An improved
training procedure in timm" (https://arxiv.org/abs/2110.00476). What a recipe
consists of is in its own file, in configs/resnet_strikes_back/.
"""

import math
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from big_crop import config, names
from big_crop.optim.scaling import scaled_lr
from big_crop.runtime import records, storage
from pp_ops.errors import UserError

# What every recipe takes after the colon of --config, beside its own arguments.
ARGUMENTS = dict(
  model="resnet-50",  # a model, and after the dash its variant
  lr=placeholder(float),  # not given: the recipe's, for this batch size
  train_res=224,
  test_res=224,
  crop="inception_crop_fixed",  # TensorFlow's is inception_crop
  area_min=8.0,  # percent
  alpha=None,  # of beta_crop
  beta=None,
  interpolation="bicubic",  # of the crop and of RandAugment, as timm's
  seed=0,
  data="imagenet2012",  # or another TFDS name, or a folder
  data_dir=None,
  real=True,  # evaluate on ImageNet-ReaL and -V2
  v2=True,
  test_crops=False,  # at the end val_crop875 to val_crop1000, as in Table 9
  smoke=False,  # two epochs on 64 embedded images
)
LOSSES = {"ce": "softmax_xent", "bce": "mean_sigmoid_xent"}


def parse_arg(text: str | None, **own) -> ConfigDict:
  """Reads what follows the colon of --config.

  Args:
    text: that text, or None.
    **own: the recipe's arguments: `epochs`, `warmup_epochs`, `batch`, `loss`,
      `test_crop`, `mixed_precision`, more of its own, and those of `ARGUMENTS`
      in which it differs.

  Returns:
    All arguments; of a small run, where `smoke` is given.

  Raises:
    ValueError: in one line, for an argument that is unknown or wrong.
  """
  arg = config.parse_arg(text, **ARGUMENTS | own)
  names.check("loss", arg.loss, LOSSES)
  if arg.smoke:
    vit = arg.model.partition("-")[0] == "vit"
    arg.update(
      model=arg.model if vit else "resnet-10",
      data="critters",
      train_res=32,
      test_res=32,
      batch=32,
      epochs=2.0,
      warmup_epochs=min(arg.warmup_epochs, 0.5),
    )
  return arg


def start(arg: ConfigDict) -> ConfigDict:
  """A config with the run's seed, length, batch size and training data."""
  c = config.default_config()
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  c.input.batch_size = arg.batch
  split = "train[:64]" if arg.smoke else "train"
  c.input.data = dict(name=arg.data, data_dir=arg.data_dir, split=split)
  c.log_training_steps = 2 if arg.smoke else 50
  return c


def set_model(
  c: ConfigDict,
  arg: ConfigDict,
  *,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  zero_init_last: bool = True,
) -> None:
  """Sets `config.model`, from `arg.model` and `arg.mixed_precision`.

  Args:
    c: the config.
    arg: the recipe's arguments.
    dropout: before the head.
    drop_path: stochastic depth.
    zero_init_last: of ResNets: each block starts as the identity.
  """
  c.model_name, _, variant = arg.model.partition("-")
  half = arg.mixed_precision and not arg.smoke
  c.model = dict(
    dropout=dropout,
    drop_path=drop_path,
    dtype_mm="bfloat16" if half else "float32",
  )
  if variant:
    c.model.variant = variant
  if c.model_name == "resnet":
    c.model.zero_init_last = zero_init_last
    if arg.smoke:
      c.model.update(width=16, small_stem=True)


def crop_args(arg: ConfigDict) -> str:
  """The arguments of the crop in the pp string: size, law, resize."""
  shape = [f"{k}={arg[k]}" for k in ("alpha", "beta") if arg[k] is not None]
  law = ", ".join([f"{arg.train_res}, area_min={arg.area_min:g}", *shape])
  return f'{law}, method="{arg.interpolation}", antialias=True'


def loss(
  name: str, smoothing: float = 0.0, mixed_target: str = "present"
) -> tuple[str, dict[str, Any]]:
  """`config.loss` and `config.targets`.

  Args:
    name: ce, cross-entropy, or bce, binary cross-entropy.
    smoothing: of labels.
    mixed_target: what bce wants of an image mixed from two: both classes
      `present`, or `mixed` by their weights, as ce always has them.

  Returns:
    Both.

  Raises:
    ValueError: for an unknown target.
  """
  names.check("bce_target", mixed_target, ("present", "mixed"))
  present = name == "bce" and mixed_target == "present"
  kind = "present" if present else "distribution"
  return LOSSES[name], dict(kind=kind, smoothing=smoothing)


def learning_rate(
  arg: ConfigDict, recipes_own: float, batch: int, rule: str
) -> float:
  """`arg.lr` as it is if given, else the recipe's for this batch size.

  Args:
    arg: the recipe's arguments.
    recipes_own: the recipe's learning rate.
    batch: the batch size that it is for.
    rule: how it goes with the batch size: `linear` for SGD and RMSProp, `sqrt`
      for Adam, AdamP and LAMB (appendix B).

  Returns:
    The learning rate.
  """
  if arg.lr is not None:
    return arg.lr
  return scaled_lr(recipes_own, arg.batch, base=batch, rule=rule)


def test_view(res: int, crop: float, interpolation: str) -> str:
  """The pp string for test images: torchvision's `Resize` and `CenterCrop`.

  timm's `create_transform` makes the same of them.

  Args:
    res: of the model's input, in pixels.
    crop: the part of the resized image's shorter side that is `res`.
    interpolation: a method of `resize`.

  Returns:
    The string, up to and with the normalisation.
  """
  like = 'rounding="torchvision"'
  return (
    f'decode|resize_small({math.floor(res / crop)}, method="{interpolation}", '
    f"antialias=True, {like})|central_crop({res}, {like})|vgg_value_range"
  )


def add_evals(c: ConfigDict, arg: ConfigDict, interpolation: str) -> None:
  """Adds the evaluators val, real and v2, and Table 9's for `test_crops`.

  Args:
    c: the config.
    arg: the recipe's arguments.
    interpolation: of test images.
  """
  data = lambda name, split: dict(name=name, data_dir=arg.data_dir, split=split)
  label = '|keep("image", "label")'
  view = lambda crop: test_view(arg.test_res, crop, interpolation)
  val = dict(
    type="classification",
    data=data(arg.data, "validation[:50]" if arg.smoke else "validation"),
    pp_fn=view(arg.test_crop) + label,
    batch_size=min(1024, 4 * arg.batch),
    log_percent=0.5 if arg.smoke else 0.1,
  )
  c.evals.val = val
  if arg.real and arg.data == "imagenet2012":
    c.evals.real = val | dict(
      data=data("imagenet2012_real", "validation"),
      pp_fn=view(arg.test_crop)
      + '|onehot(1000, inkey="real_label", outkey="labels")'
      + '|keep("image", "labels")',
    )
  if arg.v2 and arg.data == "imagenet2012":
    c.evals.v2 = val | dict(data=data("imagenet_v2", "test"))
  for permille in (875, 900, 950, 1000) if arg.test_crops else ():
    c.evals[f"val_crop{permille}"] = val | dict(
      pp_fn=view(permille / 1000) + label, log_percent=1.0
    )


# Parameters beside an encoder's own: heads, and what pretraining had besides.
BESIDE = ["head/.*", "projector/.*", "decoder/.*"]


def start_from(c: ConfigDict, workdir: str) -> None:
  """Sets the model to a finished run's, and starts from its encoder.

  Args:
    c: the config.
    workdir: of a run of any objective.

  Raises:
    ValueError: in one line, if there is no run.
  """
  path = storage.path(workdir) / "config.json"
  if not path.exists():
    raise UserError(f"init={workdir} has no config.json: give a run's workdir")
  given = records.read_json(path)
  c.model_name, c.model = given["model_name"], given["model"]
  c.model_init = workdir
  c.model_load.dont_load = BESIDE


def set_plain_data(c: ConfigDict, arg: ConfigDict) -> None:
  """Random crops and flips to train on, central crops to test on.

  Args:
    c: the config.
    arg: `data`, `data_dir`, the splits `train` and `test`, `res` and `batch`.
  """
  data = dict(name=arg.data, data_dir=arg.data_dir)
  c.input.data = dict(**data, split=arg.train)
  c.input.pp = (
    f"decode_jpeg_and_inception_crop_fixed({arg.res}, area_min=8, "
    'antialias=True)|flip_lr|vgg_value_range|keep("image", "label")'
  )
  c.evals.val = dict(
    type="classification",
    data=dict(**data, split=arg.test),
    pp_fn=test_view(arg.res, 0.875, "bilinear") + '|keep("image", "label")',
    batch_size=min(arg.batch, 1024),
    log_percent=0.1,
  )
  c.log_training_steps = 50
