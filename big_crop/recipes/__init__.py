"""Code that the recipes of "ResNet strikes back" and of "CropMix" share.

Ross Wightman, Hugo Touvron, Hervé Jégou, "ResNet strikes back: An improved
training procedure in timm" (https://arxiv.org/abs/2110.00476). Junlin Han et
al., "CropMix: Sampling a Rich Input Distribution via Multi-Scale Cropping"
(https://arxiv.org/abs/2205.15955). The recipes themselves are config files in
configs/resnet_strikes_back/ and configs/cropmix/.
"""

import math
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from big_crop import config, names
from big_crop.optim.scaling import scaled_lr

# Arguments that every recipe takes after the colon of --config, besides its
# own.
ARGUMENTS = dict(
  model="resnet-50",  # a model, and after the dash its variant
  lr=placeholder(float),  # by default the recipe's, scaled to the batch size
  train_res=224,  # pixels of training images
  test_res=224,  # pixels of test images
  res=None,  # sets both train_res and test_res
  crop="inception_crop_fixed",  # the crop op; TensorFlow's is inception_crop
  area_min=8.0,  # smallest crop, percent of the image
  alpha=None,  # of beta_crop, or of the distribution of CropMix's weights
  beta=None,  # of beta_crop
  interpolation="bicubic",  # of the crop and of RandAugment, as in timm
  seed=0,  # of the whole run
  data="imagenet2012",  # or another TFDS name, or a folder
  data_dir=None,  # folder in which TFDS has prepared the dataset
  test_split=None,  # by default "validation", or the dataset's test split
  real=True,  # evaluate on ImageNet-ReaL
  v2=True,  # evaluate on ImageNet-V2
  test_crops=False,  # evaluate val_crop875 to val_crop1000 at the end (Table 9)
  test_sizes=False,  # evaluate at each of TEST_SIZES at the end (Figure 4)
  smoke=False,  # two epochs on 64 embedded images
)
# Arguments that CropMix's recipes take besides, or with other defaults.
CROPMIX = dict(
  crop="cropmix",  # the plain random crop is inception_crop_fixed
  area_min=None,  # percent; by default 1 for CropMix, 8 for another crop
  num="2+3+4",  # how many crops to mix; 2+3+4 draws one of these numbers
  mix="mixup",  # how they are mixed: mixup or cutmix
  permute=True,  # in each mix, permute the channels of the lighter image
  scales="multi",  # multi: each crop has its own range of scales; or single
  before="none",  # one of AUGMENTATIONS, for the lighter image of each mix
  after="none",  # one of AUGMENTATIONS, after the crop, whichever crop it is
  loss="ce",  # ce, cross-entropy, or bce, binary cross-entropy
  test_crop=0.875,  # the part of a test image's shorter side that is kept
  mixed_precision=False,  # matrix products in bfloat16
  real=False,  # evaluate on ImageNet-ReaL
  v2=False,  # evaluate on ImageNet-V2
  robust=False,  # evaluate Table 2's metrics besides top-1 at the end
  corrupted=None,  # the folder of Co-Mixup's test sets, `replace` and `noise`
)
CROPMIX_METRICS = (
  dict(key="val/top1", label="top-1 accuracy (%)", scale=100),
  dict(
    key="calibration/rms_calibration_pixmix",
    label="RMS calibration error (%), as PixMix computes it",
    scale=100,
    better="lower",
  ),
  *(
    dict(key=f"{name}/top1", label=f"top-1 accuracy (%), {label}", scale=100)
    for name, label in (
      ("fgsm", "FGSM of 8/255"),
      ("replace", "other background"),
      ("noise", "noisy background"),
      ("imagenet_a", "ImageNet-A"),
      ("imagenet_r", "ImageNet-R"),
      ("imagenet_sketch", "ImageNet-Sketch"),
    )
  ),
)
# The augmentations of Table 5f. The paper does not give the strength of its
# colour jitter; here it is 0.4.
AUGMENTATIONS = {
  "none": "",
  "flip_lr": "flip_lr",
  "flip_ud": "flip_ud",
  "channel_permute": "channel_permute",
  "color_jitter": "color_jitter(0.4, 0.4, 0.4)",
  "autoaugment": "autoaugment",
}
TEST_SIZES = (128, 160, 192, 256, 288, 320, 352, 384)  # pixels, beside test_res
LOSSES = {"ce": "softmax_xent", "bce": "mean_sigmoid_xent"}
# (train, test) of datasets whose test split is not called "validation".
SPLITS = {
  "i_naturalist2021": ("train", "val"),
  "oxford_flowers102": ("train+validation", "test"),
  "cars196": ("train", "test"),
  "cifar100": ("train", "test"),
  "cifar10": ("train", "test"),
}


