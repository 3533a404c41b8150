"""The report: tables, tests and figures of a study, of the paper, of both."""

import pathlib
from typing import NamedTuple

from big_crop.study import (
  ablation,
  analysis,
  figures,
  grid,
  page,
  paper,
  runs,
  seed_figures,
  seed_tables,
)
from big_crop.study import layout as layouts
from big_crop.study import results as results_lib
from big_crop.study import tables as tables_lib
from big_crop.study.layout import Layout
from big_crop.study.page import Picture, Section
from big_crop.study.results import Results
from big_crop.study.tables import Entry, Table


class Source(NamedTuple):
  """Results, and how they are shown."""

  results: Results
  layout: Layout

  def metrics(self):
    """The metrics of which there is anything, or all if there is nothing."""
    every = self.results.metrics
    return [m for m in every if self.results.has(m)] or every

  def goals(self):
    """Those of them that can be better."""
    return [m for m in self.metrics() if m.better]


def main(study: grid.Study | None, args) -> int:
  """Makes the report that the command line asks for; returns exit status 0.

  Raises:
    ValueError: in one line: nothing to report, or runs that may not be mixed.
  """
  sources, warnings, states = [], [], []
  title = "You May Be Running the Wrong Inception Crop: the paper's numbers"
  if study:
    if not args.workdir:
      raise ValueError("--config needs --workdir, where the study's runs are")
    states = runs.states(study, args.workdir)
    warnings = runs.mixtures(states)
    if warnings and not args.allow_mixed:
      raise ValueError(
        f"{warnings[0]}; --allow_mixed reports them all the same"
      )
    layout = layouts.of_config(study.config)
    sources.append(Source(results_lib.of_study(study, states), layout))
    title = f"Study {study.path.stem}"
  if args.reference:
    sources.append(Source(paper.load(), paper.layout_of_paper()))
  if not sources:
    raise ValueError(
      "give --config and --workdir, or --reference, or all three"
    )
  out = args.out or (args.workdir and pathlib.Path(args.workdir) / "report")
  if not out:
    raise ValueError("give --out, the folder for the report")

  warnings = [f"Mixed: {w}." for w in warnings]
  sections = _sections(sources)
  if states:
    sections.append(_runs_section(states))
  text = page.render(title, _lines(states, sources), warnings, sections)
  _write(pathlib.Path(out), text, sections)
  for section in sections[:1]:
    for item in (item for row in section.rows for item in row):
      if isinstance(item, Table):
        print(tables_lib.markdown(item))
  for line in [*_lines(states, sources), *warnings]:
    print(line)
  print(f"report: {pathlib.Path(out) / 'index.html'}")
  return 0


def _lines(states, sources):
  lines = []
  if states:
    done = sum(bool(s.summary) for s in states)
    failed = sum(bool(s.failure) and not s.summary for s in states)
    lines.append(
      f"{len(states)} runs: {done} done, {failed} failed, "
      f"{len(states) - done - failed} missing."
    )
  if any(s.results is paper.load() for s in sources):
    factor, count = paper.worst_factor()
    lines.append(
      f"Of the {count} p-values of the paper's Tables 9-14, recomputed from "
      f"its Tables 5-8, none is off by more than a factor of {factor:.2f}."
    )
  return lines


def _sections(sources):
  many = len(sources) > 1

  def named(source, item):
    if not many:
      return item
    name = tables_lib.file_name(source.results.title, item.name)
    title = f"[{source.results.title}] {item.title}"
    return item._replace(name=name, title=title)

  def rows(make):
    """Rows of what `make(source)` yields as (key, items), equal keys beside."""
    found = {}
    for source in sources:
      for k, items in make(source):
        for place, item in enumerate(filter(None, items)):
          found.setdefault((k, place), []).append(named(source, item))
    return list(found.values())

  sections = [
    Section("Best settings", rows(_best)),
    Section("Budget and strength", rows(_claims)),
    Section("Ablations", rows(_ablations)),
    Section("Seed statistics", rows(_seeds)),
  ]
  families = {
    name: family
    for source in reversed(sources)
    for name, family in source.layout.families.items()
  }
  for name, family in families.items():
    sections.append(
      Section(family.label, rows(lambda s, name=name: _family(s, name)))
    )
  sections += [
    Section("Comparisons", rows(_comparisons)),
    Section("Strength as the 5th-percentile crop scale", rows(_strength)),
    Section("Metrics against each other", rows(_scatter)),
  ]
  return [s for s in sections if s.rows]


def _best(source):
  for m in source.goals() if source.layout.families else ():
    yield m.key, [analysis.best_settings(source.layout, source.results, m)]


