"""Tables of seed statistics, like those of "ResNet strikes back"."""

from big_crop.display import tables
from big_crop.display.tables import Entry, Table
from big_crop.study import analysis, seed_statistics, statistics
from big_crop.study.layout import SeedStatistics
from big_crop.study.results import Results


def table(s: SeedStatistics, results: Results) -> Table:
  """Mean, std, max, min of each metric, as the paper's Figure 1 and Table 9."""
  records = []
  for key in seed_statistics.keys(s, results):
    metric = results.metric(key)
    for x in seed_statistics.samples(s, results, metric):
      low, high = seed_statistics.std_interval(x.cell)
      values = x.cell.values.values()
      records.append(
        {
          "_label": metric.label,
          "_level": x.level,
          "_digits": metric.digits,
          **x.setting,
          **metric.measured(x.cell),
          "_n": _count(x.cell),
          "std_low": low,
          "std_high": high,
          "max": max(values, default=None),
          "min": min(values, default=None),
          "chosen_seed": s.chosen,
          "chosen": x.chosen,
          "p_normal": seed_statistics.normality(x.cell),
        }
      )
    if theirs := s.reference.get(key):
      shown = {"_label": f"   {s.source}", "_digits": metric.digits}
      records.append({**shown, **theirs, "_n": theirs["n"]})
  note = "std: sample standard deviation (n - 1), with its 95% interval"
  if not s.count_chosen:
    note += f"; seed {s.chosen} is not among the n seeds"
  found = tables.of_records(
    tables.file_name("seeds", s.title),
    s.title,
    records,
    {
      "": "_label",
      s.by: "_level",
      "mean": "!mean",
      "std": "std",
      "95% of std": "std_low…std_high",
      "max": "max",
      "min": "min",
      f"seed {s.chosen}": "chosen",
      "n": "_n",
    },
    note,
  )
  return found._replace(records=[r for r in records if "metric" in r])


def _count(cell):
  if cell.n == cell.wanted:
    return cell.n
  return Entry(f"{cell.n} of {cell.wanted}", mark="missing")


def differences(s: SeedStatistics, results: Results) -> Table | None:
  """Tests the levels of `by` against the first, and metrics against `base`.

  Different levels are different runs: they get Welch's test and a test on pairs
  of equal seeds. Different metrics are measured on the same runs, so they get
  the paired test only. None if there is nothing to compare.
  """
  records = []

  def add(metric, what, d, **more):
    shown = {"_label": metric.label, "metric": metric.key, "what": what}
    records.append({**shown, **analysis.record(d, metric), **more})

  for key in seed_statistics.keys(s, results):
    metric = results.metric(key)
    found = seed_statistics.samples(s, results, metric)
    for a, b in ((found[0], b) for b in found[1:]):
      d = statistics.welch(a.cell, b.cell)
      ratio, p = seed_statistics.spread(a.cell, b.cell)
      add(metric, f"{a.level} → {b.level}", d, std_ratio=ratio, p_std=p)
    if s.base and key != s.base:
      base = results.metric(s.base)
      before = seed_statistics.samples(s, results, base)
      for a, b in zip(before, found, strict=True):
        d = statistics.compare(a.cell, b.cell)._replace(p=None)
        add(metric, ", ".join(filter(None, (b.level, f"from {base.label}"))), d)
  if not records:
    return None
  p = [r["p_paired"] if r["p"] is None else r["p"] for r in records]
  for r, p_holm in zip(records, statistics.holm(p), strict=True):
    r["p_holm"] = p_holm
  return tables.of_records(
    tables.file_name("seeds", s.title, "differences"),
    f"{s.title}: differences",
    records,
    {
      "": "_label",
      "compared": "what",
      **analysis.TESTED_SHORT,
      "ratio of std": "std_ratio:2",
      "p of std": "p_std",
    },
    note="interval and p by Welch's t-test, two-sided, or, of metrics of the "
    "same runs, by the t-test of pairs; p Holm: corrected for this table; p "
    "paired: of equal seeds; p of std: Brown and Forsythe's test that the "
    "deviations are equal",
  )


def correlations(s: SeedStatistics, results: Results) -> Table | None:
  """The correlation of the two metrics of the scatter plot, by level."""
  if not s.scatter:
    return None
  metrics = list(map(results.metric, s.scatter))
  samples = (seed_statistics.samples(s, results, m) for m in metrics)
  records = [
    {"_level": x.level, **x.setting, **c._asdict()}
    for x, y in zip(*samples, strict=True)
    if (c := seed_statistics.correlation(x.cell, y.cell))
  ]
  if not records:
    return None
  across, up = (m.label for m in metrics)
  return tables.of_records(
    tables.file_name("seeds", s.title, "correlation"),
    f"{s.title}: {up} against {across}",
    records,
    {
      s.by: "_level",
      "Pearson's r": "+r",
      "95% interval": "+low…high",
      "p": "p",
      "n": "n",
    },
    note="interval by Fisher's transformation",
  )


TABLES = (table, differences, correlations)
