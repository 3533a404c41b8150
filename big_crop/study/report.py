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
from pp_ops.errors import UserError


class Source(NamedTuple):
  """Results, and how they are shown."""

  results: Results
  layout: Layout

  def goals(self):
    """The metrics to show that can be better."""
    return [m for m in self.results.shown() if m.better]


def main(study: grid.Study | None, args) -> int:
  """Makes the report that the command line asks for; returns exit status 0.

  Raises:
    ValueError: in one line: nothing to report, or runs that may not be mixed.
  """
  sources, warnings, states = [], [], []
  title = "You May Be Running the Wrong Inception Crop: the paper's numbers"
  if study:
    if not args.workdir:
      raise UserError("--config needs --workdir, where the study's runs are")
    states = runs.states(study, args.workdir)
    warnings = runs.mixtures(states)
    if warnings and not args.allow_mixed:
      raise UserError(f"{warnings[0]}; --allow_mixed reports them all the same")
    layout = layouts.of_config(study.config)
    sources.append(Source(results_lib.of_study(study, states), layout))
    title = f"Study {study.path.stem}"
  if args.reference:
    sources.append(Source(paper.load(), paper.layout_of_paper()))
  if not sources:
    raise UserError("give --config and --workdir, or --reference, or all three")
  out = args.out or (args.workdir and pathlib.Path(args.workdir) / "report")
  if not out:
    raise UserError("give --out, the folder for the report")

  warnings = [f"Mixed: {w}." for w in warnings]
  sections = _sections(sources)
  if states:
    sections.append(_runs_section(states))
  text = page.render(title, _lines(states, sources), warnings, sections)
  _write(pathlib.Path(out), text, sections)
  for section in sections[:1]:
    for item in filter(lambda x: isinstance(x, Table), section.items()):
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
    Section("RandAugment", rows(_randaug)),
  ]
  return [s for s in sections if s.rows]


def _best(source):
  for m in source.goals() if source.layout.families else ():
    yield m.key, [analysis.best_settings(source.layout, source.results, m)]


def _claims(source):
  for m in source.goals():
    yield m.key, [analysis.claim_one(source.layout, source.results, m)]


# Items that are yielded with one key stand side by side.


def _family(source, name):
  family = source.layout.families.get(name)
  if family is None or not source.results.find(family.where):
    return
  metrics = source.results.shown()
  for m in metrics:
    yield m.key, [analysis.means(family, source.results, m)]
  for m in metrics:
    svg = figures.family(family, source.results, m)
    yield "figures", [_picture(m.label, svg, "family", name, m.key)]


def _comparisons(source):
  for c in source.layout.comparisons:
    for m in source.results.shown():
      args = (c, source.layout, source.results, m)
      items = analysis.tests(*args)
      if items and c.b:
        name = items[1].name.replace("tests", "difference", 1)
        svg = figures.difference(*args)
        items.append(Picture(name, items[0].title, svg))
      yield (c.a, c.b, c.base is None, m.key), items


def _strength(source):
  for m in source.results.shown() if source.layout.strength else ():
    svg = figures.strength(source.layout, source.results, m)
    yield m.key, [_picture(m.label, svg, "strength", m.key)]


def _ablations(source):
  for a in source.layout.ablations:
    pictures = []
    for m in source.results.shown():
      if a.metrics and m.key not in a.metrics:
        continue
      found = ablation.table(a, source.results, m)
      yield (a.title, m.key), [found]
      if svg := figures.ablation(a, source.results, m):
        pictures.append(Picture(found.name, found.title, svg))
    for picture in pictures:
      yield (a.title, "figures"), [picture]


def _seeds(source):
  for s in source.layout.seed_statistics:
    for make in seed_tables.TABLES:
      yield (s.title, make.__name__), [make(s, source.results)]
    for make in seed_figures.FIGURES:
      if svg := make(s, source.results):
        title = f"{s.title}: {make.__name__.replace('_', ' ')}"
        picture = _picture(title, svg, "seeds", s.title, make.__name__)
        yield (s.title, "figures"), [picture]


def _scatter(source):
  for c in source.layout.scatter:
    if svg := figures.scatter(c, source.results):
      picture = _picture(c.title, svg, "scatter", c.title, c.x, c.y)
      yield (c.title, c.x, c.y), [picture]
      yield (c.title, c.x, c.y), [analysis.claim_three(c, source.results)]


def _randaug(source):
  if source.results is paper.load():
    title = "Contrast, broken and right (Figure 14), computed here"
    yield "contrast", [_picture(title, figures.contrast(), "contrast")]


def _picture(title, svg, *name):
  return Picture(tables_lib.file_name(*name), title, svg)


def _runs_section(states):
  rows, records = [], []
  for s in states:
    summary, failure = s.summary, s.failure
    if not summary:
      what = f"failed: {failure['error']}" if failure else "missing"
      what = Entry(what, mark="missing")
      rows.append([s.run.name, str(s.run.index), what])
    record = {"index": s.run.index, "name": s.run.name, "done": bool(summary)}
    summary = summary or {}
    record["params_sha256"] = summary.get("params_sha256")
    records.append(record | summary.get("metrics", {}))
  begun = next((s.begun() for s in states if s.summary), None) or {}
  versions = ", ".join(f"{k} {v}" for k, v in begun.get("versions", {}).items())
  digests = ", ".join(
    f"{k} {begun[k][:12]}" for k in ("code", "data") if k in begun
  )
  text = f"Digests of the first finished run: {digests}; {versions}."
  table = Table(
    name="runs",
    title="Runs that are not in the numbers above",
    head=["run", "index", "what"],
    rows=rows or [["none", "", ""]],
    records=records,
  )
  return Section("Runs", [[table]], text if begun else "")


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
  for item in (item for section in sections for item in section.items()):
    if isinstance(item, Picture):
      (out / "figures" / f"{item.name}.svg").write_text(item.svg)
      continue
    for suffix, render in kinds.items():
      (out / "tables" / f"{item.name}.{suffix}").write_text(render(item))
