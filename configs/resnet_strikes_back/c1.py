r"""C.1 of "ResNet strikes back": ResNet-50, Nesterov SGD and AGC.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/c1.py

https://arxiv.org/abs/2110.00476, Table 10:

Top-1 79.8 on val (Table 10).
The paper does not say at which crop ratio it is tested. Here it is 0.95, where
the accuracy of the released weights agrees with the paper's.

`c1.py:crop=inception_crop` has TensorFlow's crop in place of PyTorch's,
`c1.py:smoke` is half a minute on the embedded dataset. All arguments: those of
`parse_arg` below, and `big_crop.recipes.ARGUMENTS`. Needs imagenet2012 in TFDS,
and for the evaluators imagenet2012_real and imagenet_v2.
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
  c.agc = 0.025
  c.schedule = recipes.cosine(arg)

  recipes.add_evals(c, arg, interpolation="bicubic")
  return c
