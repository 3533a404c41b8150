"""From results and a layout to tables: means, best settings, tests, claims."""

from big_crop.study import layout as layouts
from big_crop.study import results as results_lib
from big_crop.study import statistics, tables
from big_crop.study.layout import BUDGET, Comparison, Family, Layout, Scatter
from big_crop.study.results import Factors, Metric, Results
from big_crop.study.statistics import Cell, Difference
from big_crop.study.tables import Entry, Table

_UNITS = {"area_min": "%"}
_SHORT = {"epochs": "ep"}


def level(factor: str, value) -> str:
  """`area_min=5%`, `30ep`: a level for people."""
  if value is None:
    return ""
  text = amount(factor, value)
  return text if factor in _SHORT else f"{factor}={text}"


def amount(factor: str, value) -> str:
  """`5%`, `30ep`: a level whose factor is known."""
  text = f"{value:g}" if isinstance(value, int | float) else str(value)
  return text + _SHORT.get(factor, _UNITS.get(factor, ""))


def show(cell: Cell, metric: Metric) -> Entry:
  """`78.64±0.18`, with n where seeds are missing."""
  entry = tables.number(cell.mean, metric.digits)
  text = entry.text
  if cell.std is not None:
    text += f"±{cell.std:.{metric.digits}f}"
  if cell.n not in (0, cell.wanted):
    text += f" (n={cell.n})"
  return entry._replace(text=text)


def difference(d: Difference, digits: int) -> list[Entry | str]:
  """A difference of two means and its interval, as entries of a row."""
  ends = tables.interval(d.low, d.high, digits)
  return [tables.number(d.mean, digits, "+"), ends]


def _sign(metric):
  return -1 if metric.better == "lower" else 1


def ranked(
  family: Family, results: Results, metric: Metric, budget
) -> list[tuple[Factors, Cell]]:
  """A family's settings at a budget that have a value, the best first."""
  found = []
  for by, _ in (line for line in family.lines(results) if line[1] == budget):
    for x in family.levels(results, family.x):
      if setting := family.setting(results, budget, x, by):
        cell = results.cell(setting, metric)
        found.append(({**setting, family.x: x}, cell))
  found = [(s, c) for s, c in found if c.mean is not None]
  order = lambda pair: _sign(metric) * pair[1].mean
  return sorted(found, key=order, reverse=True)


def _head(family, levels):
  by = [family.by] if family.by else []
  return [*by, BUDGET, *(level(family.x, x) for x in levels)]


def _start(family, by, budget):
  return [*([level(family.by, by)] if family.by else []), level(BUDGET, budget)]


def means(family: Family, results: Results, metric: Metric) -> Table:
  """Mean and deviation, budgets down and `x` across (Tables 5-8, 15-18)."""
  levels = family.levels(results, family.x)
  rows, records, wanted = [], [], set()
  for by, budget in family.lines(results):
    settings = [family.setting(results, budget, x, by) for x in levels]
    cells = [s and results.cell(s, metric) for s in settings]
    known = [_sign(metric) * c.mean for c in cells if c and c.n]
    best = max(known, default=None) if metric.better else None
    row = _start(family, by, budget)
    for x, setting, cell in zip(levels, settings, cells, strict=True):
      if not cell:  # not in the grid
        row.append("")
        continue
      is_best = bool(cell.n) and _sign(metric) * cell.mean == best
      row.append(show(cell, metric)._replace(bold=is_best))
      wanted.add(cell.wanted)
      records.append({**setting, family.x: x, **metric.measured(cell)})
    rows.append(row)
  return Table(
    name=tables.file_name("means", family.name, metric.key),
    title=f"{family.label}: {metric.label}",
    head=_head(family, levels),
    rows=rows,
    records=records,
    note=f"mean±sample standard deviation, n={_joined(wanted)}"
    + ("; best of a row in bold" if metric.better else ""),
  )


def _joined(values):
  return "/".join(str(v) for v in sorted(values)) or "0"


