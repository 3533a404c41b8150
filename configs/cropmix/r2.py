r"""R2 of CropMix: R1 with a cosine, TrivialAugment, Mixup and random erasing.

    python -m big_crop.train --workdir DIR --config configs/cropmix/r2.py

https://arxiv.org/abs/2205.15955, Table 6, column R2. ResNet-50: top-1 78.71;
`r2.py:crop=inception_crop_fixed`, RRC with its area_min of 8%: 78.41 (Table 2).
model=repvgg-A2 76.39 against 76.24.

The paper does not say whether random erasing fills in noise, as in timm, or 0,
as in torchvision, whose recipes these ingredients are from: here it is 0. Nor
does it say whether the cosine changes with each step or each epoch: here with
each step.

`r2.py:smoke` is half a minute on the embedded dataset. All arguments: those of
`big_crop.recipes.ARGUMENTS` and `CROPMIX`, and below. Needs imagenet2012 in
TFDS.
"""

from big_crop import recipes


def get_config(arg=None):
  arg = recipes.parse_cropmix(
    arg,
    epochs=300.0,
    batch=256,
    warmup_epochs=5.0,
    interpolation="bilinear",
  )
  c = recipes.start(arg)
  recipes.set_model(c, arg, zero_init_last=False)

  c.input.pp = (
    f"{recipes.cropped(arg)}"
    f'|trivial_augment_wide(interpolation="{arg.interpolation}")'
    '|vgg_value_range|random_erasing(0.1, mode="const")|keep("image", "label")'
  )
  c.mixing = dict(mixup_alpha=1.0, cutmix_alpha=0.0)
  c.loss, c.targets = recipes.loss("ce", smoothing=0.1)
  recipes.sgd(c, arg, batch=256, wd=2e-4, decay_type="cosine")

  recipes.add_evals(c, arg, arg.interpolation)
  recipes.add_robust(c, arg)
  return c
