r"""C.2 of "ResNet strikes back": C.1 with repeated augmentation, AGC 0.05.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/c2.py

The recipe is C.2 in Table 10 of https://arxiv.org/abs/2110.00476, where it
reaches top-1 80.0 on val. The paper does not give the crop ratio at test time.
Here it is 0.95, because the accuracy of the released weights then agrees with
the paper's.

`c2.py:crop=inception_crop` trains with TensorFlow's crop instead of PyTorch's.
`c2.py:smoke` takes half a minute, on the embedded dataset. The arguments are
those of `parse_arg` below and of `big_crop.recipes.ARGUMENTS`. TFDS must have
imagenet2012 and, for the evaluators, imagenet2012_real and imagenet_v2.
"""

from big_crop import recipes


def get_config(arg=None):
  arg = recipes.parse_arg(
    arg,
    epochs=800.0,
    batch=2048,
    warmup_epochs=5.0,
    loss="ce",
    test_crop=0.95,
    mixed_precision=True,
  )
  c = recipes.start(arg)
  recipes.set_model(c, arg, dropout=0.25, drop_path=0.1)

  c.input.repeats = 3
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({recipes.crop_args(arg)})|flip_lr"
    '|rand_augment("rand-m7-n3-mstd1.0-inc1", '
    f'interpolation="{arg.interpolation}")'
    "|vgg_value_range|random_erasing(0.4, max_count=1)"
    '|keep("image", "label")'
  )
  c.mixing = dict(mixup_alpha=0.2, cutmix_alpha=1.0)
  c.loss, c.targets = recipes.loss(arg.loss, smoothing=0.1)

  c.optax_name = "trace"
  c.optax = dict(decay=0.9, nesterov=True)
  c.lr = recipes.learning_rate(arg, 0.88, batch=2048, rule="linear")
  c.wd = 1e-5
  c.wd_in = "gradient"
  c.agc = 0.05
  c.schedule = recipes.cosine(arg)

  recipes.add_evals(c, arg, interpolation="bicubic")
  return c
