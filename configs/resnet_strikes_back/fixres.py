r"""FixRes recipe: ResNet-50, 120 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/fixres.py

https://arxiv.org/abs/2110.00476, Table 2, column FixRes:

Top-1 77.0 on val, at the training resolution. How strong the color jitter is
the paper does not say: 0.4.

`fixres.py:crop=inception_crop` has TensorFlow's crop in place of PyTorch's,
`fixres.py:smoke` is half a minute on the embedded dataset. All arguments: those
of `parse_arg` below, and `big_crop.recipes.ARGUMENTS`. Needs imagenet2012 in
TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
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
