r"""Table 3 of "ResNet strikes back": 25 architectures with A1, A2 and A3.

    S="--config configs/studies/resnet_strikes_back_architectures.py:recipes=a3"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

74 runs: one of each, as in the paper, whose numbers stand beside, those of
Table 4 for A1 on ReaL and V2 among them, and DeiT's recipe for the two
architectures of section 4.4, which shows that neither a recipe nor an
architecture is the better one by itself. The paper has another recipe made for
DeiT-S there, T2, which it does not give. The resolutions are the paper's, and
no other argument is adapted to the architecture. A3's three ViTs are left out,
since they would be tested at another resolution than they are trained at, and
the ViTs here have a position embedding for one only.

Arguments, as in `:recipes=a3,models=regnet-Y-4GF+efficientnet-B0`:

    recipes   joined by + (a1+a2+a3+deit)
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
SECTION_4_4 = ("resnet-50", "vit-DeiT-S/16")


def get_config(arg=None):
  arg = parse_arg(
    arg,
    recipes="a1+a2+a3+deit",
    models="all",
    seeds=1,
    data_dir=None,
    smoke=False,
  )
  c = default_study()
  c.base = "../resnet_strikes_back/{recipe}.py"
  c.arguments = dict(data_dir=arg.data_dir, smoke=arg.smoke)
  c.seeds = list(range(arg.seeds))
  c.metrics = list(rsb.METRICS)
  # Of Table 3 and section 4.4 the former, where they differ: 79.8 and 79.9.
  c.reference = [
    "resnet_strikes_back_section_4_4",
    "resnet_strikes_back_architectures",
  ]
  # The paper's settings, each with its resolutions.
  settings = reference.results(c.reference[1:], c.metrics).settings
  known = list(dict.fromkeys(s["model"] for s in settings))
  models = known if arg.models == "all" else arg.models.split("+")
  for model in models:
    names.check("model", model, known)
  recipes = arg.recipes.split("+")
  for recipe in recipes:
    names.check("recipe", recipe, [*rsb.RECIPES, "deit"])
  c.sets = [
    setting
    for setting in settings
    if setting["recipe"] in recipes
    and setting["model"] in models
    and not (setting["recipe"] == "a3" and setting["model"].startswith("vit"))
  ]
  both = [model for model in SECTION_4_4 if model in models]
  if "deit" in recipes:
    c.sets += [dict(recipe="deit", model=model) for model in both]
  for name, label in FAMILIES.items():
    of_family = [model for model in models if model.startswith(name)]
    if of_family:
      c.families += [
        dict(
          name=name,
          label=f"Table 3: {label}",
          where=dict(model=of_family, recipe=list(rsb.RECIPES)),
          x="recipe",
          by="model",
        )
      ]
  if both:
    c.families += [
      dict(
        name="section_4_4",
        label="Section 4.4: which recipe favours which architecture",
        where=dict(model=both, recipe=["a2", "deit", "t2"]),
        x="recipe",
        by="model",
      )
    ]
  return c
