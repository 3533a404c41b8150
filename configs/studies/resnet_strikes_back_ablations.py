r"""The ablations of "ResNet strikes back" (section 5): Tables 6-9, Figure 4.

    S="--config configs/studies/resnet_strikes_back_ablations.py:recipes=a2"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

ResNet-50 on ImageNet-1k with 37 settings, each a recipe with some ingredients
changed. The report has the paper's tables, with the paper's numbers (one run of
seed 0) beside ours. A setting that is in several tables is trained once. For
Table 9, the crop ratio at test time, and Figure 4, the resolution, the same
runs have more evaluators. The paper prints no numbers for Figure 4.

Arguments, as in `:recipes=a3,seeds=5`:

    recipes   joined by + (a1+a2+a3). Tables 6 and 8 have A2 alone, Tables 7 and
              9 have all three. A3 is by far the cheapest
    seeds     how many, from 0 (3). The paper has 1, and 10 in Table 9
    data_dir
    smoke     to try the study on the embedded dataset
"""

from big_crop.config import parse_arg
from big_crop.study import resnet_strikes_back as rsb
from big_crop.study.grid import default_study


def get_config(arg=None):
  arg = parse_arg(arg, recipes="a1+a2+a3", seeds=3, data_dir=None, smoke=False)
  c = default_study()
  c.base = "../resnet_strikes_back/{recipe}.py"
  c.arguments = dict(data_dir=arg.data_dir, smoke=arg.smoke)
  c.seeds = list(range(arg.seeds))
  c.metrics = list(rsb.METRICS)
  c.reference = ["resnet_strikes_back_ablations"]
  for recipe in rsb.recipes_of(arg.recipes):
    c.ablations += rsb.ablations(recipe)
    rsb.test_crops(c, recipe, dict(recipe=recipe))
  rsb.test_sizes(c, rsb.recipes_of(arg.recipes))
  c.ablations.sort(key=lambda a: a["title"])
  c.sets = [{**a["where"], **row} for a in c.ablations for row in a["rows"]]
  return c
