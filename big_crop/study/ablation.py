"""Ablations: settings that each differ a little from a default.

As in section 5 of "ResNet strikes back" (Tables 6-8).
"""

from typing import Any

from big_crop.display import tables
from big_crop.display.tables import Table
from big_crop.study import analysis, statistics
from big_crop.study.layout import Ablation
from big_crop.study.results import Metric, Results
from big_crop.study.statistics import Difference


def records(
  a: Ablation, results: Results, metric: Metric
) -> list[dict[str, Any]]:
  """The rows of an ablation's table, in its order.

  Returns:
    A dict for each row: the factors, the cell, its difference from the default
    with Welch's test, and what the paper reports. `_changes` names, for people,
    the levels that differ from the default; it is "" in the default's row.
  """
  changes = [dict(r) for r in a.rows]
  cells = [results.cell(a.setting(r), metric) for r in changes]
  default = changes.index({})
  found = [
    Difference() if i == default else statistics.welch(cells[default], c)
    for i, c in enumerate(cells)
  ]
  holm = statistics.holm([d.p for d in found])
  theirs = [None] * len(cells)
  if results.theirs:
    theirs = [results.theirs.cell(a.setting(r), metric).mean for r in changes]
  out = []
  for i, cell in enumerate(cells):
    levels = {**a.default, **changes[i]}
    out.append(
      {
        **a.where,
        **levels,
        **{f"_{k}": analysis.amount(k, v) for k, v in levels.items()},
        "_changes": analysis.levels(changes[i]),
        **metric.measured(cell),
        "_mean": analysis.show(cell, metric),
        **analysis.record(found[i], metric, p_holm=holm[i]),
        "reference": theirs[i],
        "reference_difference": _minus(theirs[i], theirs[default]),
      }
    )
  out[default]["reference_difference"] = None
  return out


def _minus(a, b):
  return None if None in (a, b) else float(a - b)


def table(a: Ablation, results: Results, metric: Metric) -> Table:
  """All rows, with the factors that the ablation varies as columns."""
  found = records(a, results, metric)
  made = tables.of_records(
    tables.file_name("ablation", a.title, metric.key),
    f"{a.title}: {metric.label}",
    found,
    {
      **{k: f"_{k}" for k in a.default},
      "mean±std": "_mean",
      **analysis.TESTED_SHORT,
      results.theirs.title if results.theirs else "": "reference",
      "difference there": "+reference_difference",
    },
    note="sample standard deviation over the seeds; the default in bold; "
    "difference from it, interval and p by Welch's t-test, two-sided; p Holm: "
    "corrected for the rows of this table; p paired: t-test of the differences "
    "of equal seeds",
  )
  default = next(i for i, r in enumerate(found) if not r["_changes"])
  row = list(map(tables.entry, made.rows[default]))
  row[made.head.index("difference")] = tables.Entry("default")
  made.rows[default] = [
    e._replace(bold=True, mark=e.mark or "default") for e in row
  ]
  return made
