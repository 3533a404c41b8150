"""ViT-S/16 on ImageNet-1k: the "Simple ViT" recipe, any crop.

    python -m big_crop.train --config configs/vit_s16_i1k.py --workdir DIR

"Better plain ViT baselines for ImageNet-1k" (arXiv:2205.01580): batch 1024,
10,000 warm-up steps, cosine, AdamW 1e-3, weight decay 1e-4, clipping 1.0,
Mixup 0.2, sincos2d positions, global average pooling; without its RandAugment,
which this config does not have yet. Needs imagenet2012 in TFDS.

A smoke test on the embedded dataset, half a minute on a CPU:

    python -m big_crop.train --config configs/vit_s16_i1k.py:smoke --workdir DIR

Other arguments: crop, area_min, epochs, batch, data_dir, seed.
"""

from big_crop.config import default_config, parse_arg


def get_config(arg=None):
  arg = parse_arg(
    arg,
    crop="inception_crop_fixed",
    area_min=5.0,
    epochs=90,
    batch=1024,
    data_dir=None,
    seed=0,
    smoke=False,
  )
  c = default_config()
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  res, eval_batch, log_epochs = 224, 1024, 5
  train, val = "train[:99%]", "validation"

  c.model_name = "vit"
  c.model = dict(
    variant="S/16", posemb="sincos2d", pool_type="gap", dtype_mm="bfloat16"
  )
  data = dict(name="imagenet2012", data_dir=arg.data_dir)
  c.input.batch_size = arg.batch
  c.mixup.p = 0.2
  c.lr = 1e-3
  c.wd = 1e-4
  c.grad_clip_norm = 1.0
  c.optax_name = "scale_by_adam"
  c.optax = dict(mu_dtype="bfloat16")
  c.schedule = dict(decay_type="cosine", warmup_steps=10_000)
  c.ckpt_steps = 1000

  if arg.smoke:
    res, eval_batch, log_epochs = 64, 32, 1
    train, val = "train[:256]", "validation[:100]"
    c.model.update(variant="mu/16", dtype_mm="float32")
    data = dict(name="critters")
    c.input.batch_size = 32
    c.total_epochs = 1
    c.schedule.warmup_steps = 2
    c.log_training_steps = 4

  c.input.data = dict(**data, split=train)
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({res}, area_min={arg.area_min:g})|flip_lr"
    '|value_range(-1, 1)|keep("image", "label")'
  )
  c.evals.val = dict(
    type="classification",
    data=dict(**data, split=val),
    pp_fn=(
      f"decode|resize_small({res * 8 // 7})|central_crop({res})"
      '|value_range(-1, 1)|keep("image", "label")'
    ),
    batch_size=eval_batch,
    log_epochs=log_epochs,
  )
  return c
