"""Makes tables of results: means, best settings, tests, the paper's claims."""

from typing import Any

from big_crop.display import tables
from big_crop.display.tables import Entry, Table
from big_crop.study import layout as layouts
from big_crop.study import statistics
from big_crop.study.grid import is_number
from big_crop.study.layout import BUDGET, Comparison, Family, Layout, Scatter
from big_crop.study.results import Factors, Metric, Results
from big_crop.study.statistics import Cell, Difference
from pp_ops.errors import UserError

_UNITS = {"area_min": "%"}
_SHORT = {"epochs": "ep"}


def level(factor: str, value) -> str:
  """`area_min=5%`, `30ep`: a level for people.

  "" if `factor` is None, or if it is the budget and the study does not vary it.
  """
  if factor is None or (factor == BUDGET and value is None):
    return ""
  text = amount(factor, value)
  return text if factor in _SHORT else f"{factor}={text}"


def amount(factor: str, value) -> str:
  """`5%`, `30ep`: a level for people, without its factor's name."""
  text = f"{value:g}" if is_number(value) else str(value)
  return text + _SHORT.get(factor, _UNITS.get(factor, ""))


def levels(factors: Factors) -> str:
  """`beta=3, area_min=5%`: several levels for people."""
  return ", ".join(filter(None, (level(k, v) for k, v in factors.items())))


def show(cell: Cell, metric: Metric) -> Entry:
  """`78.64±0.18`, with n where seeds are missing."""
  entry = tables.number(cell.mean, metric.digits)
  text = entry.text
  if cell.std is not None:
    text += f"±{cell.std:.{metric.digits}f}"
  if cell.n not in (0, cell.wanted):
    text += f" (n={cell.n})"
  return entry._replace(text=text)


# The columns in which a table can show a difference, for `tables.of_records`.
TESTED = {
  "difference": "+!difference",
  "95% interval": "+low…high",
  "p": "p",
  "p Holm": "p_holm",
  "p BH": "p_bh",
  "pairs": "pairs",
  "p paired": "p_paired",
  "sd": "sd",
  "sd paired": "sd_paired",
  "variance left": "variance_left:2",
  "sees": "sees",
}
# Without the columns that only comparisons of families show.
TESTED_SHORT = {
  k: TESTED[k]
  for k in ("difference", "95% interval", "p", "p Holm", "p paired")
}


def record(d: Difference, metric: Metric, **more) -> dict[str, Any]:
  """A difference as a table's record, with the entries that `TESTED` shows."""
  return {
    "_digits": metric.digits,
    "difference": d.mean,
    "low": d.low,
    "high": d.high,
    "p": d.p,
    "pairs": d.pairs or None,
    "p_paired": d.paired_p,
    "sd": d.std,
    "sd_paired": d.paired_std,
    "variance_left": d.variance_left,
    "sees": d.sees,
    **more,
  }


def _sign(metric):
  return -1 if metric.better == "lower" else 1


def ranked(
  family: Family, results: Results, metric: Metric, *lines: tuple
) -> tuple[list[tuple[Factors, Cell]], int]:
  """A family's settings on some of its lines, the best first.

  Returns:
    The settings that have a value, with their cells; and the number of all
    settings, including those without a value.
  """
  found = []
  for by, budget in lines:
    for x in family.levels(results, family.x):
      if setting := family.setting(results, budget, x, by):
        cell = results.cell(setting, metric)
        found.append(({**setting, family.x: x}, cell))
  order = lambda pair: _sign(metric) * pair[1].mean
  known = sorted((f for f in found if f[1].n), key=order, reverse=True)
  return known, len(found)


def _grid(name, title, family, places, cell, note):
  """A table with a row for each (by, budget) and a column for each `x`.

  `cell((by, budget), x)` returns the entry and the record of a place.
  """
  columns = layouts.ordered(x for _, x in places)
  rows, records = [], []
  for line in dict.fromkeys(line for line, _ in places):
    by, budget = line
    row = [level(family.by, by), level(BUDGET, budget)]
    for x in columns:
      shown, found = cell(line, x) if (line, x) in places else ("", None)
      row.append(shown)
      records += [found] if found else []
    rows.append(row)
  head = [family.by or "", BUDGET, *(level(family.x, x) for x in columns)]
  return Table(name, title, head, rows, records, note)


