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


class Entry(NamedTuple):
  """A table's cell.

  Attributes:
    text: as it is shown.
    bold: whether it stands out.
    mark: CSS class: a p-value's "p1", "p2" or "p3", "missing", or "".
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
    records: the numbers in full precision, one dict for each line of the CSV.
    note: below it.
  """

  name: str
  title: str
  head: list[str]
  rows: list[list[Entry | str]]
  records: list[dict[str, Any]]
  note: str = ""

  def entries(self) -> list[list[Entry]]:
    """The rows, as entries alone."""
    return [list(map(entry, row)) for row in self.rows]


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


def optional(value: float | None, digits: int, sign: str = "") -> Entry:
  """As `number`, but nothing where there can be none."""
  return Entry("") if value is None else number(value, digits, sign)


def interval(
  low: float | None, high: float | None, digits: int, sign: str = "+"
) -> str:
  """`-0.10 … +0.20`; nothing for None."""
  ends = (number(x, digits, sign).text for x in (low, high))
  return "" if low is None else " … ".join(ends)


def optional_p(p: float | None) -> Entry:
  """A p-value, or nothing where there can be none."""
  return Entry("") if p is None else p_value(p)


def p_value(p: float | None) -> Entry:
  """A p-value with two digits, marked by its size as in the paper."""
  if p is None:
    return number(p, 0)
  mark = "p3" if p < 1e-3 else "p2" if p < 1e-2 else "p1" if p < 0.05 else ""
  if p >= 0.01:
    return Entry(f"{p:.2g}", mark=mark)
  power, exponent = f"{p:.1e}".split("e")
  return Entry(f"{power}e{int(exponent)}" if p else "0", mark=mark)


def markdown(table: Table) -> str:
  """The table with aligned columns."""
  show = lambda e: f"**{e.text}**" if e.bold and e.text else e.text
  rows = [table.head, *([show(e) for e in row] for row in table.entries())]
  rows = [[text.replace("|", "\\|") for text in row] for row in rows]
  parts = [f"{table.title}\n", plain_tables.markdown(rows)]
  return "\n".join([*parts, f"{table.note}\n"] if table.note else parts)


def csv_text(table: Table) -> str:
  """The numbers behind the table, in full precision; empty where missing."""
  out = io.StringIO()
  fields = list(dict.fromkeys(k for r in table.records for k in r))
  writer = csv.DictWriter(out, fields, lineterminator="\n")
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
}


def _tex(text):
  return "".join(_TEX.get(c, c) for c in text)


def latex(table: Table) -> str:
  """A `table` environment; needs the package booktabs."""
  show = lambda e: rf"\textbf{{{_tex(e.text)}}}" if e.bold else _tex(e.text)
  rows = [" & ".join(map(_tex, table.head)) + r" \\", r"\midrule"]
  rows += [" & ".join(map(show, row)) + r" \\" for row in table.entries()]
  caption = _tex(f"{table.title}. {table.note}".strip())
  return "\n".join(
    [
      r"\begin{table}",
      r"\centering",
      rf"\caption{{{caption}}}",
      rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
      r"\toprule",
      *rows,
      r"\bottomrule",
      r"\end{tabular}",
      r"\end{table}",
      "",
    ]
  )


def html_text(table: Table) -> str:
  """The table for the page."""

  def entry(tag, e):
    style = " ".join(filter(None, (e.mark, "best" if e.bold else "")))
    attribute = f' class="{style}"' if style else ""
    return f"<{tag}{attribute}>{html.escape(e.text)}</{tag}>"

  head = "".join(f"<th>{html.escape(t)}</th>" for t in table.head)
  body = "\n".join(
    "<tr>" + "".join(entry("td", e) for e in row) + "</tr>"
    for row in table.entries()
  )
  note = f"<p class=note>{html.escape(table.note)}</p>" if table.note else ""
  return (
    f"<figure class=table><figcaption>{html.escape(table.title)}</figcaption>"
    f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    f"{note}</figure>"
  )
