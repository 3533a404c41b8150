"""Numbers that papers print, laid out as a study's results are.

Each CSV of the folder `reference` has a row for each setting: `source`, the
table that it is from; the factors, by the names and levels of our configs,
empty where the table does not say; and what was measured, either in columns
that are named by metrics (`val/top1`) or as `metric`, `mean`, `std`. `n` is the
number of runs. Numbers are as printed, also where the paper is at odds with
itself, which docs/ says.
"""

import ast
import csv
import dataclasses
import importlib.resources
from collections.abc import Iterator
from typing import Any

from big_crop.study import grid
from big_crop.study import layout as layouts
from big_crop.study import results as results_lib
from big_crop.study.layout import Layout
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


def results(names: list[str], metrics: list[Metric]) -> Results:
  """The results of CSVs, as far as a study has their metrics."""
  settings, cells = {}, {}
  for row in (row for name in names for row in rows(name)):
    factors = _factors(row)
    key = grid.key_of(factors)
    settings[key] = factors
    n = int(row.get("n") or 1)
    for metric, mean, std in _values(row):
      cells[key, metric] = Cell(mean, std, n, n, {})
  return Results(TITLE, list(settings.values()), metrics, cells)


def of_study(config) -> tuple[Results, Layout] | None:
  """What a paper measured of a study's settings; None if the study has none.

  Args:
    config: of the study, which names CSVs in `reference`, or has numbers in its
      ablations' `reference`.

  Returns:
    The results, and how the study shows them.
  """
  layout = layouts.of_config(config)
  found = results(config.reference, results_lib.metrics_of(config))
  for a in layout.ablations:
    for key, numbers in a.reference.items():
      for changes, mean in zip(a.rows, numbers, strict=True):
        if mean is not None:
          setting = a.setting(changes)
          found.settings.append(setting)
          found.cells[grid.key_of(setting), key] = Cell(mean, None, 1, 1, {})
  ours = [
    dataclasses.replace(a, reference={})
    for a in layout.ablations
    if a.reference
  ]
  shown = dataclasses.replace(layout, ablations=ours, seed_statistics=[])
  return (found, shown) if found.cells else None


def ablations(
  name: str,
  defaults: dict[str, dict[str, Any]],
  titles: dict[str, str],
  where: dict[str, Any] | None = None,
  **more,
) -> list[dict]:
  """A CSV's tables as ablations, as `default_study().ablations` takes them.

  Args:
    name: of the CSV.
    defaults: {source: {factor that the table varies: its default}}.
    titles: {source: the ablation's title}.
    where: {factor: level} of the rows that are wanted, and of the ablations.
    **more: other keys of all ablations; `metrics` are by default those that the
      CSV has of a table.

  Returns:
    One for each source. A factor that a row does not name is the default.
  """
  where = where or {}
  tables = {}
  for row in rows(name):
    factors = _factors(row)
    if any(factors.pop(k) != v for k, v in where.items()):
      continue
    default = defaults[row["source"]]
    changes = {k: v for k, v in factors.items() if v != default[k]}
    table = tables.setdefault(row["source"], {})
    # A table may have its default in several of its parts.
    means = {key: mean for key, mean, _ in _values(row)}
    table.setdefault(grid.key_of(changes), (changes, means))
  out = []
  for source, table in tables.items():
    changes, means = zip(*table.values(), strict=True)
    keys = dict.fromkeys(k for m in means for k in m)
    out.append(
      dict(
        title=titles[source],
        default=defaults[source],
        rows=list(changes),
        where=where,
        reference={k: [m.get(k) for m in means] for k in keys},
        **{"metrics": list(keys)} | more,
      )
    )
  return out
