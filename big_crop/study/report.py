"""The report: tables, tests and figures of a study, of the paper, of both."""

import collections
import textwrap
from typing import NamedTuple

from big_crop.display import plots
from big_crop.display.tables import Table, file_name
from big_crop.runtime import outputs, stop, storage
from big_crop.study import (
  ablation,
  analysis,
  figures,
  grid,
  page,
  paper,
  random_search,
  reference,
  runs,
  seed_figures,
  seed_tables,
  selection,
)
from big_crop.study import layout as layouts
from big_crop.study import results as results_lib
from big_crop.study.layout import Layout
from big_crop.study.page import Picture, Section
from big_crop.study.results import Results
from pp_ops.errors import UserError


class Source(NamedTuple):
  """Results, and the layout in which they are shown."""

  results: Results
  layout: Layout

  def goals(self):
    """The metrics to show that have a better direction."""
    return [m for m in self.results.shown() if m.better]


def main(study: grid.Study | None, args) -> int:
  """Makes the report that the command line asks for; returns exit status 0.

  Raises:
    ValueError: in one line: nothing to report, or runs that may not be mixed.
  """
  out = args.out or (args.workdir and f"{args.workdir}/report")
  if out:
    outputs.check_folder(out, "--out")
  sources, warnings, states = [], [], []
  title = "You May Be Running the Wrong Inception Crop: the paper's numbers"
  layout, theirs = None, None
  if study:
    layout = layouts.of_config(study.config)
    metrics = results_lib.metrics_of(study.config)
    if study.config.reference:
      theirs = reference.results(study.config.reference, metrics)
    title = f"Study {study.path.stem}"
  if study and not args.workdir:
    if not (args.reference and theirs):
      raise UserError("--config needs --workdir, where the study's runs are")
    title += ": the paper's numbers"
  elif study:
    states = runs.states(study, args.workdir)
    warnings = runs.mixtures(states)
    if warnings and not args.allow_mixed:
      raise UserError(f"{warnings[0]}; --allow_mixed reports them all the same")
    found = results_lib.of_study(study, states)
    if not found.shown():
      raise UserError(
        f"no finished run of {study.path} has a metric of the study in "
        f"--workdir {args.workdir}: {_count(states)}"
      )
    found.theirs = theirs
    sources.append(Source(found, layout))
  # Ablation tables already show the paper's numbers beside ours. For families
  # and selections the paper is a source of its own.
  if theirs and (layout.families or layout.selections or not sources):
    sources.append(Source(theirs, layout))
  elif args.reference and not theirs:
    sources.append(Source(paper.load(), paper.layout_of_paper()))
  if not sources:
    raise UserError("give --config and --workdir, or --reference, or all three")
  if not out:
    raise UserError("give --out, the folder for the report")

  warnings = [f"Mixed: {w}." for w in warnings]
  sections = _sections(sources)
  if states:
    sections.append(_runs_section(states, sources[0].results.shown()))
  lines = [f"{_count(states)}."] if states else []
  text = page.render(title, lines, warnings, sections)
  out = storage.path(out)
  _write(out, text, sections)
  tables = [x for x in sections[0].items() if isinstance(x, Table)]
  print("\n".join(table.markdown() for table in tables))
  print(*lines, *warnings, sep="\n")
  print(f"report: {out / 'index.html'}")
  return 0


def _count(states):
  """`36 runs: 30 done, 2 failed, 4 missing`, and how many run, if any do."""
  count = collections.Counter(s.status() for s in states)
  running = f"{count[runs.RUNNING]} running, " if count[runs.RUNNING] else ""
  return (
    f"{len(states)} runs: {count[runs.DONE]} done, {count[runs.FAILED]} "
    f"failed, {running}{count[runs.PENDING]} missing"
  )


def _sections(sources):
  many = len(sources) > 1

  def named(source, item):
    if not many:
      return item
    name = file_name(source.results.title, item.name)
    title = f"[{source.results.title}] {item.title}"
    return item._replace(name=name, title=title)

  def rows(make):
    """Collects the (key, item) that `make(source)` yields for all sources.

    Items with the same key, from whichever source, form a row.
    """
    found = {}
    for source in sources:
      for key, item in make(source):
        if item:
          found.setdefault(key, []).append(named(source, item))
    # Tables come first in a row, so that those to be compared are adjacent.
    is_picture = lambda item: isinstance(item, Picture)
    return [sorted(row, key=is_picture) for row in found.values()]

  families = {
    name: family.label
    for source in reversed(sources)
    for name, family in source.layout.families.items()
  }
  made = [
    ("Best settings", _best),
    ("Budget and strength", _claims),
    ("Chosen by one metric, reported by another", _selections),
    ("Ablations", _ablations),
    ("Seed statistics", _seeds),
    *((label, lambda s, k=k: _family(s, k)) for k, label in families.items()),
    ("Comparisons", _comparisons),
    ("Strength as the 5th-percentile crop scale", _strength),
    ("Metrics against each other", _scatter),
    ("RandAugment", _randaug),
  ]
  sections = [Section(title, rows(make)) for title, make in made]
  return [s for s in sections if s.rows]


def _best(source):
  for m in source.goals() if source.layout.families else ():
    found = analysis.best_settings(source.layout, source.results, m)
    yield m.key, found if found.rows else None