def parse_arg(text: str | None, **own) -> ConfigDict:
  """Parses the arguments that follow the colon of --config.

  Args:
    text: the text after the colon, or None.
    **own: the recipe's arguments with their defaults: `epochs`,
      `warmup_epochs`, `batch`, `loss`, `test_crop`, `mixed_precision`, any
      others of its own, and those of `ARGUMENTS` whose default differs.

  Returns:
    All arguments. If `smoke` is set, several are replaced by those of a small
    run.

  Raises:
    ValueError: in one line, for an argument that is unknown or wrong.
  """
  arg = config.parse_arg(text, **ARGUMENTS | own)
  names.check("loss", arg.loss, LOSSES)
  if arg.res:
    arg.update(train_res=arg.res, test_res=arg.res)
  if arg.smoke:
    # The default model becomes a ResNet-10. A model that was asked for is kept,
    # so that its own code is tested, although large ones take minutes.
    default = (ARGUMENTS | own)["model"]
    arg.update(
      model="resnet-10" if arg.model == default else arg.model,
      data="critters",
      train_res=32,
      test_res=32,
      batch=32,
      epochs=2.0,
      warmup_epochs=min(arg.warmup_epochs, 0.5),
      test_split=None,
    )
  return arg


def parse_cropmix(text: str | None, **own) -> ConfigDict:
  """`parse_arg` for CropMix's recipes, which also take those of `CROPMIX`."""
  arg = parse_arg(text, **CROPMIX | own)
  if arg.area_min is None:
    arg.area_min = 1.0 if arg.crop == "cropmix" else 8.0
  return arg


def start(arg: ConfigDict) -> ConfigDict:
  """A config with the run's seed, length, batch size and training data."""
  c = config.default_config()
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  c.input.batch_size = arg.batch
  split = "train[:64]" if arg.smoke else SPLITS.get(arg.data, ["train"])[0]
  c.input.data = dict(name=arg.data, data_dir=arg.data_dir, split=split)
  c.log_training_steps = 2 if arg.smoke else 50
  return c


def set_model(
  c: ConfigDict,
  arg: ConfigDict,
  *,
  zero_init_last: bool = True,
  **rates: float,
) -> None:
  """Sets `config.model`, from `arg.model` and `arg.mixed_precision`.

  Args:
    c: the config.
    arg: the recipe's arguments.
    zero_init_last: in ResNets and RegNets, whether each block starts as the
      identity.
    **rates: `dropout`, before the head; `drop_path`, stochastic depth.
  """
  c.model_name, _, variant = arg.model.partition("-")
  half = arg.mixed_precision and not arg.smoke
  # A rate of zero is not passed on, because the model may lack the argument.
  c.model = {k: v for k, v in rates.items() if v}
  if half:
    c.model.dtype_mm = "bfloat16"
  if variant:
    c.model.variant = variant
  if c.model_name in ("resnet", "regnet"):
    c.model.zero_init_last = zero_init_last
  if arg.smoke and arg.model == "resnet-10":
    c.model.update(width=16, small_stem=True)


def crop_args(arg: ConfigDict) -> str:
  """The arguments of the crop in the pp string: size, law, resize."""
  shape = [f"{k}={arg[k]}" for k in ("alpha", "beta") if arg[k] is not None]
  if arg.crop == "cropmix":
    num = [int(n) if n.isdigit() else n for n in arg.num.split("+")]
    shape += [f"num={tuple(num) if num[1:] else num[0]}"]
    before = _augmentation("before", arg)
    given = dict(mix=arg.mix, permute=arg.permute, scales=arg.scales)
    given |= {"before": before} if before else {}
    shape += [f"{k}={v!r}" for k, v in given.items()]
  law = ", ".join([f"{arg.train_res}, area_min={arg.area_min:g}", *shape])
  return f'{law}, method="{arg.interpolation}", antialias=True'


def _augmentation(place, arg):
  names.check(place, arg[place], AUGMENTATIONS)
  return AUGMENTATIONS[arg[place]]


def cropped(arg: ConfigDict) -> str:
  """The start of CropMix's pp strings: crop, flip, augmentation `after`."""
  after = _augmentation("after", arg)
  first = f"decode_jpeg_and_{arg.crop}({crop_args(arg)})|flip_lr"
  return f"{first}|{after}" if after else first


