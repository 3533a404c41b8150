r"""A1 of "ResNet strikes back": ResNet-50, 600 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/a1.py

The recipe is A1 in Table 2 of https://arxiv.org/abs/2110.00476. In the paper it
reaches top-1 80.4 on val, 85.7 on ReaL and 68.7 on V2 (Table 1), and 80.24 +-
0.14 on val over ten seeds (Table 9). It takes 375k steps, 4.6 days on four
V100s.

`a1.py:crop=inception_crop` trains with TensorFlow's crop instead of PyTorch's.
`a1.py:smoke` takes half a minute, on the embedded dataset. The arguments are
those of `parse_arg` below and of `big_crop.recipes.ARGUMENTS`. TFDS must have
imagenet2012 and, for the evaluators, imagenet2012_real and imagenet_v2.
"""

from big_crop import recipes


def get_config(arg=None):
  arg = recipes.parse_arg(
    arg,
    epochs=600.0,
    batch=2048,
    warmup_epochs=5.0,
    wd=0.01,
    drop_path=0.05,
    repeated_aug=3,
    rand_augment="rand-m7-mstd0.5-inc1",
    mixup=0.2,
    loss="bce",
    bce_target="present",  # or mixed: targets are the mixing weights
    smoothing=0.1,
    test_crop=0.95,
    mixed_precision=True,
  )
  c = recipes.start(arg)
  recipes.set_model(c, arg, drop_path=arg.drop_path)

  c.input.repeats = arg.repeated_aug
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({recipes.crop_args(arg)})|flip_lr"
    f'|rand_augment("{arg.rand_augment}", interpolation="{arg.interpolation}")'
    '|vgg_value_range|keep("image", "label")'
  )
  c.mixing = dict(mixup_alpha=arg.mixup, cutmix_alpha=1.0)
  c.loss, c.targets = recipes.loss(arg.loss, arg.smoothing, arg.bce_target)

  recipes.lamb(c, arg, lr=0.005, batch=2048)

  recipes.add_evals(c, arg, interpolation="bicubic")
  return c
