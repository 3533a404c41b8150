r"""Augmentation or regularisation, for which budget? 64 runs on a laptop.

    S="--config configs/studies/augreg_quick.py"
    python -m big_crop.study run $S --workdir DIR
    python -m big_crop.study report $S --workdir DIR

"How to train your ViT?" (arXiv:2106.10270), section 4.4, in miniature: two
sizes of ViT on the embedded dataset, four augmentations, dropout and stochastic
depth of 0.1 or none, two budgets, two seeds. The report compares regularised
with plain runs, and each augmentation with none.

Arguments, as in `:seeds=1,epochs=4:16`:

    widths    of the models, joined by : (64:128)
    epochs    joined by : (3:12)
    seeds     how many, from 0 (2)
    data      critters, or a folder with packed data
    classes   of other data (20)
    engine    tf.data, or device, for packed data
"""

import math

from big_crop.config import parse_arg
from big_crop.study.grid import default_study


def get_config(arg=None):
  arg = parse_arg(
    arg,
    widths="64:128",
    epochs="3:12",
    seeds=2,
    data="critters",
    classes=20,
    engine="tf.data",
  )
  c = default_study()
  c.base = "../augreg/pretrain.py"
  c.arguments = dict(
    data="critters", model="mu/8", res=48, batch=128, wd=1e-4, dtype="float32"
  )
  c.overrides = [
    f"--config.input.engine={arg.engine}",
    f"--config.input.data.name={arg.data}",
    f"--config.evals.test.data.name={arg.data}",
    f"--config.num_classes={arg.classes}",
    f"--config.model.head_bias={-round(math.log(arg.classes), 1)}",
    "--config.model.depth=4",
    "--config.ckpt_steps=1000",
    "--config.evals.test.log_percent=0.5",
  ]
  c.seeds = list(range(arg.seeds))
  width = "config.model.width"
  for w in map(int, arg.widths.split(":")):
    for rate in (0.0, 0.1):
      c.sets += [
        {
          width: w,
          "config.model.mlp_dim": 4 * w,
          "do": rate,
          "sd": rate,
          "aug": ["none", "light2", "medium2", "strong2"],
          "epochs": [int(e) for e in arg.epochs.split(":")],
        }
      ]
  c.metrics = [
    dict(key="test/top1", label="top-1 accuracy (%)", scale=100),
    dict(key="training_loss", label="training loss", tail=0.2, better=None),
  ]
  for rate, name in ((0.0, "plain"), (0.1, "regularised")):
    c.families += [
      dict(name=name, label=name, where=dict(do=rate), x="aug", by=width)
    ]
    title = f"Augmentation against none, {name}"
    c.comparisons += [dict(title=title, a=name, base="none")]
  c.comparisons += [
    dict(title="Regularised against plain", a="plain", b="regularised")
  ]
  return c