def _claims(source):
  for m in source.goals():
    yield m.key, [analysis.claim_one(source.layout, source.results, m)]


def _family(source, name):
  family = source.layout.families.get(name)
  if family is None or not source.results.find(family.where):
    return
  args = (family, source.layout, source.results)
  for m in source.metrics():
    yield m.key, [analysis.means(*args, m)]
  for m in source.metrics():
    file = tables_lib.file_name("family", name, m.key)
    # One key: the figures of all metrics stand side by side.
    yield "figures", [Picture(file, m.label, figures.family(*args, m))]


def _comparisons(source):
  for c in source.layout.comparisons:
    for m in source.metrics():
      args = (c, source.layout, source.results, m)
      found = analysis.tests(*args)
      items = list(found)
      if found and c.b:
        name = found[1].name.replace("tests", "difference", 1)
        items.append(Picture(name, found[0].title, figures.difference(*args)))
      yield (c.a, c.b, c.base is None, m.key), items


def _strength(source):
  if not source.layout.strength:
    return
  for m in source.metrics():
    svg = figures.strength(source.layout, source.results, m)
    yield (
      m.key,
      [Picture(tables_lib.file_name("strength", m.key), m.label, svg)],
    )


def _ablations(source):
  for a in source.layout.ablations:
    pictures = []
    for m in source.metrics():
      if a.metrics and m.key not in a.metrics:
        continue
      args = (a, source.results, m)
      found = ablation.table(*args)
      yield (a.title, m.key), [found]
      if ablation.has_differences(*args):
        svg = figures.ablation(*args)
        pictures.append(Picture(found.name, found.title, svg))
    for picture in pictures:  # with one key: side by side
      yield (a.title, "figures"), [picture]


def _seeds(source):
  for s in source.layout.seed_statistics:
    args = (s, source.results)
    for make in seed_tables.TABLES:
      yield (s.title, make.__name__), [make(*args)]
    for make in seed_figures.FIGURES:
      svg = make(*args)
      if svg:  # with one key: side by side
        name = tables_lib.file_name("seeds", s.title, make.__name__)
        title = f"{s.title}: {make.__name__.replace('_', ' ')}"
        yield (s.title, "figures"), [Picture(name, title, svg)]


def _scatter(source):
  for c in source.layout.scatter:
    svg = figures.scatter(c, source.layout, source.results)
    if svg:
      name = tables_lib.file_name("scatter", c.title, c.x, c.y)
      yield (c.title, c.x, c.y), [Picture(name, c.title, svg)]


def _runs_section(states):
  rows, records = [], []
  for s in states:
    if s.summary:
      continue
    failure = s.failure
    what = f"failed: {failure['error']}" if failure else "missing"
    rows.append(
      [
        Entry(s.run.name),
        Entry(str(s.run.index)),
        Entry(what, mark="missing"),
      ]
    )
  for s in states:
    summary = s.summary or {}
    records.append(
      {
        "index": s.run.index,
        "name": s.run.name,
        "done": bool(s.summary),
        "params_sha256": summary.get("params_sha256"),
        **summary.get("metrics", {}),
      }
    )
  begun = next((s.begun() for s in states if s.summary), None) or {}
  versions = ", ".join(f"{k} {v}" for k, v in begun.get("versions", {}).items())
  digests = ", ".join(
    f"{k} {begun[k][:12]}" for k in ("code", "data") if k in begun
  )
  return Section(
    "Runs",
    [
      [
        Table(
          name="runs",
          title="Runs that are not in the numbers above",
          head=["run", "index", "what"],
          rows=rows or [[Entry("none"), Entry(""), Entry("")]],
          records=records,
        )
      ]
    ],
    text=f"Digests of the first finished run: {digests}; {versions}."
    if begun
    else "",
  )


def _write(out, text, sections):
  """Writes the page, and each table and figure as files of their own."""
  for folder in ("tables", "figures"):
    (out / folder).mkdir(parents=True, exist_ok=True)
    for old in (out / folder).iterdir():
      old.unlink()
  (out / "index.html").write_text(text)
  kinds = {
    "md": tables_lib.markdown,
    "csv": tables_lib.csv_text,
    "tex": tables_lib.latex,
  }
  for section in sections:
    for item in (item for row in section.rows for item in row):
      if isinstance(item, Picture):
        (out / "figures" / f"{item.name}.svg").write_text(item.svg)
        continue
      for suffix, render in kinds.items():
        path = out / "tables" / f"{item.name}.{suffix}"
        path.write_text(render(item))
