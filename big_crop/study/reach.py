"""The modules that a training run executes, found by reading their sources.

The walk starts at `big_crop.train`, at all of `pp_ops` and at every module that
the config names. It follows import statements, also those within functions, and
strings that are a module's dotted name. Such a string in a dict, as in
`{"vit": "big_crop.models.vit"}`, is followed only if the config or the same
file contains its key as a string, because a run imports one entry of such a
table.
"""

import ast
import functools
import hashlib
import importlib.util
import pathlib
import sysconfig
from collections.abc import Iterator
from typing import Any, NamedTuple

import big_crop

ROOT = pathlib.Path(big_crop.__file__).parents[1]
_OWN = ("big_crop", "pp_ops")
# A run executes these, too, but they can't change its numbers: the first two
# make the resolved config, which has a digest of its own; the others only
# display things.
_NO_NUMBERS = (
  "big_crop.config",
  "big_crop.config.big_vision",
  "big_crop.display.pictures",
  "big_crop.display.tables",
  "big_crop.runtime.commands",
  "big_crop.runtime.progress",
)
# The walk does not start at these modules of pp_ops, because they serve other
# commands and pipelines.
_OTHERS = (
  "pp_ops.big_vision",
  "pp_ops.drop_in",
  "pp_ops.grain",
  "pp_ops.laws.exact",
)


class _Source(NamedTuple):
  """What the walk needs to know of a source file.

  Attributes:
    digest: digest of its syntax tree without docstrings.
    imports: dotted names that it imports, of modules or of names in modules.
    strings: its string constants, without those of `table`.
    table: (key, value) of every dict entry whose key and value are strings.
  """

  digest: str
  imports: frozenset[str]
  strings: frozenset[str]
  table: frozenset[tuple[str, str]]


def digests(
  config: dict[str, Any], root: pathlib.Path = ROOT
) -> dict[str, str]:
  """Digests of the modules that a run executes.

  Comments, docstrings and layout do not affect a digest. A file is read once
  per process, because a process keeps running the code that it has loaded.

  Args:
    config: the run's resolved config.
    root: the folder that holds big_crop and pp_ops.

  Returns:
    {dotted name: digest}, sorted by name.
  """
  named = set(_strings_of(config))
  # Modules that the config names count as the user's own, even if they are
  # installed among the libraries.
  users = {*config.get("pp_modules", ()), *filter(_is_dotted, named)}
  # These keys may name a user's module that is in no package and has no dot.
  kinds = [config.get("objective_name"), config.get("model_name")]
  kinds += [v.get("type") for v in config.get("evals", {}).values()]
  users |= {*filter(None, kinds)}
  tops = frozenset({*_OWN, *(name.partition(".")[0] for name in users)})
  paths = (p.relative_to(root) for p in (root / "pp_ops").rglob("*.py"))
  ops = {".".join(p.with_suffix("").parts) for p in paths}
  waiting = ["big_crop.train", *users, *(ops - {*_OTHERS})]
  found = {}
  while waiting:
    name = waiting.pop()
    name = name.removesuffix(".__init__")
    if name in found or name in _NO_NUMBERS:
      continue
    if parent := name.rpartition(".")[0]:
      waiting.append(parent)
    path = _file(name, root, tops)
    found[name] = path and _read(path, name)
    if path:
      waiting += _followed(found[name], named)
  return {k: found[k].digest for k in sorted(found) if found[k]}


def _followed(source, named):
  yield from source.imports
  for string in source.strings:
    ours = string.startswith(tuple(f"{name}." for name in _OWN))
    if ours and _is_dotted(string):
      yield string
  for key, value in source.table:
    if key in named or key in source.strings:
      yield value


def _strings_of(value) -> Iterator[str]:
  """Every string in a JSON value, except the keys of its objects."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict | list):
    for item in value.values() if isinstance(value, dict) else value:
      yield from _strings_of(item)


def _is_dotted(text):
  return "." in text and all(part.isidentifier() for part in text.split("."))


@functools.cache
def _file(name, root, tops):
  """The file of a module; None for a library, or if there is no such file."""
  top, *rest = name.split(".")
  place = root / top if top in _OWN else _top(top, top in tops)
  if place is None:
    return None
  place = place.joinpath(*rest)
  for path in (place / "__init__.py", place.parent / f"{place.name}.py"):
    if path.is_file():
      return path
  return None


def _top(name, even_a_library):
  """Path, without suffix, of a top-level module or package.

  None if it can't be found, or if it is an installed library and
  `even_a_library` is False.
  """
  try:
    spec = importlib.util.find_spec(name)
  except (ImportError, ValueError):
    return None
  if spec is None or not (spec.submodule_search_locations or spec.has_location):
    return None
  folders = list(spec.submodule_search_locations or ())
  place = pathlib.Path(folders[0] if folders else spec.origin).with_suffix("")
  library = place.is_relative_to(sysconfig.get_path("stdlib")) or not {
    "site-packages",
    "dist-packages",
  }.isdisjoint(place.parts)
  return place if even_a_library or not library else None


class _NoDocstrings(ast.NodeTransformer):
  """Removes every statement that is a constant: docstrings, and `...`."""

  def visit_Expr(self, node):
    return None if isinstance(node.value, ast.Constant) else node


@functools.cache
def _read(path, name):
  package = name if path.name == "__init__.py" else name.rpartition(".")[0]
  return _parse(path.read_bytes(), package)


@functools.cache
def _parse(text, package):
  tree = _NoDocstrings().visit(ast.parse(text))
  imports, strings, table = set(), set(), set()
  in_table = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      imports |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = "." * node.level + (node.module or "")
      base = importlib.util.resolve_name(base, package)
      imports |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    elif isinstance(node, ast.Dict):
      for entry in zip(node.keys, node.values, strict=True):
        if all(map(_is_string, entry)):
          table.add(tuple(x.value for x in entry))
          in_table |= set(entry)
    elif _is_string(node) and node not in in_table:
      strings.add(node.value)
  digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
  return _Source(digest, *map(frozenset, (imports, strings, table)))


def _is_string(node):
  return isinstance(node, ast.Constant) and isinstance(node.value, str)
