r"""R1 of CropMix: 300 epochs of SGD with three drops of the learning rate.

    python -m big_crop.train --workdir DIR --config configs/cropmix/r1.py

https://arxiv.org/abs/2205.15955, Table 6, column R1. From the authors' code:
plain (not Nesterov) momentum, and weight decay on every parameter. Top-1 of
ResNet-50 is 77.60, and 76.59 with `r1.py:crop=inception_crop_fixed`, which is
RRC with its area_min of 8% (Table 2); of model=resnet-200 79.43 and 78.49, of
model=repvgg-A2 75.65 and 75.28.

The ablations of Tables 5 and 7 are arguments: num=2+3, scales=single,
mix=cutmix, alpha, permute, res, interpolation (of training and test), area_min,
and Table 5f's augmentations before and after the mix
(`permute=False,before=flip_ud`). `r1.py:smoke` is half a minute on the embedded
dataset. All arguments: those of `big_crop.recipes.ARGUMENTS` and `CROPMIX`, and
below. Needs imagenet2012 in TFDS.
"""

from big_crop import recipes


def get_config(arg=None):
  arg = recipes.parse_cropmix(
    arg,
    epochs=300.0,
    batch=256,
    warmup_epochs=0.0,
    interpolation="bilinear",
  )
  c = recipes.start(arg)
  recipes.set_model(c, arg, zero_init_last=False)

  c.input.pp = f'{recipes.cropped(arg)}|vgg_value_range|keep("image", "label")'
  drops = recipes.steps(arg.epochs / 4)
  recipes.sgd(c, arg, batch=256, wd=1e-4, **drops)

  recipes.add_evals(c, arg, arg.interpolation)
  recipes.add_robust(c, arg)
  return c
