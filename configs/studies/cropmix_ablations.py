r"""CropMix's ablations: Table 5, Table 7 and Figure 3 on 10% of ImageNet.

    S="--config configs/studies/cropmix_ablations.py"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

ResNet-50 with R1, two runs of each setting, as in the paper. The report has the
paper's tables, with its numbers beside ours. Settings that tables share are
trained once.

RRC is `inception_crop_fixed`. CropMix with num=1 is RRC with an area_min of 1%,
and so is the baseline of Table 7 on 10% of ImageNet. No numbers can be read off
Figure 3. The text mentions (2,3,4,5) crops, but the paper has no number for
them.

The paper does not say which tenth of ImageNet it uses: here it is SimCLR's,
`imagenet2012_subset/10pct` in TFDS. Nor does it give the strength of its colour
jitter.

Arguments, as in `:tables=5a+5e,seeds=1`:

    tables    joined by + (5a+5b+5c+5d+5e+5f+7+f3)
    seeds     how many, from 0 (2)
    epochs    300, as in R1
    robust    also Table 2's other metrics, which Table 7 has: docs/cropmix.md
    data, data_dir, corrupted
    smoke     to try it on the embedded dataset
"""

from big_crop import names
from big_crop.config import parse_arg
from big_crop.recipes import CROPMIX_METRICS
from big_crop.study import reference
from big_crop.study.grid import default_study

_CROP = dict(crop="cropmix", area_min=1)
TABLES = {
  "5a": ("number of crops", dict(num="2+3+4")),
  "5b": ("one scale or several", dict(num="2+3+4", scales="multi")),
  "5c": ("resolution", dict(**_CROP, res=224)),
  "5d": ("interpolation", dict(**_CROP, interpolation="bilinear")),
  "5e": ("crop scale", _CROP),
  "5f": (
    "augmentation before and after the mix",
    dict(permute=True, before="none", after="none"),
  ),
  "7": ("how crops are mixed", dict(**_CROP, mix="mixup")),
}
ALPHAS = [0.05, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0]


def get_config(arg=None):
  arg = parse_arg(
    arg,
    tables="+".join([*TABLES, "f3"]),
    seeds=2,
    epochs=300.0,
    robust=False,
    data="imagenet2012_subset/10pct",
    data_dir=None,
    corrupted=None,
    smoke=False,
  )
  asked = arg.tables.split("+")
  for table in asked:
    names.check("table", table, [*TABLES, "f3"])
  c = default_study()
  c.base = "../cropmix/r1.py"
  shared = ("epochs", "robust", "data", "data_dir", "corrupted", "smoke")
  c.arguments = {k: arg[k] for k in shared}
  c.arguments.area_min = 1  # for RRC, too, unless a table says otherwise
  c.seeds = list(range(arg.seeds))
  c.metrics = list(CROPMIX_METRICS)
  c.ablations = reference.ablations(
    "cropmix_ablations",
    {f"Table {t}": default for t, (_, default) in TABLES.items()},
    {f"Table {t}": f"Table {t}: {what}" for t, (what, _) in TABLES.items()},
  )
  c.ablations += [
    dict(
      title="Figure 3: mixing weights",
      default=dict(alpha=0.4),
      rows=[{} if alpha == 0.4 else dict(alpha=alpha) for alpha in ALPHAS],
      metrics=["val/top1"],
    )
  ]
  c.reference = ["cropmix_ablations"]
  kept = {"Figure 3" if t == "f3" else f"Table {t}" for t in asked}
  c.ablations = [a for a in c.ablations if a["title"].split(":")[0] in kept]
  c.sets = [row for a in c.ablations for row in a["rows"]]
  return c
