r"""FixRes recipe: ResNet-50, 120 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/fixres.py

The recipe is column FixRes in Table 2 of https://arxiv.org/abs/2110.00476,
where it reaches top-1 77.0 on val, tested at the training resolution. The paper
does not give the strength of the color jitter; here it is 0.4.

`fixres.py:crop=inception_crop` trains with TensorFlow's crop instead of
PyTorch's. `fixres.py:smoke` takes half a minute, on the embedded dataset. The
arguments are those of `parse_arg` below and of `big_crop.recipes.ARGUMENTS`.
TFDS must have imagenet2012 and, for the evaluators, imagenet2012_real and
imagenet_v2.
"""

from big_crop import recipes


def get_config(arg=None):
  arg = recipes.parse_arg(
    arg,
    epochs=120.0,
    batch=512,
    warmup_epochs=0.0,
    loss="ce",
    test_crop=0.875,
    interpolation="bilinear",
    mixed_precision=False,
  )
  c = recipes.start(arg)
  recipes.set_model(c, arg, zero_init_last=False)

  c.input.repeats = 3
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({recipes.crop_args(arg)})|flip_lr"
    "|color_jitter(0.4, 0.4, 0.4)"
    '|vgg_value_range|keep("image", "label")'
  )
  c.mixing = dict(mixup_alpha=0.0, cutmix_alpha=0.0)
  c.loss, c.targets = recipes.loss(arg.loss)

  drop = recipes.steps(0.5 if arg.smoke else 30.0)
  recipes.sgd(c, arg, batch=256, wd=1e-4, **drop)  # 0.2 for its batch of 512

  recipes.add_evals(c, arg, interpolation="bilinear")
  return c
