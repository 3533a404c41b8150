"""Study configs: a base config, and the grid of its arguments to train.

A study config is a Python file with `get_config()`, as other configs are:

    from big_crop.study.grid import default_study

    def get_config(arg=None):
      c = default_study()
      c.base = "../quickstart.py"
      c.sets = [dict(crop=["inception_crop_fixed"], area_min=[5, 25])]
      return c
"""

import dataclasses
import functools
import itertools
import json
import pathlib
import string
from typing import Any

from ml_collections import ConfigDict

from big_crop import config as configs
from big_crop import names
from pp_ops.errors import UserError

_OVERRIDE = "config."


def default_study() -> ConfigDict:
  """The keys of a study config, with their defaults."""
  c = ConfigDict(type_safe=False)
  # The config file that all runs start from, relative to the study's own file.
  # In "{recipe}.py" the level of the factor `recipe` is put into the file's
  # name, and `recipe` is not passed to the config as an argument.
  c.base = None
  # A list of sets of settings; the study trains their union. A set is a dict
  # {factor: level or list of levels} and stands for the cross product of its
  # levels. A factor is an argument of the base config or, written "config.key",
  # a key of the config that it returns.
  c.sets = []
  # Every setting is trained once with each seed, as the argument `seed`.
  c.seeds = [0, 1, 2]
  c.arguments = ConfigDict()  # of the base config, for every run
  c.overrides = []  # "--config.key=value", for every run

  # The metrics to report: dicts of key, label, scale, offset, digits, better
  # and tail. `key` is a key of summary.json's metrics. With `tail`, the value
  # is the mean of the logged metric over this last fraction of the run, not its
  # last value.
  c.metrics = [
    dict(key="val/top1", label="top-1 val. accuracy (%)", scale=100, digits=2),
    dict(
      key="training_loss",
      label="training loss, mean of the last fifth",
      digits=4,
      better=None,
      tail=0.2,
    ),
  ]
  # CSVs of a paper's numbers, which the report shows beside ours; see
  # `big_crop.study.reference`.
  c.reference = []
  # What the report shows; see `big_crop.study.layout`.
  c.families = []
  c.comparisons = []
  c.strength = []
  c.scatter = []
  c.ablations = []
  c.seed_statistics = []
  c.selections = []
  c.lock()
  c.arguments.unlock()
  return c


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One run of a study.

  Attributes:
    index: its index in the study, from 0.
    factors: {factor: level}, without the seed.
    seed: the run's seed.
    name: name of its folder, made of the factors and the seed.
    spec: the base config with its arguments, as `--config` takes it.
    overrides: `--config.key=value` arguments for it.
  """

  index: int
  factors: dict[str, Any]
  seed: int
  name: str
  spec: str
  overrides: tuple[str, ...]

  @functools.cached_property
  def config(self) -> ConfigDict:
    """The resolved config.

    Raises:
      ValueError: in one line, if the base config does not accept the arguments
        or the overrides.
    """
    try:
      return configs.load(self.spec, self.overrides)
    except UserError as e:
      raise UserError(f"run {self.index} ({self.name}): {e}") from e

  @functools.cached_property
  def json_config(self) -> dict[str, Any]:
    """The resolved config as JSON values, as in the run's config.json."""
    return configs.as_json(self.config)


@dataclasses.dataclass(frozen=True)
class Study:
  """A study: its config and its runs.

  Attributes:
    path: the config file.
    config: see `default_study`.
    runs: all runs, in order.
  """

  path: pathlib.Path
  config: ConfigDict
  runs: list[Run]


def load(path: str) -> Study:
  """Loads a study config and lists its runs.

  Args:
    path: the file, with arguments after a colon if it takes any.

  Returns:
    The study. A run's config is resolved when it is first read.

  Raises:
    ValueError: in one line, if something is wrong with the config.
  """
  config = configs.load(path)
  known = default_study()
  for key in config:
    names.check("key of a study config", key, known)
  if not config.base:
    raise UserError(f"{path}: set base, the config file of the runs")
  path = pathlib.Path(path.partition(":")[0])
  return Study(path, config, _runs(path.parent, config))


def _runs(folder, config):
  runs, found = [], {}
  naming = {name for _, name, *_ in string.Formatter().parse(config.base)}
  for factors in _settings(config.sets):
    for seed in config.seeds:
      given = {**factors, "seed": seed}
      name = names.of_run({k: _text(v) for k, v in given.items()})
      if name in found:
        raise UserError(
          f"runs {found[name]} and {given} have the same name {name!r}"
        )
      found[name] = given
      if missing := naming - {None, *given}:
        raise UserError(
          f"run {name!r}: no factor {missing.pop()!r} for base {config.base!r}"
        )
      base = folder / config.base.format(**given)
      arguments, overrides = {}, []
      for k, v in given.items():
        if k.startswith(_OVERRIDE):
          overrides.append(f"--{k}={_text(v)}")
        elif k not in naming:
          arguments[k] = v
      arguments = {**config.arguments, **arguments}
      spec = ",".join(f"{k}={_text(v)}" for k, v in arguments.items())
      runs.append(
        Run(
          index=len(runs),
          factors=factors,
          seed=seed,
          name=name,
          spec=f"{base}:{spec}",
          overrides=(*config.overrides, *overrides),
        )
      )
  if not runs:
    raise UserError("the study has no runs: set sets and seeds")
  return runs


def is_number(level: Any) -> bool:
  """Whether a level is a number; booleans do not count as numbers."""
  return isinstance(level, int | float) and not isinstance(level, bool)


def key_of(factors: dict[str, Any]) -> str:
  """A string that is equal for equal settings; 5 and 5.0 are the same level."""
  plain = {k: float(v) if is_number(v) else v for k, v in factors.items()}
  return json.dumps(plain, sort_keys=True)


def _settings(sets):
  """The distinct settings of a union of cross products, in order."""
  settings = {}
  for levels in sets:
    lists = [v if isinstance(v, list | tuple) else [v] for v in levels.values()]
    for values in itertools.product(*lists):
      factors = dict(zip(levels, values, strict=True))
      if "seed" in factors:
        raise UserError("'seed' is no factor: seeds are the study's `seeds`")
      settings.setdefault(key_of(factors), factors)
  return list(settings.values())


def _text(value):
  text = str(value)
  if "," in text:
    raise UserError(f"a level may not have a comma in it: {text!r}")
  return text
