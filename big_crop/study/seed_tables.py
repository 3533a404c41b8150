"""Tables of seed statistics, like those of "ResNet strikes back"."""

from big_crop.study import analysis, seed_statistics, statistics, tables
from big_crop.study.layout import SeedStatistics
from big_crop.study.results import Results
from big_crop.study.tables import Entry, Table


def table(s: SeedStatistics, results: Results) -> Table:
  """Mean, std, max, min of each metric, as the paper's Figure 1 and Table 9."""
  by = [s.by] if s.by else []
  seed = [] if s.chosen is None else [f"seed {s.chosen}"]
  rows, records = [], []
  for key in seed_statistics.keys(s, results):
    metric = results.metric(key)
    show = lambda x, m=metric: tables.optional(x, m.digits)
    for x in seed_statistics.samples(s, results, metric):
      cell, ends = x.cell, seed_statistics.std_interval(x.cell)
      values = x.values() if cell.n else [None]
      most = {"max": max(values), "min": min(values)}
      rows.append(
        [
          metric.label,
          *([x.level] if by else []),
          tables.number(cell.mean, metric.digits),
          show(cell.std),
          tables.interval(*ends, metric.digits, sign=""),
          *map(show, most.values()),
          *([show(x.chosen)] if seed else []),
          _count(cell),
        ]
      )
      records.append(
        {
          **x.setting,
          **metric.measured(cell),
          "std_low": ends[0],
          "std_high": ends[1],
          **most,
          "chosen_seed": s.chosen,
          "chosen": x.chosen,
          "p_normal": seed_statistics.normality(cell),
        }
      )
    if theirs := s.reference.get(key):
      names = ["mean", "std", None, "max", "min", *(["chosen"] if seed else [])]
      numbers = [show(theirs.get(k)) for k in names]
      start = [f"   {s.source}", *("" for _ in by)]
      rows.append([*start, *numbers, str(theirs["n"])])
  note = "std: sample standard deviation (n - 1), with its 95% interval"
  if not s.count_chosen:
    note += f"; seed {s.chosen} is not among the n seeds"
  return Table(
    name=tables.file_name("seeds", s.title),
    title=s.title,
    head=["", *by, "mean", "std", "95% of std", "max", "min", *seed, "n"],
    rows=rows,
    records=records,
    note=note,
  )


def _count(cell):
  if cell.n == cell.wanted:
    return str(cell.n)
  return Entry(f"{cell.n} of {cell.wanted}", mark="missing")


def differences(s: SeedStatistics, results: Results) -> Table | None:
  """The table of `compared`; None if there is nothing to compare."""
  found = seed_statistics.compared(s, results)
  if not found:
    return None
  holm = statistics.holm([c.p() for c in found])
  rows, records = [], []
  for c, p_holm in zip(found, holm, strict=True):
    d = c.difference
    rows.append(
      [
        c.metric.label,
        c.what,
        *analysis.difference(d, c.metric.digits),
        *map(tables.optional_p, (d.p, p_holm, d.paired_p)),
        tables.optional(c.std_ratio, 2),
        tables.optional_p(c.p_std),
      ]
    )
    tests = {"p_holm": p_holm, "std_ratio": c.std_ratio, "p_std": c.p_std}
    record = {"metric": c.metric.key, "what": c.what, **d._asdict()}
    records.append(record | tests)
  head = ["", "compared", "difference", "95% interval", "p", "p Holm"]
  return Table(
    name=tables.file_name("seeds", s.title, "differences"),
    title=f"{s.title}: differences",
    head=[*head, "p paired", "ratio of std", "p of std"],
    rows=rows,
    records=records,
    note="interval and p by Welch's t-test, two-sided, or, of metrics of the "
    "same runs, by the t-test of pairs; p Holm: corrected for this table; p "
    "paired: of equal seeds; p of std: Brown and Forsythe's test that the "
    "deviations are equal",
  )


def correlations(s: SeedStatistics, results: Results) -> Table | None:
  """The correlation of the metrics that are drawn against each other."""
  rows, records = [], []
  if not s.scatter:
    return None
  by = [s.by] if s.by else []
  metrics = list(map(results.metric, s.scatter))
  samples = (seed_statistics.samples(s, results, m) for m in metrics)
  for x, y in zip(*samples, strict=True):
    c = seed_statistics.correlation(x.cell, y.cell)
    if c is None:
      continue
    ends = tables.interval(c.low, c.high, 2)
    numbers = [f"{c.r:+.2f}", ends, tables.optional_p(c.p), str(c.n)]
    rows.append([*([x.level] if by else []), *numbers])
    records.append({**x.setting, **c._asdict()})
  if not rows:
    return None
  across, up = (m.label for m in metrics)
  return Table(
    name=tables.file_name("seeds", s.title, "correlation"),
    title=f"{s.title}: {up} against {across}",
    head=[*by, "Pearson's r", "95% interval", "p", "n"],
    rows=rows,
    records=records,
    note="interval by Fisher's transformation",
  )


TABLES = (table, differences, correlations)
