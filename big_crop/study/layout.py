"""What a report shows: families of settings and comparisons between them.

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

BUDGET = "epochs"  # the factor down a table's rows


def ordered(levels: Iterable) -> list:
  """Each level once: numbers ascending, then others."""
  key = lambda v: (0, v, "") if is_number(v) else (1, 0, str(v))
  return sorted(set(levels), key=key)


@dataclasses.dataclass(frozen=True)
class Family:
  """Settings that differ in the budget, in `x`, and perhaps in `by`.

  Attributes:
    name: what comparisons call it.
    label: for people.
    where: {factor: level or list of levels} of its settings.
    x: the factor along a table's columns and a figure's abscissa.
    by: a second factor, in groups of rows.
    reused: [(level of `x`, where)] of settings that have no factor `x` but are
      what that level would be, as the fixed crop is Beta crop with alpha = 1.
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
    """(level of `by`, budget) of each row of a table."""
    factors = (self.by, BUDGET)
    return list(itertools.product(*(self.levels(results, f) for f in factors)))

  def levels(self, results: Results, factor: str | None) -> list:
    """The levels that a factor has in this family, ascending.

    [None] for no factor, and for the budget if it is no factor of the study.
    """
    found = {s[factor] for s in results.find(self.where) if factor in s}
    if factor == self.x:
      found |= {x for x, where in self.reused if results.find(where)}
    return ordered(found or ({None} if factor in (None, BUDGET) else ()))


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Settings to test against each other.

  Attributes:
    title: for people.
    a: the family that is compared with.
    b: another family, at the same budget and x; or None:
    base: a level of x, with which the others of family `a` are compared.
    match: [(x of a, x of b)] where equal x is not what is comparable.
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
    title: for people.
    x: key of the abscissa's metric.
    y: key of the ordinate's.
    where: {factor: level or list of levels} of the settings.
    color: a factor; None for the 5th-percentile crop scale.
  """

  title: str
  x: str
  y: str
  where: dict[str, Any] = dataclasses.field(default_factory=dict)
  color: str | None = None

  def keys(self) -> list[str]:
    """Every metric that it names."""
    return [self.x, self.y]


@dataclasses.dataclass(frozen=True)
class Ablation:
  """Settings that each differ a little from a default, in a table's rows.

  Attributes:
    title: for people.
    default: {factor: level} of what the table varies.
    rows: the changes to it, in order; {} is the default itself.
    where: the settings' other factors. A setting is `where` and its changes.
    metrics: keys of those to show; None for all.
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
    """Every metric that it names."""
    return self.metrics or []


@dataclasses.dataclass(frozen=True)
class SeedStatistics:
  """How metrics of one setting, or of a few, vary with the seed.

  Attributes:
    title: for people.
    metrics: keys of the table's rows.
    where: the factors of the setting.
    by: one more factor, whose levels are compared with its first.
    chosen: a seed with a column of its own.
    count_chosen: whether it is also one of those that are counted.
    base: key of the metric that the others are compared with, on equal runs.
    histogram: key of the metric whose distribution is drawn.
    scatter: keys of two that are drawn against each other.
    curves: key of one that is drawn along the epochs.
    along: [label, [x of each of `metrics`]], for a figure of them along x.
    reference: {key: {"mean", "std", "max", "min", "chosen", "n": number}}.
    source: whose those are.
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
    """Every metric that it names."""
    drawn = [self.base, self.histogram, *(self.scatter or ()), self.curves]
    return [*self.metrics, *filter(None, drawn)]


@dataclasses.dataclass(frozen=True)
class Selection:
  """The best of a sweep at each place of a table.

  Attributes:
    title: for people.
    over: the factors that are swept.
    by: key of the metric that chooses.
    report: key of the one that is shown of what is chosen.
    rows: a factor.
    columns: another.
    groups: {name: levels of `columns`}, whose means are shown.
    where: {factor: level or list of levels} of the settings.
    cost: a factor that says what a run costs; then random searches among the
      settings are simulated.
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
    """Every metric that it names."""
    return [self.by, self.report]


@dataclasses.dataclass(frozen=True)
class Layout:
  """What is shown of some results.

  Attributes:
    families: by name.
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
    ValueError: in one line, if it names what is not there.
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
  """Two settings to be compared; `x_a` and `x` are a's and b's levels."""

  budget: Any
  x_a: Any
  x: Any
  by: Any
  a: Factors
  b: Factors


def pairs(
  comparison: Comparison, layout: Layout, results: Results
) -> list[Pair]:
  """The settings that a comparison pairs, those that both sides have."""
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
