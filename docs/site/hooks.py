"""What the site needs beside docs/: the pages at the top of the repository."""

import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
TOP = {
  "README.md": "index.md",
  "CONTRIBUTING.md": "contributing.md",
  "CHANGELOG.md": "changelog.md",
}


def on_files(files, config):
  """Adds the pages that lie above docs/."""
  for name, page in TOP.items():
    text = (ROOT / name).read_text()
    files.append(File.generated(config, page, content=text))
  return files


def on_page_markdown(markdown, **_):
  """Makes links that work on GitHub work on the site, and tables, too."""

  def to_site(match):
    path, _, anchor = match[1].partition("#")
    path = path.removeprefix("docs/").removeprefix("../")
    return f"]({TOP.get(path, path)}{'#' + anchor if anchor else ''})"

  markdown = re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", to_site, markdown)
  # GitHub needs the backslash in `a\|b` in a table, Python-Markdown shows it.
  return re.sub(r"`[^`\n]*`", lambda m: m[0].replace(r"\|", "|"), markdown)
