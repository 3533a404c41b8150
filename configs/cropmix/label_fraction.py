r"""Finetunes a run of any objective on 1% or 10% of ImageNet's labels.

    python -m big_crop.train --workdir DIR \
      --config configs/cropmix/label_fraction.py:init=RUN,fraction=10

`init` is the workdir of the run, which also gives the model. Without `init`,
`model` is trained from scratch, as a baseline. CropMix (arXiv:2205.15955),
section B.2.3, on SimCLR's subsets: 100 epochs of SGD with momentum 0.9, batch
256, no weight decay; the learning rate is divided by 10 after 30, 60 and 90
epochs. It starts at

    fraction   encoder   head
    10         0.01      0.2
    1          0.02      5

What can be chosen: fraction, data, epochs, batch, and
`big_crop.recipes.transfer.ARGUMENTS`; with `quick`, fraction is of the embedded
dataset.
"""

from big_crop import names
from big_crop.recipes import transfer

RATES = {10: (0.01, 0.2), 1: (0.02, 5.0)}  # encoder, head


def get_config(arg=None):
  c, arg = transfer.start(arg, fraction=10, data=None, epochs=100.0, batch=256)
  names.check("fraction", arg.fraction, RATES)
  arg.data = arg.data or f"imagenet2012_subset/{arg.fraction}pct"
  c.input.data.name = arg.data
  if arg.quick and not arg.smoke:
    c.input.data.split = f"train[:{arg.fraction}%]"
    c.input.batch_size = 32
  transfer.set_plain_data(c, arg)
  encoder, head = RATES[arg.fraction]
  c.optax_name = "trace"
  c.optax = dict(decay=0.9)
  c.lr = encoder
  c.lr_mults = [("head/.*", head / encoder)]
  c.schedule = dict(
    decay_type="step", decay_rate=0.1, milestones_percent=[0.3, 0.6, 0.9]
  )
  return c
