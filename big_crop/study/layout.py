"""The layout of a report: families of settings, comparisons and other items.

A study config lists them as dicts:

    c.families = [dict(name="fixed", label="fixed crop", x="area_min",
                       where=dict(crop="inception_crop_fixed"))]
    c.comparisons = [dict(title="native against fixed", a="native", b="fixed")]
"""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

from big_crop import names
from big_crop.study import results as results_lib
from big_crop.study.grid import is_number
from big_crop.study.results import Factors, Results
from pp_ops.errors import UserError

BUDGET = "epochs"  # the factor of a table's rows


def ordered(levels: Iterable) -> list:
  """The distinct levels: numbers ascending, then others by name."""
  key = lambda v: (0, v, "") if is_number(v) else (1, 0, str(v))
  return sorted(set(levels), key=key)


@dataclasses.dataclass(frozen=True)
class Family:
  """Settings that differ in the budget, in `x`, and perhaps in `by`.

  Attributes:
    name: the name by which comparisons refer to it.
    label: its name in tables and figures.
    where: {factor: level or list of levels} of its settings.
    x: the factor of a table's columns and of a figure's x axis.
    by: a second factor, whose levels are groups of rows.
    reused: [(level of `x`, where)]. The settings of `where` do not have the
      factor `x`, but are equivalent to this level of it. For example, the fixed
      crop is Beta crop with alpha = 1.
  """

  name: str
  label: str
  where: dict[str, Any]
  x: str
  by: str | None = None
  reused: list[tuple[Any, Factors]] = dataclasses.field(default_factory=list)

  def setting(self, results: Results, budget, x, by=None) -> Factors | None:
    """The one setting at these levels, or None.

    Raises:
      ValueError: in one line, if there are several.
    """
    where = {**self.where, self.x: x}
    where = {**dict(self.reused).get(x, where), BUDGET: budget}
    if self.by:
      where[self.by] = by
    found = results.find(where)
    if other := [s for s in found if s != found[0]]:
      raise UserError(
        f"family {self.name!r}: {found[0]} and {other[0]} have the same place "
        "in its table; name what tells them apart in its `where`"
      )
    return found[0] if found else None

  def lines(self, results: Results) -> list[tuple]:
    """(level of `by`, budget) for each row of a table."""
    factors = (self.by, BUDGET)
    return list(itertools.product(*(self.levels(results, f) for f in factors)))

  def levels(self, results: Results, factor: str | None) -> list:
    """The levels that a factor has in this family, ascending.

    [None] if `factor` is None, or if it is the budget and the study does not
    vary the budget.
    """
    found = {s[factor] for s in results.find(self.where) if factor in s}
    if factor == self.x:
      found |= {x for x, where in self.reused if results.find(where)}
    return ordered(found or ({None} if factor in (None, BUDGET) else ()))


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Settings to test against each other.

  Attributes:
    title: its title in the report.
    a: the first family.
    b: the second family, which is compared with `a` at equal budget and x; or
      None, if `base` is given.
    base: a level of x, with which the other levels of family `a` are compared.
    match: [(x of a, x of b)], the pairs to compare if not those of equal x.
  """

  title: str
  a: str
  b: str | None = None
  base: Any = None
  match: list | None = None


@dataclasses.dataclass(frozen=True)
class Scatter:
  """One metric against another, a point for each run.

  Attributes:
    title: its title in the report.
    x: key of the metric on the x axis.
    y: key of the metric on the y axis.
    where: {factor: level or list of levels} of the settings.
    color: a factor that colours the points; None for the 5th-percentile crop
      scale.
  """

  title: str
  x: str
  y: str
  where: dict[str, Any] = dataclasses.field(default_factory=dict)
  color: str | None = None

  def keys(self) -> list[str]:
    """The keys of all metrics that the fields above name."""
    return [self.x, self.y]


@dataclasses.dataclass(frozen=True)
class Ablation:
  """A table whose rows are settings that each differ a little from a default.

  Attributes:
    title: its title in the report.
    default: {factor: default level}, for the factors that the table varies.
    rows: for each row the changes, {factor: level}; {} is the default itself.
    where: the other factors, equal in all rows. A row stands for the runs whose
      factors are those of `where` and the row's changes.
    metrics: keys of the metrics to show; None for all.
  """

  title: str
  default: Factors
  rows: list[Factors]
  where: Factors = dataclasses.field(default_factory=dict)
  metrics: list[str] | None = None

  def setting(self, changes: Factors) -> Factors:
    """The factors of a row's runs."""
    return {**self.where, **changes}

  def keys(self) -> list[str]:
    """The keys of all metrics that the fields above name."""
    return self.metrics or []