def _claims(source):
  for m in source.goals():
    yield m.key, analysis.claim_one(source.layout, source.results, m)


# Items that are yielded with the same key are shown side by side.


def _family(source, name):
  family = source.layout.families.get(name)
  if family is None or not source.results.find(family.where):
    return
  for m in source.results.shown():
    figure = figures.family(family, source.results, m)
    yield m.key, analysis.means(family, source.results, m)
    yield m.key, _picture(m.label, figure, "family", name, m.key)


def _comparisons(source):
  for c in source.layout.comparisons:
    for m in source.results.shown():
      args = (c, source.layout, source.results, m)
      items = analysis.tests(*args)
      if items and c.b:
        name = items[1].name.replace("tests", "difference", 1)
        figure = figures.difference(*args)
        items.append(_picture(items[0].title, figure, name))
      for place, item in enumerate(items):
        yield (c.a, c.b, c.base is None, m.key, place), item


def _strength(source):
  for m in source.results.shown() if source.layout.strength else ():
    figure = figures.strength(source.layout, source.results, m)
    yield "figures", _picture(m.label, figure, "strength", m.key)


def _ablations(source):
  for a in source.layout.ablations:
    for m in source.results.shown():
      if a.metrics and m.key not in a.metrics:
        continue
      cells = [source.results.cell(a.setting(r), m) for r in a.rows]
      if not source.results.states and sum(c.n > 0 for c in cells) < 2:
        continue  # the paper has only the default, and so no ablation
      found = ablation.table(a, source.results, m)
      yield (a.title, m.key), found
      if figure := figures.ablation(a, source.results, m):
        picture = _picture(found.title, figure, found.name)
        yield (a.title, "figures"), picture


def _selections(source):
  for s in source.layout.selections:
    yield (s.title, s.report), selection.table(s, source.results)
    if s.cost and (made := random_search.make(s, source.results)):
      table, figure = made
      yield (s.title, "search"), table
      yield (s.title, "search"), _picture(table.title, figure, table.name)


def _seeds(source):
  for s in source.layout.seed_statistics if source.results.states else ():
    for make in seed_tables.TABLES:
      yield (s.title, make.__name__), make(s, source.results)
    for make in seed_figures.FIGURES:
      if figure := make(s, source.results):
        title = f"{s.title}: {make.__name__.replace('_', ' ')}"
        picture = _picture(title, figure, "seeds", s.title, make.__name__)
        yield (s.title, "figures"), picture


def _scatter(source):
  for c in source.layout.scatter:
    if figure := figures.scatter(c, source.results):
      picture = _picture(c.title, figure, "scatter", c.title, c.x, c.y)
      yield (c.title, c.x, c.y), picture
      yield (c.title, c.x, c.y), analysis.claim_three(c, source.results)


def _randaug(source):
  if source.results is paper.load():
    title = "Contrast, broken and right (Figure 14), computed here"
    yield "contrast", _picture(title, figures.contrast(), "contrast")


def _picture(title, figure, *name):
  return Picture(file_name(*name), title, plots.svg(figure))


def _runs_section(states, metrics):
  """The section on which runs the numbers include, and why not the others."""
  groups, records = {}, []
  for s in states:
    summary = s.summary or {}
    what = s.status()
    if what == runs.PENDING:
      what = "missing"
    elif what == runs.FAILED:
      what = f"failed: {s.failure['error']}"
    elif lacking := [m.key for m in metrics if summary and m.of(s) is None]:
      what = f"done, without a finite {', '.join(lacking)}"
    groups.setdefault(what, []).append(s.run.index)
    record = {"index": s.run.index, "name": s.run.name, "status": what}
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
    title="What became of the runs",
    head=["status", "runs", "index in `study list`"],
    rows=[[k, len(found), _ranges(found)] for k, found in groups.items()],
    records=records,
  )
  return Section("Runs", [[table]], text if begun else "")


def _ranges(numbers):
  """[1, 2, 3, 7] -> `1-3, 7`, wrapped to 60 characters a line."""
  found = []
  for n in numbers:
    if found and found[-1][1] == n - 1:
      found[-1][1] = n
    else:
      found.append([n, n])
  text = ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in found)
  return textwrap.fill(text, 60, break_on_hyphens=False)


def _write(out, text, sections):
  """Writes the page, and each table and figure as a file of its own."""
  # From here Ctrl-C waits, so that old and new files never mix.
  stop.hold()
  for folder in ("tables", "figures"):
    if (out / folder).exists():  # on gs:// an empty folder does not exist
      for old in (out / folder).iterdir():
        if old.suffix in (".svg", ".md", ".csv", ".tex"):
          old.unlink()
    (out / folder).mkdir(parents=True, exist_ok=True)
  (out / "index.html").write_text(text)
  kinds = {"md": Table.markdown, "csv": Table.csv, "tex": Table.latex}
  for item in (item for section in sections for item in section.items()):
    if isinstance(item, Picture):
      (out / "figures" / f"{item.name}.svg").write_text(item.svg)
      continue
    for suffix, render in kinds.items():
      (out / "tables" / f"{item.name}.{suffix}").write_text(render(item))
