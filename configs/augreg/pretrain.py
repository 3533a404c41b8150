r"""Pretraining as in "How to train your ViT?" (arXiv:2106.10270), section 3.4.

    python -m big_crop.train --workdir DIR --config \
      configs/augreg/pretrain.py:model=S/16,data=i1k,aug=medium1,wd=0.1,do=0.1,sd=0.1

Adam, batch 4096, learning rate 1e-3 after 10,000 steps of warm-up, cosine,
clipping 1.0, TensorFlow's Inception crop of 5 to 100%, flip, [-1, 1]. `wd` is
the paper's number, which is multiplied by the learning rate. From the authors'
code (big_vision): the sigmoid loss, the head's bias, bfloat16 for Adam's first
moment, and the view for validation, the shorter side to 256 and the central
224. Top-1 of ImageNet-1k's validation set, best setting by minival, after 300
epochs: Ti/16 72.59, S/32 72.07, S/16 79.00, B/32 74.42, B/16 79.84, L/16 75.72
(Table 3, i1k_up).

ImageNet-21k is not in TFDS: `source` is a dataset of your own, prepared with
TFDS or a folder of class folders, whose split `split` has all images in random
order. As in the authors' code, the first 25,600 images are for testing and the
next 25,600 for validation. Images that are also in the test sets of other
datasets are not removed; you have to do that.

To train from scratch, as in appendix A, set `data` to one of the small datasets
of `big_crop.study.augreg.TRANSFER`, or to critters, the embedded dataset. Then
weight decay is not multiplied by the learning rate: footnote 4 calls it
"decoupled". Batch (512) and warm-up (a tenth of the steps) are our choice,
because the paper does not give them.

What can be chosen:

    model     Ti/16, S/32, S/16, B/32, B/16, L/16, R+Ti/16, R26+S/32, R50+L/32;
              or another variant of `vit`, for example mu/8
    data      i1k, i21k, or for training from scratch oxford_iiit_pet, resisc45,
              cifar100, kitti_distance, critters
    source, split, data_dir, num_classes  of i21k (imagenet21k, full, None,
              21,843)
    aug       none, light1, light2, medium1, medium2, strong1 (Figure 4's
              heavy1), strong2; appendix A also has medium4, strong4
    wd        0.1, 0.03
    do, sd    dropout and stochastic depth: both 0, or both 0.1
    epochs    300; the paper trains on i21k also for 30
    hidden    a hidden layer in the head, as in some checkpoints of i1k
    res, lr, batch, seed
    dtype     of matrix products: bfloat16, float32
    remat, scan  save memory: docs/augreg.md
    real, v2  False leaves that evaluator out
    smoke
"""

import math

from big_crop import names
from big_crop.config import default_config, parse_arg
from big_crop.study import augreg


def get_config(arg=None):
  arg = parse_arg(
    arg,
    model="S/16",
    data="i1k",
    source="imagenet21k",
    split="full",
    data_dir=None,
    num_classes=21_843,
    aug="medium1",
    wd=0.1,
    do=0.0,
    sd=0.0,
    epochs=300.0,
    hidden=False,
    res=224,
    lr=1e-3,
    batch=None,
    seed=0,
    dtype="bfloat16",
    remat=False,
    scan=False,
    real=True,
    v2=True,
    smoke=False,
  )
  small = {k: t for k, t in augreg.TRANSFER.items() if k != "imagenet2012"}
  small["critters"] = augreg.Task("critters", 20, "train", "", "validation")
  names.check("data", arg.data, ("i1k", "i21k", *small))
  names.check("aug", arg.aug, augreg.AUGMENTATIONS | augreg.FROM_SCRATCH)
  full, scratch = arg.split, arg.data in small
  task = small.get(arg.data)
  if arg.data == "i1k":
    task = augreg.TRANSFER["imagenet2012"]
  elif arg.data == "i21k":
    parts = (f"{full}[{part}]" for part in ("51200:", "25600:51200", ":25600"))
    task = augreg.Task(arg.source, arg.num_classes, *parts)
  evals = {"val": task.val, "test": task.test}
  if arg.data == "i1k":
    evals = {"minival": task.val, "val": task.test}

  c = default_config()
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  res = arg.res
  c.num_classes = task.num_classes
  c.model_name = "vit"
  c.model = dict(
    variant=f"AugReg-{arg.model}",
    dropout=arg.do,
    drop_path=arg.sd,
    rep_size=arg.hidden,
    # -6.9 and -10 are from the authors' code: the logs of 1/1000 and 1/21,843,
    # the prior probabilities of a class.
    head_bias=-round(math.log(task.num_classes), 1),
    dtype_mm=arg.dtype,
    remat=arg.remat,
    scan=arg.scan,
  )
  c.loss = "sigmoid_xent"
  augment, c.mixup.p = augreg.augment(arg.aug)

  c.input.batch_size = arg.batch or (512 if scratch else 4096)
  c.optax_name = "scale_by_adam"
  c.optax = dict(b1=0.9, b2=0.999, mu_dtype="bfloat16")
  c.lr = arg.lr
  c.wd = arg.wd if scratch else arg.wd * arg.lr
  c.grad_clip_norm = 1.0
  warmup = dict(warmup_percent=0.1) if scratch else dict(warmup_steps=10_000)
  c.schedule = dict(decay_type="cosine", **warmup)

  log, eval_batch = dict(log_percent=0.1), 1024
  if arg.smoke:
    task, res = small["critters"]._replace(train="train[:64]"), 64
    evals = dict.fromkeys(evals, "validation[:50]")
    c.num_classes = task.num_classes
    c.model.update(augreg.SMOKE)
    c.input.batch_size = eval_batch = 32
    c.total_epochs, c.schedule = 2.0, dict(decay_type="cosine", warmup_steps=1)
    c.log_training_steps, log = 2, dict(log_percent=1.0)

  keep = '|keep("image", "label")'
  data = dict(name=task.data, data_dir=arg.data_dir)
  c.input.data = dict(**data, split=task.train)
  c.input.pp = (
    f"{task.label}|decode_jpeg_and_inception_crop({res})|flip_lr|{augment}"
    f"|value_range(-1, 1){keep}"
  )
  view = (
    f"{task.label}|decode|resize_small({res * 8 // 7})|central_crop({res})"
    "|value_range(-1, 1)"
  )
  evaluate = dict(
    pp_fn=view + keep, batch_size=eval_batch, loss_name=c.loss, **log
  )
  for key, split in evals.items():
    if not split:
      continue
    c.evals[key] = dict(data=dict(**data, split=split), **evaluate)
  if arg.data == "i1k" and not arg.smoke:
    others = {}
    if arg.v2:
      others["v2"] = ("imagenet_v2", "test", keep)
    if arg.real:
      labels = '|onehot(1000, inkey="real_label", outkey="labels")'
      keep_sets = f'{labels}|keep("image", "labels")'
      others["real"] = ("imagenet2012_real", "validation", keep_sets)
    for key, (name, split, last) in others.items():
      data = dict(name=name, split=split, data_dir=arg.data_dir)
      c.evals[key] = evaluate | dict(data=data, pp_fn=view + last)
  return c
