"""Tables of seed statistics, like those of "ResNet strikes back"."""

from big_crop.study import seed_statistics, statistics
from big_crop.study.layout import SeedStatistics
from big_crop.study.results import Results
from big_crop.study.tables import (
  Entry,
  Table,
  file_name,
  interval,
  number,
  optional_p,
  signed,
)


def table(s: SeedStatistics, results: Results) -> Table:
  """Mean, std, max, min of each metric, as the paper's Figure 1 and Table 9."""
  rows, records = [], []
  for key in seed_statistics.keys(s, results):
    metric = results.metric(key)
    show = lambda x, m=metric: "" if x is None else number(x, m.digits)
    for x in seed_statistics.samples(s, results, metric):
      cell, ends = x.cell, seed_statistics.std_interval(x.cell)
      values = x.values() if cell.n else [None]
      most = {"max": max(values), "min": min(values)}
      missing = "missing" if cell.mean is None else ""
      first = [Entry(metric.label), *([Entry(x.level)] if s.by else [])]
      rows.append(
        [
          *first,
          Entry(number(cell.mean, metric.digits), mark=missing),
          Entry(show(cell.std)),
          Entry("" if cell.std is None else " … ".join(map(show, ends))),
          *(Entry(show(v)) for v in most.values()),
          *([Entry(show(x.chosen))] if s.chosen is not None else []),
          _count(cell),
        ]
      )
      records.append(
        {
          **x.setting,
          "metric": key,
          "mean": cell.mean,
          "std": cell.std,
          "std_low": ends[0],
          "std_high": ends[1],
          **most,
          "chosen_seed": s.chosen,
          "chosen": x.chosen,
          "n": cell.n,
          "p_normal": seed_statistics.normality(cell),
        }
      )
    if theirs := s.reference.get(key):
      rows.append(_reference_row(s, theirs, show))
  seed = [f"seed {s.chosen}"] if s.chosen is not None else []
  note = "std: sample standard deviation (n - 1), with its 95% interval"
  if not s.count_chosen:
    note += f"; seed {s.chosen} is not among the n seeds"
  return Table(
    name=file_name("seeds", s.title),
    title=s.title,
    head=[
      "",
      *([s.by] if s.by else []),
      *("mean", "std", "95% of std", "max", "min"),
      *seed,
      "n",
    ],
    rows=rows,
    records=records,
    note=note,
  )


def _count(cell):
  if cell.n == cell.wanted:
    return Entry(str(cell.n))
  return Entry(f"{cell.n} of {cell.wanted}", mark="missing")


def _reference_row(s, theirs, show):
  keys = ["mean", "std", None, "max", "min"]
  keys += ["chosen"] if s.chosen is not None else []
  return [
    Entry(f"   {s.source}"),
    *([Entry("")] if s.by else []),
    *(Entry(show(theirs.get(k))) for k in keys),
    Entry(str(theirs["n"])),
  ]


def differences(s: SeedStatistics, results: Results) -> Table | None:
  """The table of `compared`; None if there is nothing to compare."""
  found = seed_statistics.compared(s, results)
  if not found:
    return None
  holm = statistics.holm([c.p() for c in found])
  rows, records = [], []
  for c, p_holm in zip(found, holm, strict=True):
    d, digits = c.difference, c.metric.digits
    rows.append(
      [
        Entry(c.metric.label),
        Entry(c.what),
        Entry(signed(d.mean, digits), mark="missing" if d.mean is None else ""),
        Entry(interval(d.low, d.high, digits)),
        *(optional_p(p) for p in (d.p, p_holm, d.paired_p)),
        Entry("" if c.std_ratio is None else f"{c.std_ratio:.2f}"),
        optional_p(c.p_std),
      ]
    )
    records.append(
      {
        "metric": c.metric.key,
        "what": c.what,
        **d._asdict(),
        "p_holm": p_holm,
        "std_ratio": c.std_ratio,
        "p_std": c.p_std,
      }
    )
  head = ["", "compared", "difference", "95% interval", "p", "p Holm"]
  return Table(
    name=file_name("seeds", s.title, "differences"),
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
  across, up = map(results.metric, s.scatter)
  for x, y in zip(
    seed_statistics.samples(s, results, across),
    seed_statistics.samples(s, results, up),
    strict=True,
  ):
    c = seed_statistics.correlation(x.cell, y.cell)
    if c is None:
      continue
    rows.append(
      [
        *([Entry(x.level)] if s.by else []),
        Entry(f"{c.r:+.2f}"),
        Entry(interval(c.low, c.high, 2)),
        optional_p(c.p),
        Entry(str(c.n)),
      ]
    )
    records.append({**x.setting, **c._asdict()})
  if not rows:
    return None
  return Table(
    name=file_name("seeds", s.title, "correlation"),
    title=f"{s.title}: {up.label} against {across.label}",
    head=[*([s.by] if s.by else []), "Pearson's r", "95% interval", "p", "n"],
    rows=rows,
    records=records,
    note="interval by Fisher's transformation",
  )


TABLES = (table, differences, correlations)
