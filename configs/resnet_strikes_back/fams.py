r"""FAMS recipe: ResNet-50, 400 epochs, averaged weights.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/fams.py

The recipe is column FAMS (x4) in Table 2 of https://arxiv.org/abs/2110.00476,
where it reaches top-1 79.5 on val. It comes from "Fast and Accurate Model
Scaling" (https://arxiv.org/abs/2103.06877). The learning rate falls after each
epoch, to 0.02 of its first value over the whole run. The paper ticks SWA but
does not say which weights are averaged; here they are those after each epoch of
the last quarter.

`fams.py:crop=inception_crop` trains with TensorFlow's crop instead of
PyTorch's. `fams.py:smoke` takes half a minute, on the embedded dataset. The
arguments are those of `parse_arg` below and of `big_crop.recipes.ARGUMENTS`.
TFDS must have imagenet2012 and, for the evaluators, imagenet2012_real and
imagenet_v2.
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
