r"""ViT-S/16 on ImageNet-1k: "You May Be Running the Wrong Inception Crop".

    python -m big_crop.train --workdir DIR \
      --config configs/wrong_inception_crop/vit_s16_i1k.py:crop=inception_crop_fixed,area_min=5,epochs=90

The "Simple ViT" of arXiv:2205.01580 with its linear head: batch 1024, 10,000
warm-up steps, cosine, AdamW 1e-3, weight decay 1e-4 (multiplied by the
schedule, not by the learning rate), clipping 1.0, RandAugment(2, 10) with the
right `Contrast`, Mixup 0.2. The paper's top-1, mean and standard deviation of
three seeds:

    90 epochs, area_min=5   val            ReaL
    inception_crop          76.25 +- 0.05  83.10 +- 0.03   Tables 5, 7
    inception_crop_fixed    76.92 +- 0.13  83.39 +- 0.09   Tables 6, 8

`optimiser=scion` is the setup of appendix I: batch 4096, no warm-up, RMSNorm,
GELU times sqrt(2), as in Scion's own ViT, whose RMSNorm has no learnt scale;
78.68 +- 0.09 and 84.94 +- 0.05 (Table 18).

The paper trained in PyTorch and names "the full setup" of arXiv:2205.01580. It
does not give the dtype, the kind of GELU and the resize for validation. Here
the dtype is bfloat16 for speed; `dtype=float32` is the safe choice. GELU is
big_vision's tanh approximation; `gelu_exact=True` is PyTorch's default.
Validation uses big_vision's view: the shorter side to 256 and the central 224.

Needs imagenet2012, imagenet2012_real and imagenet_v2, prepared by TFDS. A smoke
test on the embedded dataset, half a minute on a CPU: append `:smoke`.

Arguments, each of the paper's 522 runs being some choice of the first seven:

    crop      inception_crop (TensorFlow's), inception_crop_port (the same law
              as the paper reimplemented it), inception_crop_fixed, beta_crop
    area_min  percent: 2.5, 5, 10, 15, 20, 25; for beta_crop 0, 5, 10, 25, 33, 50
    alpha, beta  of beta_crop
    epochs    30, 60, 90, 150, 300
    seed      0, 1, 2
    optimiser adamw, scion
    wd        lambda_l of Scion: 0.04, 0.08, 0.12, 0.16 (0.08); AdamW's (1e-4)
    lr        AdamW's (1e-3); gamma_l of Scion (0.01). Scion's gamma_L is 20
              gamma_l, and its decay is gamma_l lambda_l: both follow lr
    dtype     of matrix products: bfloat16, float32
    gelu_exact  the exact GELU
    antialias of the crop's resize, on in PyTorch and off in big_vision
    batch, data_dir
    real, v2, saliency  False leaves that evaluator out
    smoke
"""  # noqa: E501

from big_crop.config import default_config, parse_arg
from pp_ops.errors import UserError


def get_config(arg=None):
  arg = parse_arg(
    arg,
    crop="inception_crop_fixed",
    area_min=5.0,
    alpha=None,
    beta=None,
    epochs=90,
    seed=0,
    optimiser="adamw",
    wd=None,
    lr=None,
    dtype="bfloat16",
    gelu_exact=False,
    antialias=True,
    batch=None,
    data_dir=None,
    real=True,
    v2=True,
    saliency=True,
    smoke=False,
  )
  c = default_config()
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  c.num_classes = 1000
  res, eval_batch, log = 224, 1024, dict(log_percent=0.1)
  train, val = "train", "validation"

  c.model_name = "vit"
  c.model = dict(
    variant="S/16", posemb="sincos2d", pool_type="gap", dtype_mm=arg.dtype
  )
  gelu = "gelu_exact" if arg.gelu_exact else "gelu"
  c.model.act = gelu
  c.mixup.p = 0.2
  data = dict(name="imagenet2012", data_dir=arg.data_dir)
  if arg.optimiser == "adamw":
    c.input.batch_size = arg.batch or 1024
    c.optax_name = "scale_by_adam"
    c.optax = dict(b2=0.999)
    c.lr = 1e-3 if arg.lr is None else arg.lr
    c.wd = 1e-4 if arg.wd is None else arg.wd
    c.grad_clip_norm = 1.0
    c.schedule = dict(decay_type="cosine", warmup_steps=10_000)
  elif arg.optimiser == "scion":
    c.input.batch_size = arg.batch or 4096
    c.model.update(norm="rmsnorm_plain", act=f"sqrt2_{gelu}")
    c.optax_name = "scale_by_scion"
    c.lr = 0.01 if arg.lr is None else arg.lr  # gamma_l
    c.lr_mults = [("head/kernel", 20.0), (".*", 1.0)]  # gamma_L
    # gamma_l lambda_l. The head's decay gamma_L lambda_L is the same, because
    # gamma_L is 20 gamma_l and lambda_L is lambda_l / 20.
    c.wd = c.lr * (0.08 if arg.wd is None else arg.wd)
    c.wd_mults = [(".*", 1.0)]
    c.schedule = dict(decay_type="cosine")
  else:
    raise UserError(f"optimiser={arg.optimiser}: choose adamw or scion")
  c.ckpt_steps = 1000

  if arg.smoke:
    c.num_classes = None
    res, eval_batch, log = 64, 32, dict(log_percent=0.5)
    train, val = "train[:256]", "validation[:100]"
    c.model.update(variant="mu/16", dtype_mm="float32")
    data = dict(name="critters")
    c.input.batch_size = arg.batch or 32
    c.total_epochs = 1
    if arg.optimiser == "adamw":
      c.schedule.warmup_steps = 2
    c.log_training_steps = 4

  crop = [str(res), f"area_min={arg.area_min:g}"]
  crop += [f"{k}={arg[k]}" for k in ("alpha", "beta") if arg[k] is not None]
  crop += [f"antialias={arg.antialias}"]
  c.input.data = dict(**data, split=train)
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({', '.join(crop)})|flip_lr|randaug(2, 10)"
    '|value_range(-1, 1)|keep("image", "label")'
  )

  view = (
    f"decode|resize_small({res * 8 // 7})|central_crop({res})"
    "|value_range(-1, 1)"
  )
  pp_label = f'{view}|keep("image", "label")'
  pp_real = (
    f'{view}|onehot(1000, inkey="real_label", outkey="labels")'
    '|keep("image", "labels")'
  )
  evaluate = dict(type="classification", batch_size=eval_batch, **log)
  val_data = dict(**data, split=val)
  c.evals.val = dict(data=val_data, pp_fn=pp_label, **evaluate)
  if arg.real and not arg.smoke:
    real = dict(
      name="imagenet2012_real", split="validation", data_dir=arg.data_dir
    )
    c.evals.real = dict(data=real, pp_fn=pp_real, **evaluate)
  if arg.v2 and not arg.smoke:
    v2 = dict(name="imagenet_v2", split="test", data_dir=arg.data_dir)
    c.evals.v2 = dict(data=v2, pp_fn=pp_label, **evaluate)
  if arg.saliency:
    c.evals.saliency = dict(
      type="saliency",
      data=val_data,
      pp_fn=pp_label,
      batch_size=eval_batch,
      log_percent=1.0,
    )
  return c
