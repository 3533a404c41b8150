"""Tables: plain rows as Markdown; reports also as HTML, LaTeX and CSV.

These printers are our own because they are shorter than calls of tabulate. Bold
cells and marks would need pandas' Styler, and so pandas, tabulate and Jinja2.
"""

import csv
import html
import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

# {mark of an entry: what it means}, which also explains the shading of a page.
MARKS = {
  "p1": "p < 0.05",
  "p2": "p < 0.01",
  "p3": "p < 0.001",
  "default": "the default",
  "missing": "missing: no finished run",
}
_NBSP = "\N{NO-BREAK SPACE}"
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


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """Aligned Markdown, which reads well as plain text, too.

  The first row is the head. The text ends with a newline.
  """
  widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
  lines = [
    "| " + " | ".join(c.ljust(n) for c, n in zip(r, widths, strict=True)) + " |"
    for r in rows
  ]
  rule = "|" + "|".join("-" * (n + 2) for n in widths) + "|"
  return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


class Entry(NamedTuple):
  """A table's cell.

  Attributes:
    text: the text; its line breaks are shown in HTML only.
    bold: whether it is shown in bold.
    mark: one of `MARKS`, or "".
  """

  text: str
  bold: bool = False
  mark: str = ""


def entry(cell: Any) -> Entry:
  """A cell of a row as an entry; None becomes an empty one."""
  text = "" if cell is None else str(cell)
  return cell if isinstance(cell, Entry) else Entry(text)


def number(value: float | None, digits: int, sign: str = "") -> Entry:
  """A number with `digits` decimals, or "missing" for None.

  With sign "+", positive numbers have a sign, too.
  """
  if value is None:
    return Entry("missing", mark="missing")
  return Entry(f"{value:{sign}.{digits}f}")


def p_value(p: float | None) -> Entry:
  """A p-value with two digits, marked by its size; empty for None."""
  if p is None:
    return Entry("")
  mark = "p3" if p < 1e-3 else "p2" if p < 1e-2 else "p1" if p < 0.05 else ""
  if p >= 0.01:
    return Entry(f"{p:#.2g}", mark=mark)
  power, exponent = f"{p:.1e}".split("e")
  return Entry(f"{power}e{int(exponent)}" if p else "0", mark=mark)


class Table(NamedTuple):
  """A table of a report.

  Attributes:
    name: name of the table's files, without suffix.
    title: text above the table.
    head: titles of the columns.
    rows: lists as long as `head`, of `Entry` or what `entry` takes.
    records: the numbers in full precision, one dict for each line of the CSV,
      which leaves out keys that begin with "_".
    note: text below the table.
  """

  name: str
  title: str
  head: list[str]
  rows: list[list[Any]]
  records: list[dict[str, Any]]
  note: str = ""

  def lines(self) -> list[list[Entry]]:
    """Head and rows as entries, without columns that are empty."""
    rows = [list(map(entry, row)) for row in self.rows]
    kept = [i for i in range(len(self.head)) if any(r[i].text for r in rows)]
    head = list(map(Entry, self.head))
    return [[line[i] for i in kept] for line in [head, *rows]]

  def markdown(self) -> str:
    """Title, aligned Markdown, and note."""
    show = lambda e: f"**{e.text}**" if e.bold and e.text else e.text
    clean = lambda text: text.replace("|", "\\|").replace("\n", " ")
    rows = [[clean(show(e)) for e in line] for line in self.lines()]
    note = f"\n{self.note}\n" if self.note else ""
    return f"{self.title}\n\n{markdown(rows)}{note}"

  def csv(self) -> str:
    """`records` as CSV text; missing values are empty."""
    out = io.StringIO()
    keys = dict.fromkeys(k for r in self.records for k in r if k[0] != "_")
    writer = csv.DictWriter(
      out, keys, extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(self.records)
    return out.getvalue()

  def latex(self) -> str:
    """A `table` environment; needs the package booktabs."""
    tex = lambda text: "".join(_TEX.get(c, c) for c in text)
    show = lambda e: rf"\textbf{{{tex(e.text)}}}" if e.bold else tex(e.text)
    lines = [" & ".join(map(show, line)) + r" \\" for line in self.lines()]
    rows = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:]])
    return rf"""\begin{{table}}
\centering
\caption{{{tex(f"{self.title}. {self.note}".strip())}}}
\begin{{tabular}}{{l{"r" * (len(self.lines()[0]) - 1)}}}
{rows}
\bottomrule
\end{{tabular}}
\end{{table}}
"""

  def html(self) -> str:
    """A `figure` element; a cell's class is its mark, and "best" if bold."""

    def row(tag, line):
      cells = []
      for e in line:
        style = " ".join(filter(None, (e.mark, "best" if e.bold else "")))
        attribute = f' class="{style}"' if style else ""
        cells.append(f"<{tag}{attribute}>{html.escape(e.text)}</{tag}>")
      return f"<tr>{''.join(cells)}</tr>"

    head, *rows = self.lines()
    body = "\n".join(row("td", line) for line in rows)
    note = f"<p class=note>{html.escape(self.note)}</p>" if self.note else ""
    return (
      f"<figure class=table><figcaption>{html.escape(self.title)}</figcaption>"
      f"<div class=wide><table><thead>{row('th', head)}</thead>\n"
      f"<tbody>{body}</tbody></table></div>{note}</figure>"
    )


def of_records(
  name: str,
  title: str,
  records: list[dict[str, Any]],
  columns: dict[str, str],
  note: str = "",
) -> Table:
  """A table with a row for each record; for most arguments see `Table`.

  A record's `_digits` says how many decimals its numbers have. `columns` is
  {head: what the column shows of a record}: "key", or "low…high" for a range of
  two keys. A prefix "+" shows signs; a prefix "!" shows "missing" where there
  is no value; a suffix ":2" gives two decimals. Keys `p` and `p_...` are
  p-values.
  """
  rows = [[_cell(r, spec) for spec in columns.values()] for r in records]
  return Table(name, title, list(columns), rows, records, note)


def _cell(found, spec):
  """What a column of `of_records` shows of a record."""
  sign, must, key, high, digits = re.fullmatch(
    r"(\+?)(!?)([\w.]+)(?:…(\w+))?(?::(\d))?", spec
  ).groups()
  value = found.get(key)
  digits = int(digits or found.get("_digits", 2))
  if high and value is not None:
    ends = (number(found[k], digits, sign).text for k in (key, high))
    return f"{_NBSP}…{_NBSP}".join(ends)
  if re.match("p(_|$)", key):
    return p_value(value)
  if isinstance(value, float) or (value is None and must):
    return number(value, digits, sign)
  return value


def file_name(*parts: str) -> str:
  """Makes a file name of any text."""
  text = "-".join(parts).replace("/", "_")
  return re.sub(r"[^\w.=-]+", "_", text).strip("_")
