r"""ResNet-50 (v1.5) on ImageNet-1k in 90 epochs, with the crop of your choice.

    python -m big_crop.train --config configs/resnet50_i1k.py --workdir DIR

SGD with Nesterov momentum 0.9, learning rate 0.1 per 256 images, five epochs
of warm-up, cosine to zero, no weight decay of biases and batch norm. Weight
decay here is not multiplied by the learning rate; its value is equivalent to
L2 regularisation of 5e-5 in the gradient (with momentum) at the base learning
rate. Needs imagenet2012 in TFDS.

A smoke test on the embedded dataset, a minute on a CPU:

    python -m big_crop.train --workdir DIR \
      --config configs/resnet50_i1k.py:smoke

Other arguments: crop, area_min, epochs, batch, data_dir, seed. The shuffle
buffer takes 6 GB of a host's memory;
`--config.input.shuffle_buffer_size=10000` needs a fifth of that.
`--config.keep_ckpt_steps=10000` keeps more than the last checkpoints.
"""

from big_crop.config import default_config, parse_arg


def get_config(arg=None):
  arg = parse_arg(
    arg,
    crop="inception_crop_fixed",
    area_min=8.0,
    epochs=90,
    batch=1024,
    data_dir=None,
    seed=0,
    smoke=False,
  )
  c = default_config()
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  res, eval_batch = 224, 1024
  train, val = "train", "validation"

  c.model_name = "resnet"
  c.model = dict(variant="50", zero_init_last=True, dtype_mm="bfloat16")
  data = dict(name="imagenet2012", data_dir=arg.data_dir)
  c.input.batch_size = arg.batch
  momentum = 0.9
  c.optax_name = "trace"
  c.optax = dict(decay=momentum, nesterov=True)
  c.schedule = dict(decay_type="cosine", warmup_epochs=5)
  c.ckpt_steps = 1000
  log_epochs = 5

  if arg.smoke:
    res, eval_batch, log_epochs = 64, 32, 1
    train, val = "train[:256]", "validation[:100]"
    c.model.update(variant="10", dtype_mm="float32")
    data = dict(name="critters")
    c.input.batch_size = 32
    c.total_epochs = 1
    c.schedule = dict(decay_type="cosine", warmup_steps=2)
    c.log_training_steps = 4

  c.lr = 0.1 * c.input.batch_size / 256
  c.wd = c.lr * 5e-5 / (1 - momentum)
  c.input.data = dict(**data, split=train)
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({res}, area_min={arg.area_min:g})|flip_lr"
    '|vgg_value_range|keep("image", "label")'
  )
  c.evals.val = dict(
    type="classification",
    data=dict(**data, split=val),
    pp_fn=(
      f"decode|resize_small({res * 8 // 7})|central_crop({res})"
      '|vgg_value_range|keep("image", "label")'
    ),
    batch_size=eval_batch,
    log_epochs=log_epochs,
  )
  return c
