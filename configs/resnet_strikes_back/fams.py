r"""FAMS recipe: ResNet-50, 400 epochs, averaged weights.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/fams.py

https://arxiv.org/abs/2110.00476, Table 2, column FAMS (x4), a recipe of "Fast
and Accurate Model Scaling" (https://arxiv.org/abs/2103.06877):

Top-1 79.5 on val. The learning rate falls after each epoch, to 0.02 of itself
in all. The paper ticks SWA and does not say which weights are averaged: here
those after each epoch of the last quarter.

`fams.py:crop=inception_crop` has TensorFlow's crop in place of PyTorch's,
`fams.py:smoke` is half a minute on the embedded dataset. All arguments: those
of `parse_arg` below, and `big_crop.recipes.ARGUMENTS`. Needs imagenet2012 in
TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
"""

from big_crop import recipes


def get_config(arg=None):
  arg = recipes.parse_arg(
    arg,
    epochs=400.0,
    batch=1024,
    warmup_epochs=5.0,
    loss="ce",
    test_crop=0.875,
    mixed_precision=True,
  )
  c = recipes.start(arg)
  recipes.set_model(c, arg)

  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({recipes.crop_args(arg)})|flip_lr"
    f'|autoaugment(interpolation="{arg.interpolation}")'
    '|vgg_value_range|keep("image", "label")'
  )
  c.mixing = dict(mixup_alpha=0.2, cutmix_alpha=0.0)
  c.loss, c.targets = recipes.loss(arg.loss, smoothing=0.1)

  drops = dict(decay_rate=0.02 ** (1 / arg.epochs), decay_epochs=1.0)
  recipes.sgd(c, arg, 1024, wd=1e-4, lr=2.0, decay_type="step", **drops)
  c.swa = dict(start_percent=0.75, every_epochs=1.0)

  recipes.add_evals(c, arg, interpolation="bicubic")
  return c
