r"""Linear probe of a run of any objective: a head on its frozen encoder.

    python -m big_crop.train --workdir DIR \
      --config configs/cropmix/linear_probe.py:init=RUN

`init` is the workdir of the run, whose model is taken from there; without it
`model` starts from nothing, to compare with. CropMix
(arXiv:2205.15955), section B.2.2, as SimSiam (arXiv:2011.10566): LARS with
momentum 0.9 and no weight decay, 90 epochs, batch 4096, cosine; crops of 8 to
100% and flip; batch norm uses its averages. The paper's "initial learning rate
of 0.2" is taken for 256 images, as SimSiam's code does, which makes 3.2 of it.

A probe in seconds is the evaluator `representation`.

What can be chosen: init, model, data, data_dir, train, test, res, epochs,
batch, lr, seed; smoke, for a smoke run of another config.
"""

from big_crop import recipes
from big_crop.config import default_config, parse_arg
from big_crop.optim.scaling import scaled_lr


def get_config(arg=None):
  arg = parse_arg(
    arg,
    init=None,
    model="resnet-50",
    data="imagenet2012",
    data_dir=None,
    train="train",
    test="validation",
    res=224,
    epochs=90.0,
    batch=4096,
    lr=None,
    seed=0,
    smoke=False,
  )
  if arg.smoke:
    arg.update(data="critters", train="train[:64]", test="validation[:50]")
    arg.update(res=48, batch=32, epochs=2.0)
  c = default_config()
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  c.input.batch_size = arg.batch
  recipes.start_from(c, arg.init, arg.model)
  c.objective = dict(frozen_model=True)
  recipes.set_plain_data(c, arg)

  c.optax_name = "scale_by_lars"
  c.optax = dict(momentum=0.9, always_adapt=True)
  c.lr = arg.lr or scaled_lr(0.2, arg.batch, base=256, rule="linear")
  c.wd_in = "rule"
  c.schedule = [("head/.*", dict(decay_type="cosine")), (".*", None)]
  return c
