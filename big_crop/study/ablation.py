"""Ablations: settings that each differ a little from a default.

As in section 5 of "ResNet strikes back" (Tables 6-8).
"""

from typing import NamedTuple

from big_crop.study import analysis, statistics, tables
from big_crop.study.layout import Ablation
from big_crop.study.results import Factors, Metric, Results
from big_crop.study.statistics import Cell, Difference
from big_crop.study.tables import Table


class Row(NamedTuple):
  """A setting beside the default.

  Attributes:
    changes: {factor: level} where it is not the default; {} for that itself.
    cell: its values.
    difference: from the default, Welch's test.
    p_holm: corrected for all rows.
    reference: what others report for it; None if nobody does.
    reference_difference: from what they report for the default.
  """

  changes: Factors
  cell: Cell
  difference: Difference
  p_holm: float | None
  reference: float | None
  reference_difference: float | None

  def label(self) -> str:
    """Its changes, for people."""
    found = ", ".join(analysis.level(k, v) for k, v in self.changes.items())
    return found or "default"


def rows(a: Ablation, results: Results, metric: Metric) -> list[Row]:
  """The rows of an ablation's table, in its order."""
  changes = [dict(r) for r in a.rows]
  cells = [results.cell(a.setting(r), metric) for r in changes]
  default = changes.index({})
  found = [
    Difference() if i == default else statistics.welch(cells[default], c)
    for i, c in enumerate(cells)
  ]
  holm = statistics.holm([d.p for d in found])
  numbers = a.reference.get(metric.key)
  out = []
  for i, cell in enumerate(cells):
    theirs = (None, None)
    if numbers:
      gain = None if i == default else numbers[i] - numbers[default]
      theirs = (numbers[i], gain)
    out.append(Row(changes[i], cell, found[i], holm[i], *theirs))
  return out


def table(a: Ablation, results: Results, metric: Metric) -> Table:
  """All rows, with the factors that the ablation varies as columns."""
  lines, records = [], []
  digits = metric.digits
  theirs = metric.key in a.reference
  for r in rows(a, results, metric):
    levels = {**a.default, **r.changes}
    d, is_default = r.difference, not r.changes
    difference, interval = analysis.difference(d, digits)
    found = [
      *(analysis.amount(k, v) for k, v in levels.items()),
      analysis.show(r.cell, metric),
      "default" if is_default else difference,
      interval,
      *map(tables.optional_p, (d.p, r.p_holm, d.paired_p)),
    ]
    if theirs:
      found.append(tables.number(r.reference, digits))
      found.append(tables.optional(r.reference_difference, digits, "+"))
    if is_default:
      found = map(tables.entry, found)
      found = [e._replace(bold=True, mark=e.mark or "default") for e in found]
    lines.append(found)
    records.append(
      {
        **a.where,
        **levels,
        **metric.measured(r.cell),
        "difference": d.mean,
        "low": d.low,
        "high": d.high,
        "p_welch": d.p,
        "p_holm": r.p_holm,
        "p_paired": d.paired_p,
        "reference": r.reference,
        "reference_difference": r.reference_difference,
      }
    )
  head = [*a.default, "mean±std", "difference", "95% interval"]
  head += ["p", "p Holm", "p paired"]
  return Table(
    name=tables.file_name("ablation", a.title, metric.key),
    title=f"{a.title}: {metric.label}",
    head=head + ([a.source, "difference there"] if theirs else []),
    rows=lines,
    records=records,
    note="sample standard deviation over the seeds; the default in bold; "
    "difference from it, interval and p by Welch's t-test, two-sided; p Holm: "
    "corrected for the rows of this table; p paired: t-test of the differences "
    "of equal seeds",
  )
