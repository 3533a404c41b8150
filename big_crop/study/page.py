"""Renders a report as one HTML file with every table and figure in it."""

import base64
import html
from typing import NamedTuple

from big_crop.display import tables
from big_crop.display.tables import Table

_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 1220px; margin: 0 auto; padding: 24px 28px 80px; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 44px 0 8px; border-bottom: 1px solid #ccc; }
nav { margin: 12px 0; } nav a { margin-right: 16px; color: #0b57a4; }
.side { display: flex; flex-wrap: wrap; gap: 10px 28px;
  align-items: flex-start; }
figure { margin: 10px 0; max-width: 100%; }
.wide { overflow-x: auto; }
figure img { display: block; max-width: 100%; height: auto; }
figure.plot figcaption { font-weight: 400; }
figcaption { font-weight: 600; margin-bottom: 4px; }
table { border-collapse: collapse; font-size: 13.5px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 3px 9px; text-align: right; vertical-align: top;
  border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 1.5px solid #777; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td { white-space: pre-line; }
td.best { font-weight: 700; }
.p1 { background: #fdf3d0; } .p2 { background: #fbdfae; }
.p3 { background: #f6bf94; } .default { background: #e3eefb; }
.missing { color: #a40000; font-style: italic; }
.key span { padding: 2px 8px; margin-right: 6px; }
p.note { color: #555; font-size: 13px; max-width: 900px; margin: 4px 0; }
.warning { border-left: 4px solid #a40000; padding: 6px 12px;
  background: #fdecec; margin: 10px 0; }
@media (max-width: 700px) {
  body { padding: 12px 12px 60px; }
  td { white-space: pre; }
  td:first-child { white-space: normal; min-width: 7em; }
  figure img { max-width: none; zoom: 0.7; }
}
"""


class Picture(NamedTuple):
  """A figure: its file name without suffix, its title, and the SVG's text."""

  name: str
  title: str
  svg: str


class Section(NamedTuple):
  """A part of the page.

  Attributes:
    title: its heading.
    rows: lists of tables and pictures; the items of a list are side by side.
    text: a paragraph under the heading.
  """

  title: str
  rows: list[list[Table | Picture]]
  text: str = ""

  def items(self) -> list[Table | Picture]:
    """All tables and pictures, in order."""
    return [item for row in self.rows for item in row]


def _item(item):
  if isinstance(item, Table):
    return item.html()
  # Embedded as an <img>, because the ids of inline SVGs would clash.
  data = base64.b64encode(item.svg.encode()).decode()
  title = html.escape(item.title)
  return (
    f"<figure class=plot><figcaption>{title}</figcaption><div class=wide>"
    f'<img alt="{title}" src="data:image/svg+xml;base64,{data}"></div></figure>'
  )


def _key(sections):
  """The key of the shadings that the tables use; "" if they use none."""
  tables_ = [t for s in sections for t in s.items() if isinstance(t, Table)]
  used = {e.mark for t in tables_ for line in t.lines() for e in line}
  found = [
    f"<span class={mark}>{html.escape(text)}</span>"
    for mark, text in tables.MARKS.items()
    if mark in used
  ]
  return f"<p class=key>Key: {''.join(found)}</p>" if found else ""


def render(
  title: str, lines: list[str], warnings: list[str], sections: list[Section]
) -> str:
  """Renders the page.

  Args:
    title: its heading.
    lines: paragraphs under the heading.
    warnings: shown below in red, before all numbers.
    sections: the rest.

  Returns:
    HTML that refers to no other file.
  """
  title = html.escape(title)
  parts = [
    "<!doctype html>",
    f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f'<link rel="icon" href="data:,"><style>{_CSS}</style></head><body>',
    f"<h1>{title}</h1>",
    *(f"<p>{html.escape(line)}</p>" for line in lines),
    *(f"<p class=warning>{html.escape(line)}</p>" for line in warnings),
    "<nav>",
    *(
      f'<a href="#s{i}">{html.escape(s.title)}</a>'
      for i, s in enumerate(sections)
    ),
    f"</nav>{_key(sections)}",
  ]
  for i, section in enumerate(sections):
    parts.append(f'<h2 id="s{i}">{html.escape(section.title)}</h2>')
    if section.text:
      parts.append(f"<p>{html.escape(section.text)}</p>")
    for row in section.rows:
      parts += ["<div class=side>", *map(_item, row), "</div>"]
  return "\n".join([*parts, "</body></html>", ""])
