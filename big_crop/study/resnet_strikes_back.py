"""The numbers of "ResNet strikes back" (arXiv:2110.00476) as studies use them.

`resnet_strikes_back_ablations.csv` has Tables 6-8, one run of seed 0 each; an
empty factor is one that the table does not name and has the recipe's level
(Table 2). `resnet_strikes_back_seeds.csv` has Figure 1 (seeds 1 to 100, and
seed 0) and Table 9 (ten seeds). Numbers are as printed, although in Table 9 the
maximum of A1 at a crop ratio of 1.0 is below the value of seed 0.
"""

from big_crop import names
from big_crop.recipes import TEST_SIZES
from big_crop.study import reference

_TOP1 = "top-1 {} accuracy (%)"
METRICS = (
  dict(key="val/top1", label=_TOP1.format("val."), scale=100),
  dict(key="real/top1", label=_TOP1.format("ReaL"), scale=100),
  dict(key="v2/top1", label=_TOP1.format("V2"), scale=100),
)
TEST_CROPS = (0.875, 0.9, 0.95, 1.0)
_STATISTICS = ("mean", "std", "max", "min", "chosen")  # chosen: seed 0

# The part of Table 2 that the ablations vary.
_A2 = dict(
  loss="bce",
  lr=0.005,
  wd=0.02,
  repeated_aug=3,
  drop_path=0.05,
  smoothing=0.0,
  mixup=0.1,
  rand_augment="rand-m7-mstd0.5-inc1",
  bce_target="present",
)
RECIPES = {
  "a1": {**_A2, "wd": 0.01, "smoothing": 0.1, "mixup": 0.2},
  "a2": _A2,
  "a3": {
    **_A2,
    "lr": 0.008,
    "repeated_aug": 1,
    "drop_path": 0.0,
    "rand_augment": "rand-m6-mstd0.5-inc1",
  },
}
_TABLES = {
  "Table 6": "main ingredients",
  "Table 7": "stochastic depth and smoothing",
  "Table 8": "augmentation",
}
_VARIED = {
  "Table 6": ("loss", "lr", "wd", "repeated_aug"),
  "Table 7": ("drop_path", "smoothing"),
  "Table 8": ("mixup", "repeated_aug", "rand_augment", "bce_target"),
}


def recipes_of(text: str) -> list[str]:
  """`a1+a2` -> ["a1", "a2"].

  Raises:
    ValueError: for an unknown recipe.
  """
  found = text.split("+")
  for name in found:
    names.check("recipe", name, RECIPES)
  return found


def ablations(recipe: str) -> list[dict]:
  """A recipe's ablations, as `default_study().ablations` takes them."""
  own = RECIPES[recipe]
  return reference.ablations(
    "resnet_strikes_back_ablations",
    {t: {k: own[k] for k in varied} for t, varied in _VARIED.items()},
    {t: f"{t}, {recipe.upper()}: {text}" for t, text in _TABLES.items()},
    dict(recipe=recipe),
    [m["key"] for m in METRICS],
  )


def statistics(source: str, recipe: str) -> dict[str, dict]:
  """{metric: the paper's statistics over seeds}.

  Args:
    source: "Figure 1" or "Table 9".
    recipe: "a1", "a2" or "a3".
  """
  return {
    row["metric"]: {k: float(row[k]) for k in _STATISTICS}
    | {"n": int(row["n"])}
    for row in reference.rows("resnet_strikes_back_seeds")
    if (row["source"], row["recipe"]) == (source, recipe)
  }


def test_sizes(config, recipes: list[str]) -> None:
  """Adds Figure 4 to a study: the validation set at other resolutions.

  The recipes' argument `test_sizes` adds the evaluators to every run.
  """
  config.arguments.test_sizes = True
  sizes = {f"val_res{size}/top1": size for size in TEST_SIZES}
  config.metrics += [
    dict(key=key, label=f"{_TOP1.format('val.')}, {size} pixels", scale=100)
    for key, size in sizes.items()
  ]
  sizes["val/top1"] = 224
  keys = sorted(sizes, key=sizes.get)
  config.seed_statistics += [
    dict(
      title="Figure 4: resolution at test time",
      metrics=keys,
      where=dict(recipe=recipes),
      by="recipe",
      chosen=0,
      base="val/top1",
      along=["test resolution (pixels)", [sizes[k] for k in keys]],
    )
  ]


def test_crops(config, recipe: str, where: dict) -> None:
  """Adds Table 9 to a study: the validation set at other crop ratios.

  The recipes' argument `test_crops` adds the evaluators to every run.

  Args:
    config: of the study.
    recipe: the recipe whose numbers from the paper are shown beside ours.
    where: the factors of the recipe's default setting.
  """
  config.arguments.test_crops = True
  keys = {f"val_crop{1000 * r:.0f}/top1": r for r in TEST_CROPS}
  known = {m["key"] for m in config.metrics}
  config.metrics += [
    dict(key=k, label=f"{_TOP1.format('val.')}, crop ratio {r:g}", scale=100)
    for k, r in keys.items()
    if k not in known
  ]
  config.seed_statistics += [
    dict(
      title=f"Table 9, {recipe.upper()}: crop ratio at test time",
      metrics=list(keys),
      where=where,
      chosen=0,
      base="val_crop950/top1",
      reference=statistics("Table 9", recipe),
      source="paper (Table 9)",
    )
  ]
