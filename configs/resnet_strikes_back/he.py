r"""He et al.'s recipe: ResNet-50, 90 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/he.py

The recipe is column ResNet in Table 2 of https://arxiv.org/abs/2110.00476,
where it reaches top-1 75.3 on val. It has no Inception crop: the shorter side
is resized to 256 to 480 pixels, and a window of 224 pixels is cut at random.

`he.py:crop=inception_crop_fixed` trains with an Inception crop. `he.py:smoke`
takes half a minute, on the embedded dataset. The arguments are those of
`parse_arg` below and of `big_crop.recipes.ARGUMENTS`. TFDS must have
imagenet2012 and, for the evaluators, imagenet2012_real and imagenet_v2.
"""

from big_crop import recipes


def get_config(arg=None):
  arg = recipes.parse_arg(
    arg,
    epochs=90.0,
    batch=256,
    warmup_epochs=0.0,
    loss="ce",
    test_crop=0.875,
    crop="scale",  # or an Inception crop
    interpolation="bilinear",
    mixed_precision=False,
  )
  c = recipes.start(arg)
  recipes.set_model(c, arg, zero_init_last=False)

  # In the paper the shorter side has 256 to 480 pixels, the window 224.
  low, high = (round(arg.train_res * side / 224) for side in (256, 480))
  crop = (
    f'decode|random_resize_small({low}, {high}, method="{arg.interpolation}", '
    f"antialias=True)|random_crop({arg.train_res})"
  )
  if arg.crop != "scale":
    crop = f"decode_jpeg_and_{arg.crop}({recipes.crop_args(arg)})"
  c.input.pp = (
    f"{crop}|flip_lr|value_range(0, 1)|lighting(0.1)"
    "|vgg_value_range(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))"
    '|keep("image", "label")'
  )
  c.mixing = dict(mixup_alpha=0.0, cutmix_alpha=0.0)
  c.loss, c.targets = recipes.loss(arg.loss)

  drop = recipes.steps(0.5 if arg.smoke else 30.0)
  recipes.sgd(c, arg, batch=256, wd=1e-4, **drop)

  recipes.add_evals(c, arg, interpolation="bilinear")
  return c
