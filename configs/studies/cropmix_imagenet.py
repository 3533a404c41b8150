r"""Table 2 of CropMix, and Table 7 on all of ImageNet: 15 runs.

    S="--config configs/studies/cropmix_imagenet.py"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

RRC against CropMix: ResNet-50 with R1, R2 and R3, ResNet-200 with R1, RepVGG-A2
with R1 and R2, ConvNeXt-T with R3; and R1's ResNet-50 with its crops mixed as
in CutMix. One run each, evaluated at the last epoch. The report has the paper's
numbers beside ours.

Arguments, as in `:recipes=r1,models=resnet-50`:

    recipes   joined by + (r1+r2+r3)
    models    train only these of the above, joined by +
    seeds     how many, from 0 (1)
    robust    the metrics besides top-1 (True): docs/cropmix.md
    corrupted  the folder of Co-Mixup's two test sets; None leaves them out
    data_dir
    smoke     to try it on the embedded dataset
"""

from big_crop import names
from big_crop.config import parse_arg
from big_crop.recipes import CROPMIX_METRICS
from big_crop.study.grid import default_study

MODELS = {
  "r1": ("resnet-50", "resnet-200", "repvgg-A2"),
  "r2": ("resnet-50", "repvgg-A2"),
  "r3": ("resnet-50", "convnext-T"),
}
RRC = "inception_crop_fixed"


def get_config(arg=None):
  arg = parse_arg(
    arg,
    recipes="r1+r2+r3",
    models="resnet-50+resnet-200+repvgg-A2+convnext-T",
    seeds=1,
    robust=True,
    corrupted=None,
    data_dir=None,
    smoke=False,
  )
  c = default_study()
  c.base = "../cropmix/{recipe}.py"
  shared = ("robust", "corrupted", "data_dir", "smoke")
  c.arguments = {k: arg[k] for k in shared}
  c.seeds = list(range(arg.seeds))
  c.metrics = list(CROPMIX_METRICS)
  chosen = arg.models.split("+")
  for recipe in arg.recipes.split("+"):
    names.check("recipe", recipe, MODELS)
    models = [m for m in MODELS[recipe] if m in chosen]
    c.sets += [dict(recipe=recipe, model=models, crop=[RRC, "cropmix"])]
    if recipe == "r1" and "resnet-50" in models:
      cutmix = dict(model="resnet-50", crop="cropmix", mix="cutmix")
      c.sets += [dict(recipe=recipe, **cutmix)]
    c.families += [
      dict(
        name=recipe,
        label=f"{recipe.upper()} (Table 2)",
        where=dict(recipe=recipe, mix=None),
        x="crop",
        by="model",
      )
    ]
    title = f"{recipe.upper()}: CropMix against RRC"
    c.comparisons += [dict(title=title, a=recipe, base=RRC)]
  r1 = dict(recipe="r1", model="resnet-50", crop="cropmix")
  c.families += [
    dict(
      name="mix",
      label="R1, ResNet-50: how crops are mixed (Table 7)",
      where=r1,
      x="mix",
      reused=[("mixup", {**r1, "mix": None})],
    )
  ]
  c.reference = ["cropmix_imagenet"]
  return c
