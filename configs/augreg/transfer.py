r"""Finetuning as in "How to train your ViT?" (arXiv:2106.10270): Tables 4, 5.

    python -m big_crop.train --workdir DIR --config.model_load.index=INDEX \
      --config configs/augreg/transfer.py:init=augreg:B/16,dataset=cifar100,lr=0.01

`init` is a published checkpoint ("augreg:" and its name, or "augreg:" and a
model's name for the one that the paper recommends), a file of weights, or a
run's workdir. INDEX is AugReg's index.csv; the checkpoints must be in the same
folder. The head is new.

SGD with momentum 0.9, kept in bfloat16, no weight decay, batch 512, clipping
1.0, cosine with a warm-up, no dropout. Choose lr and steps by the evaluator
`val` and report `test`. For ImageNet after pretraining on i21k, choose by `v2`
(section 4.5). `big_crop.study.augreg` has the datasets, with their splits and
what to sweep:

    Table 4   imagenet2012, oxford_iiit_pet, kitti_distance, cifar100, resisc45
    Table 5   the 19 of VTAB as vtab/cifar100, ..., vtab/norb_elevation

The paper does not say how images are preprocessed. Here images of Table 4's
datasets except kitti_distance are cropped (TensorFlow's Inception crop) and
flipped for training, and tested on the central part, as in big_vision. Images
of the other datasets are resized as a whole, as in task_adaptation, because a
crop would make some of their labels wrong.

What can be chosen:

    init, dataset
    model     the model, if `init` is a file or not given (B/16)
    res       384, 224
    lr, steps, batch, seed, data_dir
    examples  1000: VTAB-1k, 800 to train on and 200 to choose by
    refit     train on the validation examples, too
    dtype     of matrix products: bfloat16, float32
    remat, scan  save memory: docs/augreg.md
    smoke
"""  # noqa: E501

from big_crop import names
from big_crop.config import default_config, parse_arg
from big_crop.recipes import transfer
from big_crop.study import augreg
from big_crop.weights import torch_files
from big_crop.weights.augreg import PREFIX, variant
from pp_ops.errors import UserError


def get_config(arg=None):
  arg = parse_arg(
    arg,
    init=None,
    dataset="cifar100",
    model="B/16",
    res=384,
    lr=0.01,
    steps=None,
    batch=512,
    seed=0,
    data_dir=None,
    examples=None,
    refit=False,
    dtype="bfloat16",
    remat=False,
    scan=False,
    smoke=False,
  )
  known = augreg.TRANSFER | {f"vtab/{k}": t for k, t in augreg.VTAB.items()}
  names.check("dataset", arg.dataset, known)
  task = known[arg.dataset]
  if arg.examples is not None:
    if arg.examples != 1000 or not task.group:
      raise UserError(
        f"examples={arg.examples}: need 1000, and one of VTAB's datasets"
      )
    task = augreg.with_1000(task)
  if arg.smoke:
    parts = "train[:48]", "train[48:64]", "validation[:50]"
    small = dict(zip(("train", "val", "test"), parts, strict=True))
    task = task._replace(data="critters", label="", scale=255, **small)
  steps = arg.steps or task.steps[-1]
  published = arg.init and arg.init.startswith(PREFIX)
  files = (".npz", *torch_files.SUFFIXES)
  of_run = arg.init and not published and not arg.init.endswith(files)

  c = default_config()
  c.seed = arg.seed
  c.total_steps = steps
  c.num_classes = task.num_classes
  c.model_name, c.model_init = "vit", arg.init
  if of_run:
    transfer.set_model_of(c, arg.init)
    c.model.update(dropout=0.0, drop_path=0.0, rep_size=False, head_bias=0.0)
  else:
    c.model.variant = variant(arg.init if published else arg.model)
  c.model.update(dtype_mm=arg.dtype, remat=arg.remat, scan=arg.scan)
  c.model_load.dont_load = [*transfer.BESIDE, "pre_logits/.*"]

  c.input.batch_size = arg.batch
  c.optax_name = "trace"
  c.optax = dict(decay=0.9, accumulator_dtype="bfloat16")
  c.lr = arg.lr
  c.grad_clip_norm = 1.0
  warmup = augreg.WARMUP.get(steps, steps // 10)
  c.schedule = dict(decay_type="cosine", warmup_steps=warmup)

  train = f"{task.train}+{task.val}" if arg.refit else task.train
  splits = {"val": (task.data, task.val), "test": (task.data, task.test)}
  if arg.dataset == "imagenet2012" and not arg.smoke:
    splits["v2"] = ("imagenet_v2", "test")
  res, eval_batch = arg.res, 1024
  if arg.smoke:
    res, eval_batch = 32, 16
    c.model.update(augreg.SMOKE)
    c.input.batch_size, c.num_classes = 16, None
    c.total_steps, c.schedule.warmup_steps = 2, 1

  norm = '|value_range(-1, 1)|keep("image", "label")'
  decode = f"{task.label}|decode"
  if task.scale != 255:
    decode += f"|value_range(0, 255, 0, {task.scale})"
  whole = f"{decode}|resize({res})"
  crop = f"{task.label}|decode_jpeg_and_inception_crop({res})|flip_lr"
  centre = f"{decode}|resize_small({res * 7 // 6})|central_crop({res})"
  data = dict(data_dir=arg.data_dir)
  c.input.data = dict(name=task.data, split=train, **data)
  c.input.pp = (crop if task.crops else whole) + norm
  for key, (name, split) in splits.items():
    c.evals[key] = dict(
      data=dict(name=name, split=split, **data),
      pp_fn=(centre if task.crops else whole) + norm,
      batch_size=eval_batch,
      log_percent=1.0,
    )
  return c
