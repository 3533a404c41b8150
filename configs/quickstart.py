"""A small ViT on the embedded dataset: minutes on a laptop's CPU.

    python -m big_crop.train --config configs/quickstart.py --workdir /tmp/quick

Arguments follow the colon, as in
`--config configs/quickstart.py:crop=beta_crop,alpha=2,epochs=4`:

    crop      the crop op: inception_crop_fixed, inception_crop (TensorFlow's
              own), beta_crop, or one that you registered
    area_min  smallest crop, percent of the image
    alpha, beta  of beta_crop
    data      critters (embedded), a TFDS name, or a path: a prepared TFDS
              dataset, a folder of class folders of images, or packed data
    data_dir  folder of the prepared TFDS dataset
    res       pixels of the model's input
    epochs    by default 10 for the embedded dataset; for any other as many as
              make 125,000 examples, six minutes on two cores
    engine    what runs the preprocessing: tf.data on the host, or device, for
              packed data
    batch, seed
    model     vit, resnet, or a variant: vit-Ti/16, resnet-50
"""

from big_crop.config import default_config, parse_arg


def get_config(arg=None):
  arg = parse_arg(
    arg,
    crop="inception_crop_fixed",
    area_min=5.0,
    alpha=None,
    beta=None,
    data="critters",
    data_dir=None,
    res=48,
    epochs=None,
    engine="tf.data",
    batch=128,
    model="vit",
    seed=0,
  )
  c = default_config()
  c.seed = arg.seed
  if arg.epochs is None and arg.data != "critters":
    c.total_examples = 125_000
  else:
    c.total_epochs = 10.0 if arg.epochs is None else float(arg.epochs)

  shape = {k: arg[k] for k in ("alpha", "beta") if arg[k] is not None}
  crop = ", ".join(
    [str(arg.res), f"area_min={arg.area_min:g}"]
    + [f"{k}={v}" for k, v in shape.items()]
  )
  data = dict(name=arg.data, data_dir=arg.data_dir)
  c.input.data = dict(**data, split="train")
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({crop})|flip_lr|value_range(-1, 1)"
    '|keep("image", "label")'
  )
  c.input.engine = arg.engine
  c.input.batch_size = arg.batch

  kind, _, variant = arg.model.partition("-")
  c.model_name = kind
  if variant:
    c.model = dict(variant=variant)
    if kind == "resnet":
      c.model.zero_init_last = True
  elif kind == "vit":
    c.model = dict(
      width=128, depth=4, mlp_dim=512, num_heads=4, patch_size=(8, 8)
    )
    c.model.update(posemb="sincos2d", pool_type="gap")
  elif kind == "resnet":
    c.model = dict(variant="18", width=16, small_stem=True, zero_init_last=True)

  c.lr = 1e-3
  c.wd = 1e-4
  c.grad_clip_norm = 1.0
  c.schedule = dict(decay_type="cosine", warmup_percent=0.1)

  c.evals.val = dict(
    type="classification",
    data=dict(**data, split="validation"),
    pp_fn=(
      f"decode|resize_small({arg.res * 8 // 7})|central_crop({arg.res})"
      '|value_range(-1, 1)|keep("image", "label")'
    ),
    batch_size=arg.batch,
    log_percent=0.25,
  )
  c.log_training_steps = 25
  c.ckpt_steps = 100
  return c
