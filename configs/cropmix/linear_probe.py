r"""Linear probe of a run of any objective: a head on its frozen encoder.

    python -m big_crop.train --workdir DIR \
      --config configs/cropmix/linear_probe.py:init=RUN

`init` is the workdir of the run, which also gives the model. Without `init`,
the encoder has the initial weights of `model`, as a baseline. CropMix
(arXiv:2205.15955), section B.2.2, as SimSiam (arXiv:2011.10566): LARS with
momentum 0.9 and no weight decay, 90 epochs, batch 4096, cosine; crops of 8 to
100% and flip; batch norm uses its running averages. The paper's "initial
learning rate of 0.2" is taken to be for 256 images, as in SimSiam's code, which
makes it 3.2 for a batch of 4096.

`python -m big_crop.probe` is a probe that takes seconds.

What can be chosen: lr, data, epochs, batch, and
`big_crop.recipes.transfer.ARGUMENTS`.
"""

from big_crop.optim.scaling import scaled_lr
from big_crop.recipes import transfer


def get_config(arg=None):
  c, arg = transfer.start(
    arg, data="imagenet2012", epochs=90.0, batch=4096, lr=None
  )
  c.objective = dict(frozen_model=True)
  transfer.set_plain_data(c, arg)
  c.optax_name = "scale_by_lars"
  c.optax = dict(momentum=0.9, always_adapt=True)
  c.lr = arg.lr or scaled_lr(0.2, arg.batch, base=256, rule="linear")
  c.wd_in = "rule"
  c.schedule = [("head/.*", dict(decay_type="cosine")), (".*", None)]
  return c
