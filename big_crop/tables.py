"""Tables that read well as plain text and as Markdown.

So few lines are no reason to depend on tabulate.
"""

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """Aligned Markdown.

  Args:
    rows: the cells; the first row is the head.

  Returns:
    The table's lines, each ended.
  """
  widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
  lines = [
    "| " + " | ".join(c.ljust(n) for c, n in zip(r, widths, strict=True)) + " |"
    for r in rows
  ]
  rule = "|" + "|".join("-" * (n + 2) for n in widths) + "|"
  return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
