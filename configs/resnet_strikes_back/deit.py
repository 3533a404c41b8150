r"""DeiT's recipe: ResNet-50, 300 epochs with AdamW.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/deit.py

The recipe is column DeiT in Table 2 of https://arxiv.org/abs/2110.00476, where
it reaches top-1 78.4 on val. model=vit-DeiT-S/16, for which it was made,
reaches 79.8 (section 4.4).

`deit.py:crop=inception_crop` trains with TensorFlow's crop instead of
PyTorch's. `deit.py:smoke` takes half a minute, on the embedded dataset. The
arguments are those of `parse_arg` below and of `big_crop.recipes.ARGUMENTS`.
TFDS must have imagenet2012 and, for the evaluators, imagenet2012_real and
imagenet_v2.
"""

from big_crop import recipes


def get_config(arg=None):
  arg = recipes.parse_arg(
    arg,
    epochs=300.0,
    batch=1024,
    warmup_epochs=5.0,
    loss="ce",
    test_crop=0.875,
    mixed_precision=True,
  )
  c = recipes.start(arg)
  recipes.set_model(c, arg, drop_path=0.1)

  c.input.repeats = 3
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({recipes.crop_args(arg)})|flip_lr"
    '|rand_augment("rand-m9-mstd0.5-inc1", '
    f'interpolation="{arg.interpolation}")'
    "|vgg_value_range|random_erasing(0.25, max_count=1)"
    '|keep("image", "label")'
  )
  c.mixing = dict(mixup_alpha=0.8, cutmix_alpha=1.0)
  c.loss, c.targets = recipes.loss(arg.loss, smoothing=0.1)

  c.optax_name = "scale_by_adam"
  c.lr = recipes.learning_rate(arg, 0.001, batch=1024, rule="sqrt")
  c.wd = c.lr * 0.05  # as in PyTorch's AdamW
  c.wd_in = "update"
  c.schedule = recipes.cosine(arg)

  recipes.add_evals(c, arg, interpolation="bicubic")
  return c
