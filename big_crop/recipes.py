"""Recipes as data: a column of the paper's tables -> a config.

Ross Wightman, Hugo Touvron, Hervé Jégou, "ResNet strikes back: An improved
training procedure in timm" (https://arxiv.org/abs/2110.00476), Tables 2 and 10.
The configs in configs/resnet_strikes_back/ are those columns.
"""

import math
from typing import Any

from ml_collections import ConfigDict

from big_crop import names
from big_crop.config import default_config, parse_arg
from big_crop.optim.scaling import scaled_lr

# A recipe says what it changes. Whatever is here can be changed after the colon
# of --config, too.
INGREDIENTS = dict(
  model="resnet-50",  # a model, and after the dash its variant
  train_res=224,
  test_res=224,
  epochs=90,
  batch=256,
  optimiser="sgd",
  lr=0.1,  # at the recipe's own batch size
  schedule="cosine",  # or step
  decay_rate=0.1,  # of step
  decay_epochs=30.0,
  warmup_epochs=0.0,
  lr_noise=0.0,  # from this fraction of the run on, if not 0
  wd=1e-4,
  wd_all=False,  # biases and norms decay, too
  smoothing=0.0,
  dropout=0.0,
  drop_path=0.0,  # stochastic depth
  repeated_aug=1,  # 3 is the papers'
  agc=0.0,  # factor of adaptive gradient clipping, if not 0
  crop="inception_crop_fixed",  # TensorFlow's is inception_crop; or scale, the
  # crop before: shorter side 256 to 480 (of 224), a window of train_res
  area_min=8.0,  # percent
  alpha=None,  # of beta_crop
  beta=None,
  interpolation="bicubic",  # of training and test images
  rand_augment="",
  mixup=0.0,
  cutmix=0.0,
  erasing=0.0,  # probability of random erasing
  erasing_count=1,
  color_jitter=0.0,
  lighting=0.0,  # standard deviation of PCA lighting
  ema=0.0,  # decay, if not 0
  test_crop=0.875,
  loss="ce",  # or bce
  bce_target="present",  # or mixed: mixed classes as a distribution
  mixed_precision=False,
  zero_init_last=True,
)

# What is not an ingredient.
ARGUMENTS = dict(
  seed=0,
  data="imagenet2012",  # or another TFDS name, or a folder
  data_dir=None,
  real=True,  # evaluate on ImageNet-ReaL and -V2
  v2=True,
  test_crops=False,  # at the end val_crop875 to val_crop1000, as in Table 9
  smoke=False,  # two epochs on 64 embedded images
)

