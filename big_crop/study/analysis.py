"""From results and a layout to tables: means, best settings, tests, claims."""

from big_crop.study import layout as layouts
from big_crop.study import statistics
from big_crop.study.layout import Comparison, Family, Layout
from big_crop.study.results import Factors, Metric, Results
from big_crop.study.statistics import Cell
from big_crop.study.tables import (
  Entry,
  Table,
  file_name,
  interval,
  number,
  optional_p,
  p_value,
  signed,
)

_UNITS = {"area_min": "%"}
_SHORT = {"epochs": "ep"}


def level(factor: str, value) -> str:
  """`area_min=5%`, `30ep`: a level for people."""
  if value is None:
    return ""
  text = amount(factor, value)
  return text if factor in _SHORT else f"{factor}={text}"


def amount(factor, value):
  text = f"{value:g}" if isinstance(value, int | float) else str(value)
  return text + _SHORT.get(factor, _UNITS.get(factor, ""))


def show(cell: Cell, metric: Metric) -> str:
  """`78.64±0.18`, with n where seeds are missing."""
  if cell.mean is None:
    return "missing"
  text = number(cell.mean, metric.digits)
  if cell.std is not None:
    text += f"±{number(cell.std, metric.digits)}"
  return text if cell.n == cell.wanted else f"{text} (n={cell.n})"


def _sign(metric):
  return -1 if metric.better == "lower" else 1


def _order(metric):
  return lambda cell: _sign(metric) * cell.mean


def ranked(
  family: Family,
  layout: Layout,
  results: Results,
  metric: Metric,
  budget,
) -> list[tuple[Factors, Cell]]:
  """A family's settings at a budget that have a value, the best first."""
  where = {**family.where, layout.budget: budget}
  found = [(s, results.cell(s, metric)) for s in results.find(where)]
  found = [(s, c) for s, c in found if c.mean is not None]
  order = _order(metric)
  return sorted(found, key=lambda pair: order(pair[1]), reverse=True)


def means(
  family: Family, layout: Layout, results: Results, metric: Metric
) -> Table:
  """Mean and deviation, budgets down and `x` across (Tables 5-8, 15-18)."""
  levels = family.levels(results, family.x)
  rows, records, wanted = [], [], set()
  for by in family.levels(results, family.by):
    for budget in family.levels(results, layout.budget):
      at = {layout.budget: budget}
      cells = []
      for x in levels:
        setting = family.setting(results, at, x, by)
        cell = results.cell(setting, metric) if setting else None
        cells.append(cell)
        if cell:
          wanted.add(cell.wanted)
          records.append(
            {
              **setting,
              "metric": metric.key,
              "mean": cell.mean,
              "std": cell.std,
              "n": cell.n,
            }
          )
      known = [c for c in cells if c and c.mean is not None]
      best = max(known, key=_order(metric), default=None)
      best = best if metric.better else None
      first = [Entry(level(family.by, by))] if family.by else []
      rows.append(
        [
          *first,
          Entry(level(layout.budget, budget)),
          *(_mean_entry(c, metric, best) for c in cells),
        ]
      )
  first = [family.by] if family.by else []
  return Table(
    name=file_name("means", family.name, metric.key),
    title=f"{family.label}: {metric.label}",
    head=[*first, layout.budget, *(level(family.x, x) for x in levels)],
    rows=rows,
    records=records,
    note=f"mean±sample standard deviation, n={joined(wanted)}"
    + ("; best of a row in bold" if metric.better else ""),
  )


def _mean_entry(cell, metric, best):
  if cell is None:  # not in the grid
    return Entry("")
  mark = "missing" if cell.mean is None else ""
  is_best = best is not None and cell.mean == best.mean
  return Entry(show(cell, metric), bold=is_best, mark=mark)


def joined(values):
  return "/".join(str(v) for v in sorted(values)) or "0"


