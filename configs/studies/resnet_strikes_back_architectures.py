r"""Table 3 of "ResNet strikes back": 25 architectures with A1, A2 and A3.

    S="--config configs/studies/resnet_strikes_back_architectures.py:recipes=a3"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

72 runs: one of each, as in the paper, whose numbers stand beside, those of
Table 4 for A1 on ReaL and V2 among them. The resolutions are the paper's, and
no other argument is adapted to the architecture. A3's three ViTs are left out,
since they would be tested at another resolution than they are trained at, and
the ViTs here have a position embedding for one only.

Arguments, as in `:recipes=a3,models=regnet-Y-4GF+efficientnet-B0`:

    recipes   joined by + (a1+a2+a3)
    models    joined by +; all of them by default
    seeds     how many, from 0 (1)
    data_dir
    smoke     to try it on the embedded dataset
"""

from big_crop import names
from big_crop.config import parse_arg
from big_crop.study import reference
from big_crop.study import resnet_strikes_back as rsb
from big_crop.study.grid import default_study

FAMILIES = dict(
  resnet="ResNets",
  regnet="RegNetY",
  efficientnet="EfficientNets",
  vit="ViTs",
)


def get_config(arg=None):
  arg = parse_arg(
    arg, recipes="a1+a2+a3", models="all", seeds=1, data_dir=None, smoke=False
  )
  c = default_study()
  c.base = "../resnet_strikes_back/{recipe}.py"
  c.arguments = dict(data_dir=arg.data_dir, smoke=arg.smoke)
  c.seeds = list(range(arg.seeds))
  c.metrics = list(rsb.METRICS)
  c.reference = ["resnet_strikes_back_architectures"]
  # The paper's settings, each with its resolutions.
  settings = reference.results(c.reference, c.metrics).settings
  known = list(dict.fromkeys(s["model"] for s in settings))
  models = known if arg.models == "all" else arg.models.split("+")
  for model in models:
    names.check("model", model, known)
  recipes = rsb.recipes_of(arg.recipes)
  c.sets = [
    setting
    for setting in settings
    if setting["recipe"] in recipes
    and setting["model"] in models
    and not (setting["recipe"] == "a3" and setting["model"].startswith("vit"))
  ]
  for name, label in FAMILIES.items():
    of_family = [model for model in models if model.startswith(name)]
    if of_family:
      c.families += [
        dict(
          name=name,
          label=f"Table 3: {label}",
          where=dict(model=of_family),
          x="recipe",
          by="model",
        )
      ]
  return c