def means(family: Family, results: Results, metric: Metric) -> Table:
  """Mean and std: row per budget, column per `x` (Tables 5-8, 15, 16, 18)."""
  settings, best = {}, {}
  for line in family.lines(results):
    by, budget = line
    for x in family.levels(results, family.x):
      if setting := family.setting(results, budget, x, by):
        settings[line, x] = setting
    if metric.better and (order := ranked(family, results, metric, line)[0]):
      best[line] = order[0][1].mean

  def cell(line, x):
    setting = settings[line, x]
    c = results.cell(setting, metric)
    bold = c.n > 0 and c.mean == best.get(line)
    found = {**setting, family.x: x, **metric.measured(c)}
    return show(c, metric)._replace(bold=bold), found

  wanted = {results.cell(s, metric).wanted for s in settings.values()}
  note = f"mean±sample standard deviation, n={_joined(wanted)}"
  return _grid(
    tables.file_name("means", family.name, metric.key),
    f"{family.label}: {metric.label}",
    family,
    settings,
    cell,
    note + ("; best of a row in bold" if metric.better else ""),
  )


def _joined(values):
  return "/".join(str(v) for v in sorted(values)) or "0"


def best_settings(layout: Layout, results: Results, metric: Metric) -> Table:
  """The best setting of each family for each budget.

  It is tested against the next best, see "lead" and "p" of the records.
  """
  families = layout.families.values()
  budgets = layouts.ordered(
    b for f in families for b in f.levels(results, BUDGET)
  )
  rows, records = [], []
  for family in families:
    row = [family.label]
    for budget in budgets:
      lines = [ln for ln in family.lines(results) if ln[1] == budget]
      order, count = ranked(family, results, metric, *lines)
      if not order:
        row.append("")
        continue
      best, cell = order[0]
      lead = statistics.compare(order[1][1], cell) if order[1:] else None
      text = levels({k: best.get(k) for k in (family.by, family.x)})
      text += "" if len(order) == count else f" ({len(order)}/{count})"
      text += f":\n{show(cell, metric).text}"
      row.append(tables.p_value(lead and lead.p)._replace(text=text))
      found = {"family": family.name, **best, **metric.measured(cell)}
      tests = {"lead": lead and abs(lead.mean), "p": lead and lead.p}
      records.append({**found, "known": len(order), "of": count, **tests})
    if any(row[1:]):
      rows.append(row)
  some = any(r["known"] < r["of"] for r in records)
  return Table(
    name=tables.file_name("best", metric.key),
    title=f"Best setting per budget: {metric.label}",
    head=["", *(level(BUDGET, b) or "best" for b in budgets)],
    rows=rows,
    records=records,
    note="shaded by p of the lead over the family's next best setting"
    + ("; (m/n): m of its n settings have a finished run" if some else ""),
  )


def tests(
  comparison: Comparison, layout: Layout, results: Results, metric: Metric
) -> list[Table]:
  """A comparison's p-values as a grid, as in the paper, and a full table."""
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
  by_place = {
    ((p.by, p.budget), p.x): d for p, d in zip(pairs, found, strict=True)
  }

  def cell(line, x):
    d = by_place[line, x]
    shown = tables.number(None, 0) if d.p is None else tables.p_value(d.p)
    return shown, {BUDGET: line[1], family.x: x, "p": d.p}

  return [
    _grid(
      f"{name}-grid",
      title,
      family,
      by_place,
      cell,
      "p of Student's t-test, two-sided, equal variances; not corrected",
    ),
    _detail(name, f"{title}, in full", pairs, cells, found, family, metric),
  ]


def _detail(name, title, pairs, cells, found, family, metric):
  """The table with all statistics of each pair, and their average."""
  p = [d.p for d in found]
  corrected = statistics.holm(p), statistics.benjamini_hochberg(p)
  records = []
  for pair, d, holm, bh in zip(pairs, found, *corrected, strict=True):
    by = {family.by: pair.by} if family.by else {}
    setting = {BUDGET: pair.budget, family.x: pair.x, **by}
    shown = {
      "_budget": level(BUDGET, pair.budget),
      "_setting": levels({family.by: pair.by, family.x: pair.x}),
    }
    tests = record(d, metric, p_holm=holm, p_bh=bh)
    records.append({**shown, **setting, **tests})
  # The average is over the settings that have a test, so that all its entries
  # are of the same settings.
  whole = [c for c, d in zip(cells, found, strict=True) if d.p is not None]
  count = f"{len(whole)} of " if len(whole) < len(pairs) else ""
  shown = {
    "_budget": Entry("all", bold=True),
    "_setting": f"{count}{len(pairs)} settings",
  }
  average = record(statistics.average(whole), metric)
  records.append({**shown, BUDGET: "all", **average})
  return tables.of_records(
    name,
    title,
    records,
    {BUDGET: "_budget", "": "_setting", **TESTED},
    note="difference of means, second minus first; interval and `p paired` "
    "from pairs of equal seeds where there are any (paired t-test); p "
    "unpaired; Holm and Benjamini-Hochberg correct p over this table; sd: of "
    "an unpaired difference, sqrt(s1^2+s2^2), and of the paired one; variance "
    "left: the ratio of their squares; sees: the true difference that the "
    "interval's test finds at p < 0.05 with 80% power",
  )


