"""Loads numbers that papers print, in the form of a study's results.

Each CSV of the folder `reference` has a row for each setting. Column `source`
is the paper's table. Columns of factors have the names and levels of our
configs; an empty entry means the default, or that the table does not say. The
measured values are in columns named by metrics (`val/top1`) or in columns
`metric`, `mean` and `std`. `n` is the number of runs. Numbers are as printed,
even where a paper contradicts itself; its page in docs/ says where.
"""

import ast
import csv
import importlib.resources
from collections.abc import Iterator
from typing import Any

from big_crop.study import grid
from big_crop.study.results import Metric, Results
from big_crop.study.statistics import Cell

TITLE = "the paper"
_OTHERS = ("source", "metric", "mean", "std", "n")


def rows(name: str) -> list[dict[str, str]]:
  """The rows of a CSV of the folder `reference`, as text."""
  place = importlib.resources.files(__package__) / "reference" / f"{name}.csv"
  with place.open(newline="") as file:
    return list(csv.DictReader(file))


def _level(text):
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def _factors(row):
  """{factor: level} of a row."""
  return {
    k: _level(v)
    for k, v in row.items()
    if v and k not in _OTHERS and "/" not in k
  }


def _values(row) -> Iterator[tuple[str, float, float | None]]:
  """(metric, mean, deviation) of a row."""
  if "metric" in row:
    std = row.get("std")
    yield row["metric"], float(row["mean"]), float(std) if std else None
  for key, value in row.items():
    if "/" in key and value:
      yield key, float(value), None


def results(names: list[str | dict], metrics: list[Metric]) -> Results:
  """Reads CSVs into one `Results`.

  Args:
    names: names of the CSVs. Instead of a name, a dict with `name` and `where`,
      {factor: level}, takes only the rows with these levels; the factors of
      `where` are then dropped, because the study does not have them.
    metrics: the metrics of the study.
  """
  settings, cells = {}, {}
  for row, where in (
    (row, of.get("where", {}))
    for of in (dict(name=n) if isinstance(n, str) else n for n in names)
    for row in rows(of["name"])
  ):
    factors = _factors(row)
    if any(factors.pop(k, None) != v for k, v in where.items()):
      continue
    key = grid.key_of(factors)
    settings[key] = factors
    n = int(row.get("n") or 1)
    for metric, mean, std in _values(row):
      cells[key, metric] = Cell(mean, std, n, n, {})
  return Results(TITLE, list(settings.values()), metrics, cells)


def ablations(
  name: str,
  defaults: dict[str, dict[str, Any]],
  titles: dict[str, str],
  where: dict[str, Any] | None = None,
  metrics: list[str] | None = None,
) -> list[dict]:
  """A CSV's tables as ablations, as `default_study().ablations` takes them.

  Args:
    name: name of the CSV. In a row, a factor without entry has its default.
    defaults: {source: {factor that the table varies: its default}}.
    titles: {source: the ablation's title}.
    where: {factor: level}; only rows with these levels are taken.
    metrics: keys of the metrics to show; by default those that the CSV has for
      a table.

  Returns:
    A list with one ablation for each source.
  """
  where = where or {}
  found = {}
  for row in rows(name):
    changes = _factors(row)
    if any(changes.pop(k) != v for k, v in where.items()):
      continue
    table = found.setdefault(row["source"], ([], {}))
    if changes not in table[0]:  # a table may list the default several times
      table[0].append(changes)
    table[1].update(dict.fromkeys(key for key, *_ in _values(row)))
  return [
    dict(
      title=titles[source],
      default=defaults[source],
      rows=changes,
      where=where,
      metrics=metrics or list(measured),
    )
    for source, (changes, measured) in found.items()
  ]