def best_settings(layout: Layout, results: Results, metric: Metric) -> Table:
  """The best setting of each family for each budget, and its lead."""
  families = layout.families.values()
  budgets = {b for f in families for b in f.levels(results, BUDGET)}
  rows, records = [], []
  for family in families:
    row = [family.label]
    for budget in sorted(budgets):
      order = ranked(family, results, metric, budget)
      if not order:
        row.append("")
        continue
      best, cell = order[0]
      lead = statistics.compare(order[1][1], cell) if order[1:] else None
      x = amount(family.x, best[family.x])
      by = f"{level(family.by, best[family.by])}, " if family.by else ""
      mark = tables.p_value(lead.p).mark if lead else ""
      row.append(Entry(f"{by}{x}: {show(cell, metric).text}", mark=mark))
      record = {"family": family.name, **best, **metric.measured(cell)}
      tests = {"lead": lead and abs(lead.mean), "p": lead and lead.p}
      records.append({**record, **tests})
    if any(row[1:]):
      rows.append(row)
  return Table(
    name=tables.file_name("best", metric.key),
    title=f"Best setting per budget: {metric.label}",
    head=["", *(level(BUDGET, b) for b in sorted(budgets))],
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
  name = tables.file_name("tests", comparison.title.split(" (")[0], metric.key)
  title = f"{comparison.title}: {metric.label}"
  return [
    Table(f"{name}-grid", title, *_p_grid(pairs, found, family)),
    Table(
      name, f"{title}, in full", *_detail(pairs, cells, found, family, metric)
    ),
  ]


def _p_grid(pairs, found, family):
  """Head, rows, records and note of the paper's grid."""
  places = [((p.by, p.budget), p.x) for p in pairs]
  by_place = dict(zip(places, found, strict=True))
  levels = sorted({p.x for p in pairs})
  rows, records = [], []
  for line in dict.fromkeys(line for line, _ in places):
    tested = [by_place.get((line, x)) for x in levels]
    cells = [tables.p_value(d.p) if d else "" for d in tested]
    rows.append([*_start(family, *line), *cells])
    records += [
      {BUDGET: line[1], family.x: x, "p": d and d.p}
      for x, d in zip(levels, tested, strict=True)
    ]
  note = (
    "p of Student's t-test, two-sided, equal variances; shaded below "
    "0.05, 0.01 and 0.001; not corrected"
  )
  return _head(family, levels), rows, records, note


def _detail(pairs, cells, found, family, metric):
  """Head, rows, records and note of the table of everything."""
  p = [d.p for d in found]
  corrected = statistics.holm(p), statistics.benjamini_hochberg(p)
  rows, records = [], []
  for pair, d, holm, bh in zip(pairs, found, *corrected, strict=True):
    where = (level(family.by, pair.by), level(family.x, pair.x))
    start = [level(BUDGET, pair.budget), ", ".join(filter(None, where))]
    rows.append([*start, *_tested(d, holm, bh, metric.digits)])
    by = {family.by: pair.by} if family.by else {}
    record = {BUDGET: pair.budget, family.x: pair.x, **by, **d._asdict()}
    records.append(record | {"p_holm": holm, "p_bh": bh} | _left(d))
  d = statistics.average(cells)
  start = [Entry("all", bold=True), f"{len(pairs)} settings"]
  rows.append([*start, *_tested(d, None, None, metric.digits)])
  records.append({BUDGET: "all", **d._asdict(), **_left(d)})
  head = [BUDGET, "", "difference", "95% interval", "p", "p Holm", "p BH"]
  head += ["pairs", "p paired", "sd", "sd paired", "variance left"]
  note = (
    "difference of means, second minus first; interval and `p paired` from "
    "pairs of equal seeds where there are any (paired t-test); p unpaired; "
    "Holm and Benjamini-Hochberg correct p over this table; sd: of an "
    "unpaired difference, sqrt(s1^2+s2^2), and of the paired one; variance "
    "left: the ratio of their squares"
  )
  return head, rows, records, note


def _left(d):
  return {"variance_left": d.variance_left}


def _tested(d, holm, bh, digits):
  return [
    *difference(d, digits),
    tables.p_value(d.p),
    *map(tables.optional_p, (holm, bh)),
    str(d.pairs or ""),
    tables.optional_p(d.paired_p),
    *(tables.optional(s, digits) for s in (d.std, d.paired_std)),
    tables.optional(d.variance_left, 2),
  ]


def claim_one(layout: Layout, results: Results, metric: Metric) -> Table | None:
  """Does a higher budget want stronger augmentation?

  Of each family of `layout.strength`: by how much better its strongest setting
  (least `x`) is than its weakest, and how that changes from the lowest budget
  to the highest.
  """
  rows, records, budgets, sign = [], [], [], _sign(metric)
  signed = lambda d: tables.number(d.mean, metric.digits, "+")
  for family in (layout.families[name] for name in layout.strength):
    xs = family.levels(results, family.x)
    ends = family.levels(results, BUDGET)
    if len(xs) < 2 or len(ends) < 2:
      continue
    budgets = [ends[0], ends[-1]]
    strongest, weakest = xs[0], xs[-1]

    def cell(budget, x, family=family):
      return results.cell(family.setting(results, budget, x) or {}, metric)

    gains = [
      [(sign, cell(b, strongest)), (-sign, cell(b, weakest))] for b in budgets
    ]
    low, high = (statistics.contrast([gain]) for gain in gains)
    change = statistics.contrast([[*gains[1], *((-w, c) for w, c in gains[0])]])
    rows.append(
      [
        family.label,
        " → ".join(level(family.x, x) for x in (weakest, strongest)),
        *map(signed, (low, high)),
        signed(change)._replace(bold=True),
        tables.p_value(change.p),
        tables.optional_p(change.paired_p),
        _joined({c.n for gain in gains for _, c in gain}),
      ]
    )
    records.append(
      {
        "family": family.name,
        "metric": metric.key,
        "weakest": weakest,
        "strongest": strongest,
        "gain_lowest_budget": low.mean,
        "gain_highest_budget": high.mean,
        **change._asdict(),
      }
    )
  if not rows:
    return None
  gains_at = [f"gain at {level(BUDGET, b)}" for b in budgets]
  return Table(
    name=tables.file_name("claim1", metric.key),
    title=f"Does a higher budget want stronger augmentation? {metric.label}",
    head=["", "from → to", *gains_at, "change", "p", "p paired", "n"],
    rows=rows,
    records=records,
    note="gain: by how much a family's strongest setting is better than its "
    "weakest; the paper's claim 1 is that it rises with the budget",
  )


STRENGTH = "5th-percentile crop scale"


def points(c: Scatter, results: Results) -> list[tuple[Factors, float, float]]:
  """(setting, x, y) of each run that has both metrics of a scatter."""
  across, up = map(results.metric, (c.x, c.y))
  found = []
  for setting in results.find(c.where):
    x, y = results.cell(setting, across), results.cell(setting, up)
    both = sorted(set(x.values) & set(y.values))
    found += [(setting, x.values[s], y.values[s]) for s in both]
  return found


def shade(c: Scatter, settings: list[Factors]) -> list[float]:
  """What colours the runs of a scatter."""
  if c.color is None:
    return list(map(results_lib.crop_scale_percentile, settings))
  return [s[c.color] for s in settings]


def claim_three(c: Scatter, results: Results) -> Table | None:
  """What a scatter's abscissa goes with: the budget, or what colours the runs?

  Spearman's rank correlation. With the budget over all runs; with the colour at
  each budget apart, because a factor that is no cause would otherwise only look
  weaker beside the budget's effect. None if no correlation can be had.
  """
  found = points(c, results)
  budgets = sorted({s[BUDGET] for s, _, _ in found})
  by = STRENGTH if c.color is None else c.color
  asked = [("all", BUDGET, found, [s[BUDGET] for s, _, _ in found])]
  asked.append(
    ("all", results.metric(c.y).label, found, [y for *_, y in found])
  )
  for budget in budgets:
    mine = [p for p in found if p[0][BUDGET] == budget]
    levels = shade(c, [s for s, _, _ in mine])
    asked.append((level(BUDGET, budget), by, mine, levels))
  rows, records = [], []
  for runs, other, some, values in asked:
    test = statistics.spearman([x for _, x, _ in some], values)
    if test is None:
      continue
    rho, p = test
    entries = [tables.number(rho, 3, "+"), tables.p_value(p)]
    rows.append([other, runs, *entries, str(len(some))])
    record = {"metric": c.x, "with": other, "runs": runs}
    records.append({**record, "rho": rho, "p": p, "n": len(some)})
  if not rows:
    return None
  across = results.metric(c.x).label
  return Table(
    name=tables.file_name("claim3", c.title, c.x, c.y),
    title=f"{c.title}: what goes with the {across}?",
    head=["rank correlation with", "runs", "rho", "p", "n"],
    rows=rows,
    records=records,
    note="Spearman's rho over runs, p two-sided; the paper's claim 3 is that "
    "saliency gets sparser with the budget (rho < 0), whatever the crop or the "
    "decay",
  )
