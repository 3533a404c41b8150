r"""Tables 1, 2 and 10 of "ResNet strikes back": ResNet-50 by twelve recipes.

    S="--config configs/studies/resnet_strikes_back_recipes.py:recipes=a3+he"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

The report has the paper's numbers beside ours.

Arguments, as in `:recipes=a3+he,seeds=3`:

    recipes   files of configs/resnet_strikes_back, joined by + (all twelve)
    seeds     how many, from 0 (1)
    data_dir
    smoke     to try the study on the embedded dataset
"""

from big_crop import names
from big_crop.config import parse_arg
from big_crop.study import reference
from big_crop.study import resnet_strikes_back as rsb
from big_crop.study.grid import default_study


def get_config(arg=None):
  arg = parse_arg(arg, recipes="all", seeds=1, data_dir=None, smoke=False)
  known = [r["recipe"] for r in reference.rows("resnet_strikes_back_recipes")]
  recipes = known if arg.recipes == "all" else arg.recipes.split("+")
  for recipe in recipes:
    names.check("recipe", recipe, known)
  c = default_study()
  c.base = "../resnet_strikes_back/{recipe}.py"
  c.arguments = dict(data_dir=arg.data_dir, smoke=arg.smoke)
  c.sets = [dict(recipe=recipes)]
  c.seeds = list(range(arg.seeds))
  c.metrics = list(rsb.METRICS)
  c.reference = ["resnet_strikes_back_recipes"]
  c.families = [dict(name="recipes", label="Recipes", where={}, x="recipe")]
  return c
