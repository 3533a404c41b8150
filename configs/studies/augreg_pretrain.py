r"""All of pretraining in "How to train your ViT?": Figures 4 and 7, 756 runs.

    S="--config configs/studies/augreg_pretrain.py"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

Nine models in 28 configurations (seven augmentations, regularised or not, two
weight decays) on ImageNet-1k for 300 epochs, and on ImageNet-21k for 30 and for
300. The report compares regularised with plain runs at equal weight decay. It
also has Figure 7; the paper does not say for which weight decay.

Arguments, as in `:models=S/32:B/32,data=i1k`:

    models    joined by : (the paper's nine)
    data      i1k, i21k or i1k:i21k
    aug       augmentations, joined by : (all seven)
    wd        0.1:0.03
    epochs    replaces 300; a tenth of it replaces 30
    seeds     how many, from 0 (1)
    source, data_dir  as in configs/augreg/pretrain.py
    smoke     to try it on the embedded dataset
"""

from big_crop.config import parse_arg
from big_crop.study import augreg
from big_crop.study.grid import default_study


def get_config(arg=None):
  arg = parse_arg(
    arg,
    models=":".join(augreg.MODELS),
    data="i1k:i21k",
    aug=":".join(augreg.AUGMENTATIONS),
    wd=":".join(map(str, augreg.WEIGHT_DECAY)),
    epochs=300,
    seeds=1,
    source="imagenet21k",
    data_dir=None,
    smoke=False,
  )
  c = default_study()
  c.base = "../augreg/pretrain.py"
  c.arguments = {k: arg[k] for k in ("source", "data_dir", "smoke")}
  c.seeds = list(range(arg.seeds))
  chosen, decays = arg.data.split(":"), list(map(float, arg.wd.split(":")))
  for data, epochs in augreg.PRETRAINED:
    if data not in chosen:
      continue
    # do=None selects Figure 7's settings, the only ones without the factor do.
    c.families += [
      dict(
        name=f"gain {data} {epochs}",
        label=f"Figure 7: {data}, {epochs} epochs",
        where=dict(data=data, epochs=epochs, do=None),
        x="aug",
        by="model",
      )
    ]
    for rate in augreg.REGULARISATION:
      c.sets += [
        dict(
          data=data,
          epochs=epochs * arg.epochs // 300,
          do=rate,
          sd=rate,
          model=arg.models.split(":"),
          aug=arg.aug.split(":"),
          wd=decays,
        )
      ]
  gain = "gain from regularisation (points)"
  c.metrics += [dict(key="gain/top1", label=gain, digits=0, better=None)]
  c.reference = ["augreg_regularisation"]
  for data in chosen:
    # For ImageNet-1k the paper shows the accuracy on minival.
    val = "minival" if data == "i1k" else "val"
    label = f"{val} accuracy of {data} (%)"
    # Instead of the study's own metric of that key, if it has one.
    others = [m for m in c.metrics if m["key"] != f"{val}/top1"]
    c.metrics = [*others, dict(key=f"{val}/top1", label=label, scale=100)]
    for wd in decays:
      names = {}
      for rate, what in zip(
        augreg.REGULARISATION, ("plain", "regularised"), strict=True
      ):
        names[rate] = f"{data} {what} {wd}"
        c.families += [
          dict(
            name=names[rate],
            label=f"{data}, {what}, weight decay {wd}",
            where=dict(data=data, do=rate, sd=rate, wd=wd),
            x="aug",
            by="model",
          )
        ]
      a, b = names.values()
      title = f"{data}, weight decay {wd}: plain against regularised"
      c.comparisons += [dict(title=title, a=a, b=b)]
  return c
