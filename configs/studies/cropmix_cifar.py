r"""Table 1 of CropMix: seven models on CIFAR-10 and CIFAR-100, 420 runs.

    S="--config configs/studies/cropmix_cifar.py"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

Each model with RRC (`inception_crop_fixed`) and with CropMix, at three values
of area_min, with five seeds. The report has the top-1 error at the last epoch,
and at the best epoch, chosen on the test set, which is what the paper reports.

Arguments, as in `:models=resnet-18,data=/data/images_32,engine=device,seeds=2`:

    models    of configs/cropmix/cifar.py, joined by + (the paper's seven)
    data      cifar10+cifar100, or any other data of that config
    area_min  percent, joined by + (75+25+1)
    seeds     how many, from 0 (5)
    epochs    300
    res, width, small_stem, engine, data_dir, smoke  as in that config
"""

from big_crop.config import parse_arg
from big_crop.study.grid import default_study

MODELS = (
  "preact_resnet-18",
  "xception-cifar",
  "densenet-121",
  "resnet-x50_32x4d",
  "wide_resnet-28-10",
  "small_vit",
  "swin-cifar",
)
CROPS = {"inception_crop_fixed": "RRC", "cropmix": "CropMix"}


def get_config(arg=None):
  arg = parse_arg(
    arg,
    models="+".join(MODELS),
    data="cifar10+cifar100",
    area_min="75+25+1",
    seeds=5,
    epochs=300.0,
    res=32,
    width=None,
    small_stem=True,
    engine="tf.data",
    data_dir=None,
    smoke=False,
  )
  c = default_study()
  c.base = "../cropmix/cifar.py"
  shared = ("epochs", "res", "width", "small_stem", "engine", "data_dir")
  c.arguments = {k: arg[k] for k in (*shared, "smoke")}
  c.seeds = list(range(arg.seeds))
  datasets = arg.data.split("+")
  c.sets = [
    dict(
      model=arg.models.split("+"),
      data=datasets,
      crop=list(CROPS),
      area_min=[float(x) for x in arg.area_min.split("+")],
    )
  ]

  # The paper reports errors, not accuracies.
  error = dict(scale=-100, offset=100, better="lower")
  c.metrics = [
    dict(key="val/top1_best", label="top-1 error, best epoch (%)", **error),
    dict(key="val/top1", label="top-1 error, last epoch (%)", **error),
  ]
  for data in datasets:
    name = data.rpartition("/")[2]
    for crop, label in CROPS.items():
      c.families += [
        dict(
          name=f"{crop} {name}",
          label=f"{label}, {name}",
          where=dict(data=data, crop=crop),
          x="area_min",
          by="model",
        )
      ]
    a, b = (f"{crop} {name}" for crop in CROPS)
    c.comparisons += [dict(title=f"RRC against CropMix, {name}", a=a, b=b)]
  c.reference = ["cropmix_cifar"]
  return c