def loss(
  name: str, smoothing: float = 0.0, mixed_target: str = "present"
) -> tuple[str, dict[str, Any]]:
  """The values of `config.loss` and `config.targets`.

  Args:
    name: ce, cross-entropy, or bce, binary cross-entropy.
    smoothing: label smoothing.
    mixed_target: the targets of bce for an image mixed from two: 1 for both
      classes (`present`), or their mixing weights (`mixed`). ce always uses the
      weights.

  Returns:
    The two values.

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
  """`arg.lr` if given, else the recipe's, scaled to the batch size `arg.batch`.

  Args:
    arg: the recipe's arguments.
    recipes_own: the recipe's learning rate.
    batch: the batch size of `recipes_own`.
    rule: how the learning rate grows with the batch size: `linear` for SGD and
      RMSProp, `sqrt` for Adam, AdamP and LAMB (appendix B).

  Returns:
    The learning rate.
  """
  if arg.lr is not None:
    return arg.lr
  return scaled_lr(recipes_own, arg.batch, base=batch, rule=rule)


def sgd(
  c: ConfigDict,
  arg: ConfigDict,
  batch: int,
  wd: float,
  lr: float = 0.1,
  **schedule,
):
  """SGD with momentum as in PyTorch.

  Weight decay applies to every parameter, also to biases and norms.

  Args:
    c: the config.
    arg: the recipe's arguments.
    batch: the batch size that `lr` is for.
    wd: weight decay.
    lr: the learning rate at that batch size.
    **schedule: entries of `config.schedule`, without the warm-up.
  """
  c.optax_name = "trace"
  c.optax = dict(decay=0.9)
  c.lr = learning_rate(arg, lr, batch=batch, rule="linear")
  c.wd = wd
  c.wd_in = "gradient"
  c.wd_mults = [(".*", 1.0)]
  c.schedule = dict(warmup_epochs=arg.warmup_epochs, **schedule)


def lamb(c: ConfigDict, arg: ConfigDict, lr: float, batch: int) -> None:
  """LAMB as in timm, with weight decay `arg.wd` and a cosine schedule.

  "ResNet strikes back" mentions no gradient clipping, but timm's LAMB, with
  which its models were trained, clips.

  Args:
    c: the config.
    arg: the recipe's arguments.
    lr: the recipe's learning rate.
    batch: the batch size of `lr`.
  """
  c.optax_name = "scale_by_lamb"
  c.lr = learning_rate(arg, lr, batch=batch, rule="sqrt")
  c.wd = arg.wd
  c.wd_in = "rule"
  c.grad_clip_norm = 1.0
  c.schedule = cosine(arg)


def cosine(arg: ConfigDict) -> dict[str, Any]:
  """`config.schedule` for timm's cosine.

  The cosine starts at step 0, and the warm-up replaces its first steps.
  """
  return dict(
    decay_type="cosine", warmup_epochs=arg.warmup_epochs, warmup_prefix=False
  )


def steps(epochs: float) -> dict[str, Any]:
  """`config.schedule` that divides the learning rate by 10 every `epochs`."""
  return dict(decay_type="step", decay_rate=0.1, decay_epochs=epochs)


def test_view(
  res: int, crop: float, interpolation: str, norm: str = "vgg_value_range"
) -> str:
  """The pp string for test images: torchvision's `Resize` and `CenterCrop`.

  timm's `create_transform` does the same.

  Args:
    res: side of the model's input, in pixels.
    crop: `res` as a fraction of the resized image's shorter side.
    interpolation: a method of `resize`.
    norm: the op that normalises.

  Returns:
    The string, up to and including the normalisation.
  """
  like = 'rounding="torchvision"'
  return (
    f'decode|resize_small({math.floor(res / crop)}, method="{interpolation}", '
    f"antialias=True, {like})|central_crop({res}, {like})|{norm}"
  )


def add_evals(
  c: ConfigDict,
  arg: ConfigDict,
  interpolation: str,
  norm: str = "vgg_value_range",
) -> None:
  """Adds the evaluators val, real, v2; if asked, Table 9's and Figure 4's.

  Args:
    c: the config.
    arg: the recipe's arguments.
    interpolation: the method that resizes test images.
    norm: the op that normalises test images.
  """
  data = lambda name, split: dict(name=name, data_dir=arg.data_dir, split=split)
  label = '|keep("image", "label")'
  view = lambda crop, size=arg.test_res: test_view(
    size, crop, interpolation, norm
  )
  split = arg.test_split or SPLITS.get(arg.data, ["", "validation"])[1]
  val = dict(
    type="classification",
    data=data(arg.data, "validation[:50]" if arg.smoke else split),
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
  for size in TEST_SIZES if arg.test_sizes else ():
    c.evals[f"val_res{size}"] = val | dict(
      pp_fn=view(arg.test_crop, size) + label, log_percent=1.0
    )


def add_robust(c: ConfigDict, arg: ConfigDict) -> None:
  """If `arg.robust`, adds the other evaluators of CropMix's Table 2."""
  if not arg.robust:
    return
  once = c.evals.val.to_dict() | dict(log_percent=1.0)
  c.evals.calibration = once | dict(type="calibration")
  c.evals.fgsm = once | dict(type="adversarial")
  for name in ("imagenet_a", "imagenet_r", "imagenet_sketch"):
    data = dict(name=name, split="test", data_dir=arg.data_dir)
    c.evals[name] = once | dict(data=data)
    if name != "imagenet_sketch":  # A and R restrict predictions to 200 classes
      c.evals[name]["classes"] = name
  for name in ("replace", "noise") if arg.corrupted else ():
    data = dict(name=f"{arg.corrupted}/{name}", split="all")
    c.evals[name] = once | dict(data=data)
