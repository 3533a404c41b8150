"""Settings and their measured values, of a study's runs or of a paper."""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import optimize

from big_crop import names
from big_crop.study import grid, runs, statistics
from big_crop.study.grid import key_of
from big_crop.study.statistics import Cell
from pp_ops import registry
from pp_ops.errors import UserError
from pp_ops.laws import arguments, exact
from pp_ops.laws import names as law_names

Factors = dict[str, Any]

_NOTHING = Cell(None, None, 0, 0, {})


@dataclasses.dataclass(frozen=True)
class Metric:
  """A metric to report: offset + scale * the logged value.

  Attributes:
    key: its key in summary.json's metrics, or in metrics.jsonl with `tail`.
    label: its name in tables and figures.
    scale: a factor; -100 turns an accuracy into an error in percent.
    offset: added after scaling; 100 for an error in percent.
    digits: number of decimals that are shown.
    better: "higher", "lower", or None for a metric that only describes.
    tail: if set, the value is the mean over this last fraction of the run's
      steps.
  """

  key: str
  label: str
  scale: float = 1.0
  offset: float = 0.0
  digits: int = 2
  better: str | None = "higher"
  tail: float | None = None

  def __post_init__(self):
    if self.better is not None:
      names.check("better of a metric", self.better, ("higher", "lower"))

  def of(self, state: runs.RunState) -> float | None:
    """The value of a finished run; None if unfinished or not finite."""
    summary = state.summary
    if not summary:
      return None
    if self.tail is None:
      value = summary["metrics"].get(self.key)
    else:
      since = (1 - self.tail) * summary["step"]
      logged = [
        r[self.key]
        for r in state.metrics()
        if self.key in r and r["step"] > since
      ]
      value = float(np.mean(logged)) if logged else None
    # A NaN or infinity of a diverged run would spoil the mean over seeds.
    known = value is not None and math.isfinite(value)
    return self.offset + self.scale * value if known else None

  def measured(self, cell: Cell) -> dict[str, Any]:
    """A cell of this metric as entries of a table's record."""
    found = {"mean": cell.mean, "std": cell.std, "n": cell.n}
    return {"metric": self.key, **found}

  def series(self, state: runs.RunState) -> dict[float, float]:
    """{epoch: value} as a finished run logged it."""
    summary = state.summary
    epochs = summary["metrics"]["epoch"] / summary["step"]
    return {
      r["step"] * epochs: self.offset + self.scale * r[self.key]
      for r in state.metrics()
      if math.isfinite(r.get(self.key, math.nan))
    }


@dataclasses.dataclass
class Results:
  """Cells by setting and metric.

  Attributes:
    title: whose results they are, "this study" or "the paper".
    settings: the factors of each setting, in order.
    metrics: the metrics to report.
    cells: {(`key_of` a setting, key of a metric): cell}.
    states: the runs; empty for a paper's results.
    theirs: a paper's results of the same settings, if there are any.
    arguments: what the study gives its base config for every run.
  """

  title: str
  settings: list[Factors]
  metrics: list[Metric]
  cells: dict[tuple[str, str], Cell]
  states: list[runs.RunState] = dataclasses.field(default_factory=list)
  theirs: "Results | None" = None
  arguments: Factors = dataclasses.field(default_factory=dict)

  def cell(self, factors: Factors, metric: Metric) -> Cell:
    """The cell of a setting; an empty one if there is none."""
    return self.cells.get((key_of(factors), metric.key), _NOTHING)

  def crop_scale_percentile(self, factors: Factors) -> float:
    """See `crop_scale_percentile`; for a setting of these results."""
    return crop_scale_percentile({**self.arguments, **factors})

  def metric(self, key: str) -> Metric:
    """The metric of a key."""
    return next(m for m in self.metrics if m.key == key)

  def series(
    self, factors: Factors, metric: Metric
  ) -> dict[int, dict[float, float]]:
    """{seed: {epoch: value}} of a setting's finished runs."""
    return {
      s.run.seed: metric.series(s)
      for s in self.states
      if key_of(s.run.factors) == key_of(factors) and s.summary
    }

  def find(self, where: Factors) -> list[Factors]:
    """The settings that match `where`, {factor: level or list of levels}."""
    return [
      s
      for s in self.settings
      if all(
        s.get(k) in v if isinstance(v, list | tuple) else s.get(k) == v
        for k, v in where.items()
      )
    ]

  def shown(self) -> list[Metric]:
    """The metrics of which at least one setting has a value."""
    measured = {key for (_, key), c in self.cells.items() if c.n}
    return [m for m in self.metrics if m.key in measured]


def metrics_of(config) -> list[Metric]:
  """The metrics of a study config.

  Raises:
    ValueError: if one has an unknown key, or if two have the same `key`.
  """
  found = [make(Metric, "a metric", m) for m in config.metrics]
  keys = [m.key for m in found]
  for key in keys:
    if keys.count(key) > 1:
      raise UserError(f"metrics: {key!r} is there {keys.count(key)} times")
  return found


def make(kind, what: str, values: dict[str, Any]):
  """A dataclass from a dict of a study config, or a one-line error."""
  fields = {f.name: f for f in dataclasses.fields(kind)}
  for key in values:
    names.check(f"key of {what}", key, fields)
  for name, field in fields.items():
    defaults = field.default, field.default_factory
    if defaults == (dataclasses.MISSING,) * 2 and name not in values:
      raise UserError(f"{what} needs {name!r}: {values}")
  return kind(**values)


def of_study(study: grid.Study, states: list[runs.RunState]) -> Results:
  """Reads the finished runs of a study."""
  metrics = metrics_of(study.config)
  settings, values = {}, {}
  for state in states:
    # A user's module registers its crop law when it is imported.
    registry.import_modules(state.run.json_config["pp_modules"])
    factors = state.run.factors
    key = key_of(factors)
    settings[key] = factors
    for metric in metrics:
      value = metric.of(state)
      found = values.setdefault((key, metric.key), {})
      if value is not None:
        found[state.run.seed] = value
  wanted = len(study.config.seeds)
  cells = {k: statistics.cell(v, wanted) for k, v in values.items()}
  return Results(
    "this study",
    list(settings.values()),
    metrics,
    cells,
    states,
    arguments=dict(study.config.arguments),
  )


def crop_scale_percentile(factors: Factors) -> float:
  """The 5th percentile of the crop scale under a crop's ideal law.

  The paper's measure of a crop's strength (section 6.2).

  Args:
    factors: `crop`, the name of the op, and arguments of that op; other factors
      are ignored.

  Returns:
    The crop scale in percent of the image.
  """
  if "crop" not in factors:
    raise UserError(f"the 5th-percentile crop scale needs a crop: {factors}")
  names.check("crop", factors["crop"], law_names.op_names())
  law_class = law_names.law_class_of(factors["crop"])
  known = arguments.defaults(law_class)
  given = {k: v for k, v in factors.items() if k in known and v is not None}
  law = arguments.make_law(law_class, **given)
  excess = lambda s: exact.ideal_cdf(law, s) - 0.05
  return 100 * optimize.bisect(excess, 0, 1, xtol=1e-12)
