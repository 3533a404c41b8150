r"""Does a newer recipe help, for which budget? 18 runs of a small ResNet-18.

    S="--config configs/studies/resnet_strikes_back_quick.py"
    python -m big_crop.study run $S --workdir DIR
    python -m big_crop.study report $S --workdir DIR

"ResNet strikes back" (arXiv:2110.00476) in miniature: A3 against PyTorch's
recipe, and A3 with binary cross-entropy, its own loss, against cross-entropy.
Batches have 128 images, and each recipe scales its learning rate to that size.
PyTorch's learning rate falls after each third of the budget, because in the
recipe it falls after every 30 of 90 epochs.

Arguments, as in `:data=PACKED,engine=device`:

    data      critters, a TFDS name, or a path
    engine    tf.data, or device, for packed data
    epochs    joined by : (5:20)
    seeds     how many, from 0 (3)
    res       pixels (32)
"""

from big_crop.config import parse_arg
from big_crop.study.grid import default_study


def get_config(arg=None):
  arg = parse_arg(
    arg, data="critters", engine="tf.data", epochs="5:20", seeds=3, res=32
  )
  epochs = [int(e) for e in arg.epochs.split(":")]
  c = default_study()
  c.base = "../resnet_strikes_back/{recipe}.py"
  c.arguments = dict(
    data=arg.data,
    res=arg.res,
    model="resnet-18",
    batch=128,
    warmup_epochs=1.0,
    mixed_precision=False,
    real=False,
    v2=False,
  )
  c.overrides = [
    f"--config.input.engine={arg.engine}",
    "--config.model.width=24",
    "--config.evals.val.log_percent=0.5",
    "--config.log_training_steps=25",
    "--config.ckpt_steps=1000",
  ]
  c.seeds = list(range(arg.seeds))
  c.sets = [
    {
      "recipe": "pytorch",
      "loss": "ce",
      "epochs": e,
      "config.schedule.decay_epochs": e / 3,
    }
    for e in epochs
  ]
  c.sets += [dict(recipe="a3", loss=["ce", "bce"], epochs=epochs)]
  c.families = [
    dict(name=name, label=label, where=dict(recipe=name), x="loss")
    for name, label in (("pytorch", "PyTorch's recipe"), ("a3", "A3"))
  ]
  c.comparisons = [
    dict(
      title="PyTorch's recipe against A3",
      a="pytorch",
      b="a3",
      match=[("ce", "bce")],
    ),
    dict(title="A3, cross-entropy against binary", a="a3", base="ce"),
  ]
  return c