def claim_one(layout: Layout, results: Results, metric: Metric) -> Table | None:
  """Does a higher budget want stronger augmentation?

  For each family of `layout.strength`, the gain is by how much its setting with
  the lowest `x`, which crops strongest, is better than that with the highest.
  The table shows how the gain changes from the lowest budget to the highest.
  """
  families = [layout.families[name] for name in layout.strength]
  budgets = layouts.ordered(
    b for f in families for b in f.levels(results, BUDGET)
  )
  if len(budgets) < 2:
    return None
  ends, sign = (budgets[0], budgets[-1]), _sign(metric)
  records = []
  for family in families:
    xs = family.levels(results, family.x)
    if len(xs) < 2:
      continue
    weakest, strongest = xs[-1], xs[0]
    gains = []
    for budget in ends:
      strong, weak = (
        results.cell(family.setting(results, budget, x) or {}, metric)
        for x in (strongest, weakest)
      )
      gains.append([(sign, strong), (-sign, weak)])
    low, high = gains
    change = statistics.contrast([[*high, *((-w, c) for w, c in low)]])
    records.append(
      {
        "_label": family.label,
        "_range": f"{level(family.x, weakest)} → {level(family.x, strongest)}",
        "family": family.name,
        "metric": metric.key,
        "weakest": weakest,
        "strongest": strongest,
        "gain_lowest_budget": statistics.contrast([low]).mean,
        "gain_highest_budget": statistics.contrast([high]).mean,
        **record(change, metric),
        "_n": _joined({c.n for gain in gains for _, c in gain}),
      }
    )
  if not records:
    return None
  return tables.of_records(
    tables.file_name("claim1", metric.key),
    f"Does a higher budget want stronger augmentation? {metric.label}",
    records,
    {
      "": "_label",
      "from → to": "_range",
      f"gain at {level(BUDGET, ends[0])}": "+!gain_lowest_budget",
      f"gain at {level(BUDGET, ends[1])}": "+!gain_highest_budget",
      "change": "+!difference",
      "p": "p",
      "p paired": "p_paired",
      "n": "_n",
    },
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


def shade(c: Scatter, settings: list[Factors], results: Results) -> list[float]:
  """The number that colours each setting's points in a scatter.

  Raises:
    ValueError: in one line, if a setting's level of `c.color` is no number.
  """
  if c.color is None:
    return list(map(results.crop_scale_percentile, settings))
  if other := [s for s in settings if not is_number(s.get(c.color))]:
    raise UserError(
      f"scatter {c.title!r}: color needs a factor whose levels are numbers, "
      f"and {c.color!r} is none of {other[0]}"
    )
  return [s[c.color] for s in settings]


def claim_three(c: Scatter, results: Results) -> Table | None:
  """What a scatter's x metric correlates with: the budget, or the colour?

  Spearman's rank correlation. With the budget and with the y metric it is over
  all runs. With the factor that colours the points it is within each budget:
  over all runs, a factor without effect would look like one whose effect is
  weaker than the budget's. None if no correlation is defined.
  """
  found = points(c, results)
  budget_of = lambda point: point[0].get(BUDGET)
  by = STRENGTH if c.color is None else c.color
  asked = [("all", BUDGET, found, list(map(budget_of, found)))]
  asked.append(
    ("all", results.metric(c.y).label, found, [y for *_, y in found])
  )
  for budget in layouts.ordered(map(budget_of, found)):
    mine = [p for p in found if budget_of(p) == budget]
    shades = shade(c, [s for s, _, _ in mine], results)
    asked.append((level(BUDGET, budget), by, mine, shades))
  records = []
  for runs, other, some, values in asked:
    if test := statistics.spearman([x for _, x, _ in some], values):
      rho, p = test
      which = {"metric": c.x, "with": other, "runs": runs}
      records.append({**which, "rho": rho, "p": p, "n": len(some)})
  if not records:
    return None
  return tables.of_records(
    tables.file_name("claim3", c.title, c.x, c.y),
    f"{c.title}: what goes with the {results.metric(c.x).label}?",
    records,
    {
      "rank correlation with": "with",
      "runs": "runs",
      "rho": "+rho:3",
      "p": "p",
      "n": "n",
    },
    note="Spearman's rho over runs, p two-sided; the paper's claim 3 is that "
    "saliency gets sparser with the budget (rho < 0), whatever the crop or the "
    "decay",
  )
