r"""The 522 runs of "You May Be Running the Wrong Inception Crop".

    python -m big_crop.study list --workdir DIR \
      --config configs/studies/wrong_inception_crop.py
    python -m big_crop.study run --index $SLURM_ARRAY_TASK_ID --workdir DIR \
      --config configs/studies/wrong_inception_crop.py

ViT-S/16 on ImageNet-1k: 450 runs with AdamW (sections 5 and 6.2) and 72 with
Scion (section 6.4, appendix I). `report` makes Tables 1-16 and 18 and Figures
4-12, 16-18, 20 and 26; `report --reference` adds the paper's own beside ours,
and Figure 14. `python -m big_crop.saliency` makes Figures 19 and 21-25.

Arguments, as in `:tensorflow=inception_crop_port`:

    tensorflow  the crop of the 90 runs with TensorFlow's law:
                inception_crop, TensorFlow's own kernel, which users run (the
                default); inception_crop_port, the reimplementation that the
                paper trained with, where ratios go up to 4/3, not 1.33, and
                windows reach all edges; or inception_crop_coupled, the kernel's
                law computed from the same random numbers as the other crops,
                for paired tests
    data_dir
    smoke       to try it on the embedded dataset
"""

from big_crop.config import parse_arg
from big_crop.study import paper
from big_crop.study.grid import default_study

ENTROPIES = ("gradient", "gradcam", "relevance")


def get_config(arg=None):
  c = default_study()
  arg = parse_arg(arg, tensorflow="inception_crop", data_dir=None, smoke=False)
  c.arguments = dict(data_dir=arg.data_dir, smoke=arg.smoke)
  c.base = "../wrong_inception_crop/vit_s16_i1k.py"
  c.seeds = [0, 1, 2]

  budgets = list(paper.BUDGETS)
  adamw = dict(optimiser="adamw")
  beta = dict(crop="beta_crop", **adamw)
  scion = dict(optimiser="scion", crop="inception_crop_fixed")
  c.sets = [
    dict(
      **adamw,
      crop=[arg.tensorflow, "inception_crop_fixed"],
      area_min=list(paper.AREA_MIN),
      epochs=budgets,
    ),
    # Positive skew, negative skew, matching strength.
    dict(**beta, area_min=[25, 33, 50], alpha=1, beta=[3, 5], epochs=budgets),
    dict(**beta, area_min=[5, 10], alpha=[2, 3, 5], beta=1, epochs=budgets),
    dict(**beta, area_min=0, alpha=list(paper.ALPHA), beta=1, epochs=budgets),
    dict(**scion, area_min=5, wd=[0.04, 0.08, 0.12, 0.16], epochs=budgets),
    # The best area_min of the AdamW runs, for budgets where it is not 5%.
    dict(**scion, area_min=25, wd=0.08, epochs=[30, 60]),
    dict(**scion, area_min=10, wd=0.08, epochs=90),
    dict(**scion, area_min=2.5, wd=0.08, epochs=300),
  ]

  paper.fill(c, arg.tensorflow)
  c.metrics += [m for m in default_study().metrics if "tail" in m]
  entropies = [f"saliency/{name}_entropy" for name in ENTROPIES]
  c.metrics += [
    dict(key=key, label=f"mean {name} entropy", digits=3, better=None)
    for key, name in zip(entropies, ENTROPIES, strict=True)
  ]
  c.scatter = [
    dict(
      title=f"{optimiser}: {name} entropy",
      x=key,
      y=top1,
      where=dict(optimiser=optimiser),
      color=color,
    )
    for optimiser, top1, color in (
      ("adamw", "val/top1", None),  # Figures 9 and 10
      ("adamw", "real/top1", "area_min"),  # Figure 20
      ("scion", "val/top1", "wd"),  # Figure 11, and 26 on the left
      ("scion", "real/top1", "wd"),  # Figure 26 on the right
    )
    for key, name in zip(entropies, ENTROPIES, strict=True)
  ]
  c.seed_statistics = [
    dict(
      title="Training loss at 90ep and area_min=5% (Figure 12)",
      metrics=["training_loss"],
      where=dict(**adamw, area_min=5, epochs=90),
      by="crop",
      curves="training_loss",
    )
  ]
  return c