@dataclasses.dataclass(frozen=True)
class SeedStatistics:
  """How metrics of one setting, or of a few, vary with the seed.

  Attributes:
    title: its title in the report.
    metrics: keys of the metrics in the table's rows.
    where: the factors of the setting.
    by: one more factor. Its other levels are compared with its first.
    chosen: a seed that gets a column of its own.
    count_chosen: whether the statistics include the seed `chosen`.
    base: key of a metric with which the others are compared on the same runs.
    histogram: key of the metric whose distribution is drawn.
    scatter: keys of two metrics that are drawn against each other.
    curves: key of the metric that is drawn by epoch.
    along: [label of the x axis, [x of each of `metrics`]], to draw the metrics
      as points of one curve.
    reference: {key: {"mean", "std", "max", "min", "chosen", "n": number}}, a
      paper's values of these statistics.
    source: the label of `reference` in the table.
  """

  title: str
  metrics: list[str]
  where: Factors = dataclasses.field(default_factory=dict)
  by: str | None = None
  chosen: int | None = None
  count_chosen: bool = True
  base: str | None = None
  histogram: str | None = None
  scatter: list[str] | None = None
  curves: str | None = None
  along: list | None = None
  reference: dict[str, dict] = dataclasses.field(default_factory=dict)
  source: str = "reference"

  def keys(self) -> list[str]:
    """The keys of all metrics that the fields above name."""
    drawn = [self.base, self.histogram, *(self.scatter or ()), self.curves]
    return [*self.metrics, *filter(None, drawn)]


@dataclasses.dataclass(frozen=True)
class Selection:
  """A table whose entries are each the best setting of a sweep.

  Attributes:
    title: its title in the report.
    over: the factors that are swept.
    by: key of the metric that chooses the best setting.
    report: key of the metric that is shown of the chosen setting.
    rows: the factor of the table's rows.
    columns: the factor of its columns.
    groups: {name: levels of `columns`}; the mean of each group is shown.
    where: {factor: level or list of levels} of the settings.
    cost: a factor whose level is the cost of a run. If set, random searches
      among the runs are simulated.
  """

  title: str
  over: list[str]
  by: str
  report: str
  rows: str
  columns: str
  groups: dict[str, list] = dataclasses.field(default_factory=dict)
  where: Factors = dataclasses.field(default_factory=dict)
  cost: str | None = None

  def keys(self) -> list[str]:
    """The keys of all metrics that the fields above name."""
    return [self.by, self.report]


@dataclasses.dataclass(frozen=True)
class Layout:
  """All that a report shows.

  Attributes:
    families: {name: family}.
    comparisons: in order.
    strength: families to show against the 5th-percentile crop scale.
    scatter: metrics to show against each other.
    ablations: in order.
    seed_statistics: in order.
    selections: in order.
  """

  families: dict[str, Family]
  comparisons: list[Comparison]
  strength: list[str]
  scatter: list[Scatter]
  ablations: list[Ablation]
  seed_statistics: list[SeedStatistics]
  selections: list[Selection]


_KINDS = {
  "families": (Family, "a family"),
  "comparisons": (Comparison, "a comparison"),
  "scatter": (Scatter, "an entry of `scatter`"),
  "ablations": (Ablation, "an ablation"),
  "seed_statistics": (SeedStatistics, "an entry of `seed_statistics`"),
  "selections": (Selection, "an entry of `selections`"),
}


def of_config(config) -> Layout:
  """The layout of a study config.

  Raises:
    ValueError: in one line, if it names an unknown family, metric or factor, or
      an entry lacks a key.
  """
  found = {
    key: [results_lib.make(*kind, values) for values in config[key]]
    for key, kind in _KINDS.items()
  }
  families = {f.name: f for f in found.pop("families")}
  for name in config.strength:
    names.check("family of `strength`", name, families)
  for c in found["comparisons"]:
    for name in filter(None, (c.a, c.b)):
      names.check(f"family of comparison {c.title!r}", name, families)
    if (c.b is None) == (c.base is None):
      raise UserError(f"comparison {c.title!r}: give either b or base")
  for a in found["ablations"]:
    _check_ablation(a)
  metrics = [m["key"] for m in config.metrics]
  for kind in [k for k, (cls, _) in _KINDS.items() if hasattr(cls, "keys")]:
    for item in found[kind]:
      for key in item.keys():
        what = f"metric of {kind.replace('_', ' ')} {item.title!r}"
        names.check(what, key, metrics)
  return Layout(families=families, strength=list(config.strength), **found)


def _check_ablation(a):
  what = f"ablation {a.title!r}"
  for changes in a.rows:
    for factor in changes:
      names.check(f"factor of {what}", factor, a.default)
  if [dict(r) for r in a.rows].count({}) != 1:
    raise UserError(f"{what}: give one row {{}}, the default")


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two settings to compare; `x_a` and `x` are the levels of x of a and b."""

  budget: Any
  x_a: Any
  x: Any
  by: Any
  a: Factors
  b: Factors


def pairs(
  comparison: Comparison, layout: Layout, results: Results
) -> list[Pair]:
  """The pairs of a comparison; pairs with a missing setting are left out."""
  first = layout.families[comparison.a]
  second = layout.families[comparison.b or comparison.a]
  levels = first.levels(results, first.x)
  if comparison.base is not None:
    matched = [(comparison.base, x) for x in levels if x != comparison.base]
  else:
    matched = comparison.match or [(x, x) for x in levels]
  found = []
  for by, budget in first.lines(results):
    for x_a, x_b in matched:
      a = first.setting(results, budget, x_a, by)
      b = second.setting(results, budget, x_b, by)
      if a is not None and b is not None:
        found.append(Pair(budget, x_a, x_b, by, a, b))
  return found
