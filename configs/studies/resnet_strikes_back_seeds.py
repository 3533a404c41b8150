r"""The seed statistics of "ResNet strikes back" (section 4.2): Figures 1 to 3.

    S="--config configs/studies/resnet_strikes_back_seeds.py"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

101 runs of A2 for each law: seeds 1 to 100, and seed 0, with which the paper's
other experiments were made and which the statistics exclude. With `crop=A+B`
the statistics of two crop laws stand side by side, with tests of their
difference; runs of one seed have the same initial parameters and order of
examples under both laws. configs/studies/quick_seeds.py runs on a laptop.

Arguments, as in `:seeds=20,crop=my_crop`:

    seeds     how many besides seed 0 (100)
    recipe    a1, a2 or a3 (a2)
    crop      laws, joined by +, as in
              crop=inception_crop_coupled+inception_crop_fixed
              (inception_crop_fixed)
    area_min  percent, for all laws (the recipe's)
    data_dir
    smoke     to try the study on the embedded dataset
"""

from big_crop.config import parse_arg
from big_crop.study import resnet_strikes_back as rsb
from big_crop.study.grid import default_study


def get_config(arg=None):
  arg = parse_arg(
    arg,
    seeds=100,
    recipe="a2",
    crop="inception_crop_fixed",
    area_min=None,
    data_dir=None,
    smoke=False,
  )
  (recipe,) = rsb.recipes_of(arg.recipe)
  c = default_study()
  c.base = f"../resnet_strikes_back/{recipe}.py"
  c.arguments = dict(data_dir=arg.data_dir, smoke=arg.smoke)
  if arg.area_min is not None:
    c.arguments.area_min = arg.area_min
  c.sets = [dict(crop=arg.crop.split("+"))]
  c.seeds = list(range(arg.seeds + 1))
  c.metrics = list(rsb.METRICS)
  if not arg.smoke:  # Figure 3 has the accuracy after each epoch
    epochs = dict(a1=600, a2=300, a3=100)[recipe]
    c.overrides = [f"--config.evals.val.log_percent={1 / epochs:.6f}"]
  top1 = [m["key"] for m in c.metrics]
  c.seed_statistics = [
    dict(
      title=f"{recipe.upper()} over {arg.seeds} seeds",
      metrics=top1,
      by="crop",
      chosen=0,
      count_chosen=False,
      histogram="val/top1",
      scatter=["val/top1", "v2/top1"],
      curves="val/top1",
      reference=rsb.statistics("Figure 1", recipe),
      source="paper (Figure 1)",
    )
  ]
  return c
