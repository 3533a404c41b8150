"""The best setting of a sweep, chosen by one metric and reported by another.

"How to train your ViT?" (arXiv:2106.10270) finetunes in this way: learning rate
and steps are chosen on a validation set, and accuracy is reported on the test
set (Tables 3 and 5), with means over groups of datasets.
"""

from big_crop.display import tables
from big_crop.display.tables import Entry, Table
from big_crop.study import analysis, layout, statistics
from big_crop.study.layout import Selection
from big_crop.study.results import Factors, Results
from big_crop.study.statistics import Cell


def chosen(s: Selection, results: Results, **place) -> tuple[Factors, Cell]:
  """The setting with the best `by`, and its cell of `report`.

  Chooses among the settings of `s.where` whose factors have the levels of
  `place`. A single setting is chosen even without a value of `by`, which
  results that a paper prints do not have. Without any, ({}, an empty cell).
  """
  by, report = results.metric(s.by), results.metric(s.report)
  sign = -1 if by.better == "lower" else 1
  found = results.find({**s.where, **place})
  known = [f for f in found if results.cell(f, by).n]
  if not known and len(found) == 1:
    known = found
  value = lambda f: sign * (results.cell(f, by).mean or 0)
  best = max(known, key=value, default={})
  return best, results.cell(best, report)


def table(s: Selection, results: Results) -> Table | None:
  """The table of the metric `report`, with columns for the groups' means."""
  report = results.metric(s.report)
  levels = lambda k: layout.ordered(
    {f[k] for f in results.find(s.where) if k in f}
  )
  columns = levels(s.columns)
  rows, records = [], []
  for row in levels(s.rows):
    line, cells = [analysis.amount(s.rows, row)], {}
    for column in columns:
      place = {s.rows: row, s.columns: column}
      best, cells[column] = chosen(s, results, **place)
      line.append(analysis.show(cells[column], report))
      swept = {k: best[k] for k in s.over if k in best}
      records.append({**place, **swept, **report.measured(cells[column])})
    for group, members in s.groups.items():
      mean = statistics.contrast(
        [
          [
            (1 / len(members), cells.get(m, Cell(None, None, 0, 0, {})))
            for m in members
          ]
        ]
      )
      shown = tables.number(mean.mean, report.digits)
      if mean.low is not None:
        ends = f"{mean.low:.{report.digits}f}…{mean.high:.{report.digits}f}"
        shown = Entry(f"{shown.text} ({ends})")
      line.append(shown._replace(bold=True))
      found = {"metric": report.key, "mean": mean.mean}
      found |= {"low": mean.low, "high": mean.high}
      records.append({s.rows: row, s.columns: f"mean of {group}", **found})
    rows.append(line)
  if not any(r["mean"] is not None for r in records):
    return None
  return Table(
    tables.file_name("selection", s.title, s.report),
    f"{s.title}: {report.label}",
    [s.rows, *map(str, columns), *(f"mean of {g}" for g in s.groups)],
    rows,
    records,
    f"{', '.join(s.over)} chosen by the {results.metric(s.by).label}; of a "
    "group's mean the 95% interval over seeds",
  )
