r"""CropMix without labels: Tables 3 and 8 (MoCo v2), 4 and 9 (MAE).

    P="--config configs/studies/cropmix_unlabelled.py:method=moco_v2"
    python -m big_crop.study run $P --workdir DIR
    python -m big_crop.study run $P,init=DIR --workdir JUDGED
    python -m big_crop.study report $P,init=DIR --workdir JUDGED

The first `run` pretrains with each kind of views. The second, whose `init` is
the folder of the first, evaluates the encoders as in the paper: linear probes
and finetuning on 10% and 1% of the labels for MoCo v2, finetuning for MAE. The
report has the paper's numbers beside ours. The tables also have detection, for
which see docs/cropmix.md.

Arguments, as in `:method=mae,seeds=1`:

    method    moco_v2 or mae
    init      see above
    seeds     how many, from 0; each evaluates the encoder of the same seed (1)
    quick     the quickstart's data and size, 3 seeds, plain views and CropMix,
              and untrained encoders as a baseline; the report of the
              pretraining has nearest neighbours and linear classifiers
    engine    tf.data, or device, for packed data
    epochs, batch, data, data_dir   of the configs in configs/cropmix/
"""

from big_crop import names
from big_crop.config import parse_arg
from big_crop.study.grid import default_study

VIEWS = {  # kinds of views besides the plain ones
  "moco_v2": ["scalemix", "cropmix", "mixup"],
  "mae": ["cropmix", "cutmix"],
}
REFERENCE = {"moco_v2": "cropmix_contrastive", "mae": "cropmix_masked"}


def get_config(arg=None):
  arg = parse_arg(
    arg,
    method="moco_v2",
    init=None,
    seeds=None,
    quick=False,
    epochs=None,
    batch=None,
    data=None,
    data_dir=None,
    engine="tf.data",
  )
  names.check("method", arg.method, VIEWS)
  views = ["cropmix", "untrained"] if arg.quick else VIEWS[arg.method]
  c = default_study()
  given = ("init", "epochs", "batch", "data", "data_dir")
  c.arguments = {k: arg[k] for k in given if arg[k] is not None}
  c.arguments.quick = arg.quick
  c.overrides = [f"--config.input.engine={arg.engine}"]
  if not arg.init:
    c.arguments.views = "plain"
  c.seeds = list(range(arg.seeds or (3 if arg.quick else 1)))
  c.base = f"../cropmix/{arg.method}.py"
  settings = [dict()]
  if arg.method == "mae":
    settings = [dict(fraction=f) for f in ([100] if arg.quick else [100, 10])]
  c.metrics = [
    dict(
      key="features/knn_top1", label="nearest neighbours, top-1 (%)", scale=100
    )
  ]
  if arg.quick:
    label = "linear classifier, top-1 (%)"
    c.metrics += [dict(key="features/linear_top1", label=label, scale=100)]
  if arg.init:
    c.reference = [REFERENCE[arg.method]]
    c.metrics = [dict(key="val/top1", label="top-1 accuracy (%)", scale=100)]
    if arg.method == "moco_v2":
      c.base = "../cropmix/{judge}.py"
      settings = [dict(judge="linear_probe")]
      settings += [dict(judge="label_fraction", fraction=f) for f in (10, 1)]
    else:
      c.base = "../cropmix/mae_finetune.py"
      if not arg.quick:
        c.arguments.robust = True
        c.metrics += [
          dict(
            key=f"imagenet_{k}/top1", label=f"ImageNet-{label} (%)", scale=100
          )
          for k, label in (("a", "A"), ("r", "R"), ("sketch", "Sketch"))
        ]
  changes = [{}, *(dict(views=v) for v in views)]
  c.sets = [
    dict(**setting, **change) for setting in settings for change in changes
  ]
  c.ablations = [
    dict(
      title=", ".join([arg.method, *(f"{k}={v}" for k, v in setting.items())]),
      default=dict(views="plain"),
      rows=changes,
      where=setting,
    )
    for setting in settings
  ]
  return c
