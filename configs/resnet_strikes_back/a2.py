r"""A2 of "ResNet strikes back": ResNet-50, 300 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/a2.py

The recipe is A2 in Table 2 of https://arxiv.org/abs/2110.00476. In the paper it
reaches top-1 79.8 on val, 85.4 on ReaL and 67.9 on V2 (Table 1), and 79.72 +-
0.10, 85.37 +- 0.08 and 67.99 +- 0.23 over a hundred seeds (Figure 1). It takes
188k steps.

`a2.py:crop=inception_crop` trains with TensorFlow's crop instead of PyTorch's.
`a2.py:smoke` takes half a minute, on the embedded dataset. The arguments are
those of `parse_arg` below and of `big_crop.recipes.ARGUMENTS`. TFDS must have
imagenet2012 and, for the evaluators, imagenet2012_real and imagenet_v2.
"""

from big_crop import recipes


def get_config(arg=None):
  arg = recipes.parse_arg(
    arg,
    epochs=300.0,
    batch=2048,
    warmup_epochs=5.0,
    wd=0.02,
    drop_path=0.05,
    repeated_aug=3,
    rand_augment="rand-m7-mstd0.5-inc1",
    mixup=0.1,
    loss="bce",
    bce_target="present",  # or mixed: targets are the mixing weights
    smoothing=0.0,
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
