r"""Table 5 of "ResNet strikes back": ResNet-50 finetuned on other datasets.

    B="configs/studies/resnet_strikes_back_architectures.py:models=resnet-50"
    S="--config configs/studies/resnet_strikes_back_transfer.py:init=PRETRAINED"
    python -m big_crop.study run --config $B --workdir PRETRAINED
    python -m big_crop.study run $S --workdir DIR
    python -m big_crop.study report $S --workdir DIR

The first command pretrains with A1, A2 and A3. The second finetunes each on
four datasets, or on five with `folder`. The report has the paper's numbers
beside ours. The study lacks the table's fourth recipe, PyTorch's:
configs/resnet_strikes_back/pytorch.py pretrains with it, and
configs/resnet_strikes_back/transfer.py finetunes.

Arguments, as in `:init=PRETRAINED,datasets=cifar10+cars`:

    init      the first study's workdir
    recipes   joined by + (a1+a2+a3)
    datasets  of configs/resnet_strikes_back/transfer.py, joined by +
              (flowers+cars+cifar100+cifar10, and inat2019 if there is `folder`)
    folder    of iNaturalist 2019, which TFDS lacks
    model     of the first study (resnet-50)
    seeds     how many, from 0 (1); each finetunes the pretraining of its seed
    data_dir
    smoke     to try the study on the embedded dataset
"""

from big_crop.config import parse_arg
from big_crop.study import resnet_strikes_back as rsb
from big_crop.study.grid import default_study


def get_config(arg=None):
  arg = parse_arg(
    arg,
    init=None,
    recipes="a1+a2+a3",
    datasets=None,
    folder=None,
    model="resnet-50",
    seeds=1,
    data_dir=None,
    smoke=False,
  )
  c = default_study()
  c.base = "../resnet_strikes_back/transfer.py"
  c.arguments = {
    k: arg[k] for k in ("init", "model", "folder", "data_dir", "smoke")
  }
  c.seeds = list(range(arg.seeds))
  c.metrics = [dict(key="val/top1", label="top-1 accuracy (%)", scale=100)]
  c.reference = ["resnet_strikes_back_transfer"]
  datasets = (arg.datasets or "flowers+cars+cifar100+cifar10").split("+")
  if arg.folder and not arg.datasets:
    datasets.append("inat2019")
  c.sets = [dict(recipe=rsb.recipes_of(arg.recipes), dataset=datasets)]
  c.families = [
    dict(
      name="transfer",
      label="Table 5: transfer",
      where={},
      x="recipe",
      by="dataset",
    )
  ]
  return c