# optax_name, optax, where weight decay goes, how lr goes with the batch size.
# Decay "in the update" is wd * lr there, as in PyTorch's AdamW.
_OPTIMISERS = {
  "sgd": ("trace", dict(decay=0.9), "gradient", "linear"),
  "nesterov": ("trace", dict(decay=0.9, nesterov=True), "gradient", "linear"),
  "rmsprop_tf": ("scale_by_rmsprop_tf", dict(eps=1e-3), "gradient", "linear"),
  "adamw": ("scale_by_adam", {}, "update", "sqrt"),
  "lamb": ("scale_by_lamb", {}, "rule", "sqrt"),
  "adamp": (
    "scale_by_adamp",
    dict(wd_ratio=0.01, nesterov=True),
    "rule",
    "sqrt",
  ),
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of [0, 1]


def build(arg: str | None, **ingredients) -> ConfigDict:
  """Builds a config from a column of the paper.

  Given another batch size and no `lr`, the learning rate is scaled: in
  proportion for SGD and RMSProp, by the square root for the others (appendix
  B).

  Args:
    arg: what follows the colon of --config: any of `INGREDIENTS` and
      `ARGUMENTS`.
    **ingredients: those of `INGREDIENTS` in which the recipe differs.

  Returns:
    The config.

  Raises:
    ValueError: in one line, for an argument that is unknown or wrong.
  """
  given = parse_arg(arg, **INGREDIENTS, **ARGUMENTS)
  a = parse_arg(arg, **INGREDIENTS | ingredients, **ARGUMENTS)
  names.check("optimiser", a.optimiser, _OPTIMISERS)
  names.check("schedule", a.schedule, ("cosine", "step"))
  names.check("loss", a.loss, ("ce", "bce"))
  names.check("bce_target", a.bce_target, ("present", "mixed"))
  if a.smoke:
    a.update(_smoke(a))
  usual_batch = ingredients.get("batch", INGREDIENTS["batch"])
  usual_lr = ingredients.get("lr", INGREDIENTS["lr"])
  if a.lr == usual_lr and given.lr == INGREDIENTS["lr"]:
    a.lr = scaled_lr(
      a.lr, a.batch, base=usual_batch, rule=_OPTIMISERS[a.optimiser][3]
    )

  c = default_config()
  c.seed = a.seed
  c.total_epochs = float(a.epochs)
  _set_model(c, a)
  _set_optimiser(c, a)

  train, val = ("train", "validation")
  if a.smoke:
    train, val = "train[:64]", "validation[:50]"
  data = dict(name=a.data, data_dir=a.data_dir)
  c.input.data = dict(**data, split=train)
  c.input.batch_size = a.batch
  c.input.repeats = a.repeated_aug
  c.input.pp = _train_pp(a)
  c.mixing = dict(mixup_alpha=a.mixup, cutmix_alpha=a.cutmix)
  present = a.loss == "bce" and a.bce_target == "present"
  c.loss = {"ce": "softmax_xent", "bce": "mean_sigmoid_xent"}[a.loss]
  c.targets = dict(
    kind="present" if present else "distribution", smoothing=a.smoothing
  )
  c.ema_decay = a.ema or None

  imagenet = a.data == "imagenet2012"
  view = lambda crop: test_view(a.test_res, crop, a.interpolation)
  val_data = dict(**data, split=val)
  eval_batch = min(1024, 4 * a.batch)
  add_evals(
    c,
    view(a.test_crop),
    data=val_data,
    real=a.real and imagenet,
    v2=a.v2 and imagenet,
    batch_size=eval_batch,
    log_percent=0.5 if a.smoke else 0.1,
  )
  if a.test_crops:
    for permille in (875, 900, 950, 1000):
      add_evals(
        c,
        view(permille / 1000),
        data=val_data,
        suffix=f"_crop{permille}",
        batch_size=eval_batch,
        log_percent=1.0,
      )
  c.log_training_steps = 2 if a.smoke else 50
  return c


def test_view(res: int, crop: float, interpolation: str) -> str:
  """The pp string for test images.

  Args:
    res: of the model's input, in pixels.
    crop: the part of the resized image's shorter side that is `res`.
    interpolation: a method of `resize`.

  Returns:
    The string, up to and with the normalisation.
  """
  return (
    f'decode|resize_small({math.floor(res / crop)}, method="{interpolation}", '
    f"antialias=True)|central_crop({res})|vgg_value_range"
  )


def add_evals(
  c: ConfigDict,
  view: str,
  *,
  data: dict[str, Any],
  real: bool = False,
  v2: bool = False,
  suffix: str = "",
  **kwargs,
) -> None:
  """Adds the evaluators val, and of ImageNet real and v2.

  Args:
    c: the config.
    view: pp string that leaves an image as the model sees it.
    data: the validation data.
    real: whether to evaluate on ImageNet-ReaL's labels.
    v2: whether to evaluate on ImageNet-V2.
    suffix: of the evaluators' names.
    **kwargs: further arguments of the evaluators.
  """
  kwargs = dict(type="classification", **kwargs)
  data_dir = data.get("data_dir")
  with_label = f'{view}|keep("image", "label")'
  c.evals[f"val{suffix}"] = dict(data=data, pp_fn=with_label, **kwargs)
  if real:
    c.evals[f"real{suffix}"] = dict(
      data=dict(
        name="imagenet2012_real", split="validation", data_dir=data_dir
      ),
      pp_fn=(
        f'{view}|onehot(1000, inkey="real_label", outkey="labels")'
        '|keep("image", "labels")'
      ),
      **kwargs,
    )
  if v2:
    c.evals[f"v2{suffix}"] = dict(
      data=dict(name="imagenet_v2", split="test", data_dir=data_dir),
      pp_fn=with_label,
      **kwargs,
    )


def _smoke(a):
  model = a.model.partition("-")[0]
  return dict(
    model=a.model if model == "vit" else "resnet-18",
    train_res=32,
    test_res=32,
    data="critters",
    batch=32,
    epochs=2,
    # Of two epochs.
    warmup_epochs=min(a.warmup_epochs, 0.5),
    decay_epochs=min(a.decay_epochs, 0.5),
  )


def _set_model(c, a):
  c.model_name, _, variant = a.model.partition("-")
  c.model = dict(
    dropout=a.dropout,
    drop_path=a.drop_path,
    dtype_mm="bfloat16" if a.mixed_precision and not a.smoke else "float32",
  )
  if variant:
    c.model.variant = variant
  if c.model_name == "resnet":
    c.model.zero_init_last = a.zero_init_last
    if a.smoke:
      c.model.update(width=16, small_stem=True)


def _set_optimiser(c, a):
  c.optax_name, optax_args, c.wd_in, _ = _OPTIMISERS[a.optimiser]
  c.optax = dict(optax_args)
  c.lr = a.lr
  c.wd = a.lr * a.wd if c.wd_in == "update" else a.wd
  if a.wd_all:
    c.wd_mults = [(".*", 1.0)]
  if a.optimiser == "lamb":
    # Part of timm's LAMB, and so of the recipes, though the tables have it as
    # no clipping.
    c.grad_clip_norm = 1.0
  if a.agc:
    c.agc = a.agc
  c.schedule = dict(decay_type=a.schedule, warmup_epochs=a.warmup_epochs)
  if a.schedule == "step":
    c.schedule.update(decay_rate=a.decay_rate, decay_epochs=a.decay_epochs)
  else:
    c.schedule.warmup_prefix = False
  if a.lr_noise:
    c.schedule.lr_noise = (a.lr_noise, 1.0)


def _train_pp(a):
  resize = f'method="{a.interpolation}", antialias=True'
  if a.crop == "scale":
    low, high = (round(a.train_res * s / 224) for s in (256, 480))
    ops = [
      f"decode|random_resize_small({low}, {high}, {resize})",
      f"random_crop({a.train_res})",
    ]
  else:
    kwargs = [f"area_min={a.area_min:g}"]
    kwargs += [f"{k}={a[k]}" for k in ("alpha", "beta") if a[k] is not None]
    kwargs = ", ".join([*kwargs, resize])
    ops = [f"decode_jpeg_and_{a.crop}({a.train_res}, {kwargs})"]
  ops += ["flip_lr"]
  if a.rand_augment:
    ops += [f'rand_augment("{a.rand_augment}")']
  if a.color_jitter:
    strengths = ", ".join(3 * [f"{a.color_jitter:g}"])
    ops += [f"color_jitter({strengths})"]
  if a.lighting:
    ops += [
      "value_range(0, 1)",
      f"lighting({a.lighting:g})",
      f"vgg_value_range(mean={_MEAN}, std={_STD})",
    ]
  else:
    ops += ["vgg_value_range"]
  if a.erasing:
    ops += [f"random_erasing({a.erasing:g}, max_count={a.erasing_count})"]
  return "|".join([*ops, 'keep("image", "label")'])
