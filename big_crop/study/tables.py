"""A table once, as Markdown, LaTeX, HTML; and its numbers in full as CSV.

These printers are shorter than calls of pandas' Styler, which bold cells and
marks would need, and which brings pandas, tabulate and Jinja2.
"""

import csv
import html
import io
import re
from typing import Any, NamedTuple

from big_crop import tables as plain_tables

# What an entry's mark says: the key of the page's shading.
MARKS = {
  "p1": "p < 0.05",
  "p2": "p < 0.01",
  "p3": "p < 0.001",
  "default": "the default",
  "missing": "missing: no finished run",
}
_NBSP = "\N{NO-BREAK SPACE}"


class Entry(NamedTuple):
  """A table's cell.

  Attributes:
    text: as it is shown; the page breaks its lines.
    bold: whether it stands out.
    mark: one of `MARKS`, or "".
  """

  text: str
  bold: bool = False
  mark: str = ""


class Table(NamedTuple):
  """A table.

  Attributes:
    name: of its files.
    title: above it.
    head: of the columns.
    rows: as long as the head, of entries or their plain text.
    records: the numbers in full precision, one dict for each line of the CSV,
      which leaves out keys that begin with "_".
    note: below it.
  """

  name: str
  title: str
  head: list[str]
  rows: list[list[Entry | str]]
  records: list[dict[str, Any]]
  note: str = ""

  def lines(self) -> list[list[Entry]]:
    """Head and rows as entries, without the columns that have nothing."""
    rows = [list(map(entry, row)) for row in self.rows]
    kept = [i for i in range(len(self.head)) if any(r[i].text for r in rows)]
    head = list(map(Entry, self.head))
    return [[line[i] for i in kept] for line in [head, *rows]]


def of_records(
  name: str,
  title: str,
  records: list[dict[str, Any]],
  columns: dict[str, str],
  note: str = "",
) -> Table:
  """A table with a row for each record.

  Args:
    name: see `Table`.
    title: see `Table`.
    records: see `Table`. `_digits` says how many decimals its numbers have.
    columns: {head: what it shows of a record}: "key", "low…high", or either
      after "+", which shows signs, or "!", which shows that there is no value;
      "key:2" has two decimals. Keys `p` and `p_...` are p-values.
    note: see `Table`.
  """
  rows = [[_cell(r, spec) for spec in columns.values()] for r in records]
  return Table(name, title, list(columns), rows, records, note)


def _cell(found, spec):
  """What a column of `of_records` shows of a record."""
  sign, must, key, high, digits = re.fullmatch(
    r"(\+?)(!?)(\w+)(?:…(\w+))?(?::(\d))?", spec
  ).groups()
  value = found.get(key)
  digits = int(digits or found.get("_digits", 2))
  if high:
    return interval(value, found.get(high), digits, sign)
  if key == "p" or key.startswith("p_"):
    return p_value(value)
  if isinstance(value, float) or (value is None and must):
    return number(value, digits, sign)
  if isinstance(value, Entry):
    return value
  return "" if value is None else str(value)


def entry(cell: Entry | str) -> Entry:
  """A cell of a row as an entry."""
  return cell if isinstance(cell, Entry) else Entry(cell)


def file_name(*parts: str) -> str:
  """A file's name out of any text."""
  text = "-".join(parts).replace("/", "_")
  return re.sub(r"[^\w.=-]+", "_", text).strip("_")


def number(value: float | None, digits: int, sign: str = "") -> Entry:
  """A number with so many decimals; `missing` for None.

  Args:
    value: the number.
    digits: decimals.
    sign: "+" for a difference, which shows its sign.
  """
  if value is None:
    return Entry("missing", mark="missing")
  return Entry(f"{value:{sign}.{digits}f}")


def interval(
  low: float | None, high: float | None, digits: int, sign: str = "+"
) -> str:
  """`-0.10 … +0.20`; nothing for None."""
  ends = (number(x, digits, sign).text for x in (low, high))
  return "" if low is None else f"{_NBSP}…{_NBSP}".join(ends)


def p_value(p: float | None) -> Entry:
  """A p-value with two digits, marked by its size; nothing for None."""
  if p is None:
    return Entry("")
  mark = "p3" if p < 1e-3 else "p2" if p < 1e-2 else "p1" if p < 0.05 else ""
  if p >= 0.01:
    return Entry(f"{p:#.2g}", mark=mark)
  power, exponent = f"{p:.1e}".split("e")
  return Entry(f"{power}e{int(exponent)}" if p else "0", mark=mark)


def markdown(table: Table) -> str:
  """The table with aligned columns."""
  show = lambda e: f"**{e.text}**" if e.bold and e.text else e.text
  rows = [
    [show(e).replace("|", "\\|").replace("\n", " ") for e in line]
    for line in table.lines()
  ]
  parts = [f"{table.title}\n", plain_tables.markdown(rows)]
  return "\n".join([*parts, f"{table.note}\n"] if table.note else parts)


def csv_text(table: Table) -> str:
  """The numbers behind the table, in full precision; empty where missing."""
  out = io.StringIO()
  keys = dict.fromkeys(k for r in table.records for k in r)
  fields = [k for k in keys if not k.startswith("_")]
  writer = csv.DictWriter(
    out, fields, extrasaction="ignore", lineterminator="\n"
  )
  writer.writeheader()
  writer.writerows(table.records)
  return out.getvalue()


_TEX = {
  "\\": r"\textbackslash{}",
  **{c: f"\\{c}" for c in "&%$#_{}"},
  "~": r"\textasciitilde{}",
  "^": r"\textasciicircum{}",
  "<": r"$<$",
  ">": r"$>$",
  "±": r"$\pm$",
  "→": r"$\to$",
  "…": r"\ldots{}",
  _NBSP: "~",
}


def _tex(text):
  return "".join(_TEX.get(c, c) for c in text)


def latex(table: Table) -> str:
  """A `table` environment; needs the package booktabs."""
  show = lambda e: rf"\textbf{{{_tex(e.text)}}}" if e.bold else _tex(e.text)
  head, *rows = (" & ".join(map(show, line)) + r" \\" for line in table.lines())
  rows = "\n".join(rows)
  return rf"""\begin{{table}}
\centering
\caption{{{_tex(f"{table.title}. {table.note}".strip())}}}
\begin{{tabular}}{{l{"r" * (len(table.lines()[0]) - 1)}}}
\toprule
{head}
\midrule
{rows}
\bottomrule
\end{{tabular}}
\end{{table}}
"""


def html_text(table: Table) -> str:
  """The table for the page."""

  def row(tag, line):
    cells = []
    for e in line:
      style = " ".join(filter(None, (e.mark, "best" if e.bold else "")))
      attribute = f' class="{style}"' if style else ""
      cells.append(f"<{tag}{attribute}>{html.escape(e.text)}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"

  head, *rows = table.lines()
  body = "\n".join(row("td", line) for line in rows)
  note = f"<p class=note>{html.escape(table.note)}</p>" if table.note else ""
  return (
    f"<figure class=table><figcaption>{html.escape(table.title)}</figcaption>"
    f"<div class=wide><table><thead>{row('th', head)}</thead>\n"
    f"<tbody>{body}</tbody></table></div>{note}</figure>"
  )