def best_settings(layout: Layout, results: Results, metric: Metric) -> Table:
  """The best setting of each family for each budget, and its lead."""
  families = layout.families.values()
  budgets = sorted(
    {b for f in families for b in f.levels(results, layout.budget)}
  )
  rows, records = [], []
  for family in families:
    row = [Entry(family.label)]
    for budget in budgets:
      order = ranked(family, layout, results, metric, budget)
      if not order:
        row.append(Entry(""))
        continue
      best, cell = order[0]
      lead = statistics.compare(order[1][1], cell) if order[1:] else None
      x = amount(family.x, best[family.x])
      by = f"{level(family.by, best[family.by])}, " if family.by else ""
      mark = p_value(lead.p).mark if lead else ""
      row.append(Entry(f"{by}{x}: {show(cell, metric)}", mark=mark))
      records.append(
        {
          "family": family.name,
          **best,
          "metric": metric.key,
          "mean": cell.mean,
          "std": cell.std,
          "n": cell.n,
          "lead": lead and abs(lead.mean),
          "p": lead and lead.p,
        }
      )
    if any(e.text for e in row[1:]):
      rows.append(row)
  return Table(
    name=file_name("best", metric.key),
    title=f"Best setting per budget: {metric.label}",
    head=["", *(level(layout.budget, b) for b in budgets)],
    rows=rows,
    records=records,
    note="shaded where the lead over the next best setting has p < 0.05, 0.01, "
    "0.001",
  )


def tests(
  comparison: Comparison, layout: Layout, results: Results, metric: Metric
) -> list[Table]:
  """A comparison's p-values as the paper's grid, and all there is to each."""
  pairs = layouts.pairs(comparison, layout, results)
  if not pairs:
    return []
  family = layout.families[comparison.b or comparison.a]
  cells = [
    (results.cell(p.a, metric), results.cell(p.b, metric)) for p in pairs
  ]
  found = [statistics.compare(a, b) for a, b in cells]
  name = file_name("tests", comparison.title.split(" (")[0], metric.key)
  title = f"{comparison.title}: {metric.label}"
  detail = _detail(pairs, cells, found, family, layout, metric)
  return [
    _p_grid(pairs, found, family, layout, f"{name}-grid", title),
    Table(name, f"{title}, in full", *detail),
  ]


def _p_grid(pairs, found, family, layout, name, title):
  by_place = {
    (p.by, p.budget, p.x): d for p, d in zip(pairs, found, strict=True)
  }
  levels = sorted({p.x for p in pairs})
  lines = list(dict.fromkeys((p.by, p.budget) for p in pairs))
  rows, records = [], []
  for by, budget in lines:
    first = [Entry(level(family.by, by))] if family.by else []
    row = [*first, Entry(level(layout.budget, budget))]
    for x in levels:
      d = by_place.get((by, budget, x))
      row.append(p_value(d.p) if d else Entry(""))
      records.append(
        {layout.budget: budget, family.x: x, "p": d.p if d else None}
      )
    rows.append(row)
  return Table(
    name=name,
    title=title,
    head=[
      *([family.by] if family.by else []),
      layout.budget,
      *(level(family.x, x) for x in levels),
    ],
    rows=rows,
    records=records,
    note="p of Student's t-test, two-sided, equal variances; shaded below "
    "0.05, 0.01 and 0.001; not corrected",
  )


_DETAIL = (
  "difference",
  "95% interval",
  "p",
  "p Holm",
  "p BH",
  "pairs",
  "p paired",
  "sd",
  "sd paired",
  "variance left",
)


def _detail(pairs, cells, found, family, layout, metric):
  """Head, rows, records and note of the table of everything."""
  corrected = [
    f([d.p for d in found])
    for f in (statistics.holm, statistics.benjamini_hochberg)
  ]
  rows, records = [], []
  for pair, d, holm, bh in zip(pairs, found, *corrected, strict=True):
    where = ", ".join(
      filter(None, (level(family.by, pair.by), level(family.x, pair.x)))
    )
    first = [Entry(level(layout.budget, pair.budget)), Entry(where)]
    rows.append([*first, *_difference(d, holm, bh, metric)])
    records.append(
      {
        layout.budget: pair.budget,
        family.x: pair.x,
        **({family.by: pair.by} if family.by else {}),
        **d._asdict(),
        "p_holm": holm,
        "p_bh": bh,
        "variance_left": d.variance_left,
      }
    )
  everything = statistics.average(cells)
  rows.append(
    [
      Entry("all", bold=True),
      Entry(f"{len(pairs)} settings"),
      *_difference(everything, None, None, metric),
    ]
  )
  records.append(
    {
      layout.budget: "all",
      **everything._asdict(),
      "variance_left": everything.variance_left,
    }
  )
  note = (
    "difference of means, second minus first; interval and `p paired` from "
    "pairs of equal seeds where there are any (paired t-test); p unpaired; "
    "Holm and Benjamini-Hochberg correct p over this table; sd: of an "
    "unpaired difference, sqrt(s1^2+s2^2), and of the paired one; variance "
    "left: the ratio of their squares"
  )
  return [layout.budget, "", *_DETAIL], rows, records, note


def _difference(d, holm, bh, metric):
  left, digits = d.variance_left, metric.digits
  return [
    Entry(signed(d.mean, digits), mark="missing" if d.mean is None else ""),
    Entry(interval(d.low, d.high, digits)),
    p_value(d.p),
    optional_p(holm),
    optional_p(bh),
    Entry(str(d.pairs) if d.pairs else ""),
    optional_p(d.paired_p),
    *(
      Entry("" if s is None else number(s, digits))
      for s in (d.std, d.paired_std)
    ),
    Entry("" if left is None else f"{left:.2f}"),
  ]


def claim_one(layout: Layout, results: Results, metric: Metric) -> Table | None:
  """Does a higher budget want stronger augmentation?

  Of each family of `layout.strength`: by how much better its strongest setting
  (least `x`) is than its weakest, and how that changes from the lowest budget
  to the highest.
  """
  rows, records, budgets, sign = [], [], [], _sign(metric)
  for family in (layout.families[name] for name in layout.strength):
    xs = family.levels(results, family.x)
    ends = family.levels(results, layout.budget)
    if len(xs) < 2 or len(ends) < 2:
      continue
    budgets = [ends[0], ends[-1]]

    def cell(budget, x, family=family):
      setting = family.setting(results, {layout.budget: budget}, x)
      return results.cell(setting or {}, metric)

    gains = [
      [(sign, cell(b, xs[0])), (-sign, cell(b, xs[-1]))] for b in budgets
    ]
    counts = {c.n for gain in gains for _, c in gain}
    low, high = (statistics.contrast([gain]) for gain in gains)
    change = statistics.contrast([[*gains[1], *((-w, c) for w, c in gains[0])]])
    rows.append(
      [
        Entry(family.label),
        Entry(" → ".join(level(family.x, x) for x in (xs[-1], xs[0]))),
        *(Entry(signed(d.mean, metric.digits)) for d in (low, high)),
        Entry(signed(change.mean, metric.digits), bold=True),
        p_value(change.p),
        optional_p(change.paired_p),
        Entry(joined(counts)),
      ]
    )
    records.append(
      {
        "family": family.name,
        "metric": metric.key,
        "weakest": xs[-1],
        "strongest": xs[0],
        "gain_lowest_budget": low.mean,
        "gain_highest_budget": high.mean,
        **change._asdict(),
      }
    )
  if not rows:
    return None
  gains_at = [f"gain at {level(layout.budget, b)}" for b in budgets]
  return Table(
    name=file_name("claim1", metric.key),
    title=f"Does a higher budget want stronger augmentation? {metric.label}",
    head=["", "from → to", *gains_at, "change", "p", "p paired", "n"],
    rows=rows,
    records=records,
    note="gain: by how much a family's strongest setting is better than its "
    "weakest; the paper's claim 1 is that it rises with the budget",
  )
