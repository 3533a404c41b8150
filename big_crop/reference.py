r"""Generates the reference pages in a clone's docs folder from the code.

    python -m big_crop.reference

docs/ops_reference.md lists every op of a pp string. docs/config_reference.md
lists every key of a config and the arguments of the files in configs/. The
pages consist of docstrings, signatures and the comments beside defaults: to
change a page, change the code.
"""

import ast
import contextlib
import inspect
import io
import pathlib
import re
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any
from unittest import mock

from ml_collections import FieldReference

from big_crop import config as configs
from big_crop import recipes
from big_crop.device_ops import registry as device
from big_crop.recipes import transfer
from big_crop.runtime import commands
from pp_ops import registry
from pp_ops.errors import UserError
from pp_ops.laws import cropmix
from pp_ops.laws import names as law_names

ROOT = pathlib.Path(__file__).parents[1]
_MADE = (
  "<!-- Made by `python -m big_crop.reference`: edit the code instead. -->"
)

# Heading -> prefixes of the modules whose ops it lists. An op is listed under
# the first heading that has a prefix of its module.
_GROUPS = {
  "Crops": ("pp_ops.laws", "pp_ops.cropmix", "pp_ops.views"),
  "Decoding, sizes, flips and values": ("pp_ops.image", "pp_ops.ranges"),
  "Policies and other random augmentation": (
    "pp_ops.autoaugment",
    "pp_ops.blur",
    "pp_ops.color",
    "pp_ops.corruptions",
    "pp_ops.jitter",
    "pp_ops.randaug",
    "pp_ops.random_apply",
    "pp_ops.random_erasing",
    "pp_ops.timm_randaug",
  ),
  "The parts of policies": ("pp_ops.geometry", "pp_ops.pixels"),
  "Features and labels": ("pp_ops",),
}
_OPS_HEAD = f"""{_MADE}

# Ops reference

Every op of a pp string, with its arguments and their defaults. [Preprocessing
ops](ops.md) says what they are for. An op reads and writes the feature `image`
unless its entry says otherwise; `key`, or `inkey` and `outkey`, name others.
"device" means that the device engine ([packed data](packed_data.md)) has it.
"""
_CROPS_HEAD = """
Algorithms are those of "You May Be Running the Wrong Inception Crop". What all
crops take:

- `size`: of the result in pixels, or (height, width); None keeps the window's.
- `area_min`, `area_max`: smallest and largest crop, in percent of the image.
- `ratio_min`, `ratio_max`: least and greatest width / height.
- `max_attempts`: proposals before the law's fallback, 1 to 10,000.
- `method`, `antialias`: of the resize, see [`resize`](#resize).
"""
_CONFIG_HEAD = f"""{_MADE}

# Config reference

What `--config FILE[:arg=value,...] [--config.key=value ...]` can set. A config
file's own arguments follow the colon; any key is set behind it. A key of a type
"or None" is None until it gets a value.

## Keys

Each with its type, its default, and what it is.

"""


def _value(value: Any) -> str:
  """A value as Python source, with floats in at most six digits."""
  if isinstance(value, float):
    return f"{value:.6g}"
  if isinstance(value, tuple):
    return f"({', '.join(map(_value, value))})"
  return repr(value)


def _call(name: str, factory: Any) -> str:
  """The op with its arguments and defaults, in lines of 80 columns."""
  arguments = []
  for parameter in inspect.signature(factory).parameters.values():
    text = str(parameter.replace(annotation=parameter.empty)).split("=")[0]
    if parameter.default is not parameter.empty:
      text += f"={_value(parameter.default)}"
    arguments.append(text)
  return _wrapped(f"{name}(", arguments, ")")


def _wrapped(head: str, items: list[str], tail: str = "") -> str:
  """Joins items with commas; breaks lines between items, at 80 columns."""
  lines = [head]
  for left, item in enumerate(items, 1 - len(items)):
    item += ", " if left else tail
    if len(f"{lines[-1]}{item.rstrip()}") > 80:
      lines.append("  ")
    lines[-1] += item
  if not items:
    lines[-1] += tail
  return "\n".join(line.rstrip() for line in lines)


def _docstring(thing: Any) -> tuple[str, dict[str, list[str]]]:
  """Splits a Google docstring into its text and {section: lines}."""
  text, *parts = re.split(
    r"^(Args|Attributes|Returns|Raises):\n",
    inspect.getdoc(thing) or "",
    flags=re.M,
  )
  sections = {
    name: textwrap.dedent(body).strip().splitlines()
    for name, body in zip(parts[::2], parts[1::2], strict=True)
  }
  return text.strip(), sections


def _arguments(lines: list[str]) -> str:
  """An Args section as a Markdown list, with nested entries indented."""
  items = []
  for line in lines:
    indent = len(line) - len(line.lstrip())
    match = re.match(r"\*{0,2}(\w+): ", line.strip())
    if match and indent in (0, 2):
      text = line.strip().replace(match[0], f"- `{match[1]}`: ", 1)
      items.append(" " * 2 * indent + text)
    else:
      items[-1] += f" {line.strip()}"
  return "\n".join(i for i in items if not i.startswith("- `engine`"))


def docstring_of(name: str) -> tuple[str, dict[str, list[str]]]:
  """The text and the sections of an op's docstring, or of its law's."""
  law = law_names.law_class_of(name)
  text, sections = _docstring(law or registry.lookup(name).factory)
  if name.removeprefix(law_names.FUSED) == law_names.COUPLED:
    text = _comment_above(law_names, "COUPLED")
  if name == "cropmix":  # its docstring refers to read_arguments for them
    sections |= _docstring(cropmix.read_arguments)[1] | {"Returns": []}
  return text, sections


def _op(name: str, fused: bool) -> str:
  op, on_device = registry.lookup(name), name in device.names()
  text, sections = docstring_of(name)
  out = [f"### `{name}`", f"```text\n{_call(name, op.factory)}\n```"]
  facts = ["tf.data, device" if on_device else "tf.data"]
  if op.inkey is None:
    facts.append("on the features of an example")
  elif op.inkey != "image" or op.outkey != "image":
    facts.append(f"reads `{op.inkey}`, writes `{op.outkey}`")
  if fused:
    facts.append(f"with decoding: `{law_names.FUSED}{name}`")
  out += [f"*{'; '.join(facts)}*", text]
  own = sections.get("Args") or sections.get("Attributes")
  if own:
    out.append(_arguments(own))
  gives = " ".join(map(str.strip, sections.get("Returns", [])))
  if len(gives.split()) > 2:
    out.append(f"Gives: {gives}")
  return "\n\n".join(out)


def ops_page() -> str:
  """The text of docs/ops_reference.md."""
  every = registry.names()
  plain = [n for n in every if not n.startswith(law_names.FUSED)]
  ours = [n for n in plain if _module(n).startswith("pp_ops")]
  left, groups = list(ours), {}
  for title, modules in _GROUPS.items():
    groups[title] = [n for n in left if _module(n).startswith(modules)]
    left = [n for n in left if n not in groups[title]]
  links = lambda names: ", ".join(f"[`{n}`](#{n})" for n in names)
  alone = [n for n in ours if n not in device.names()]
  out = [_OPS_HEAD, f"In tf.data alone: {links(alone)}.\n\n"]
  out += [f"- {title}: {links(groups[title])}\n" for title in groups]
  for title, members in groups.items():
    out.append(f"\n## {title}\n")
    out.append(_CROPS_HEAD if title == "Crops" else "")
    for name in members:
      out.append(f"\n{_op(name, law_names.FUSED + name in every)}\n")
  return "".join(out)


def _module(name):
  return registry.lookup(name).factory.__module__


def _comments(source: str) -> dict[int, tuple[str, bool]]:
  """{line number: (comment, whether the comment is alone on the line)}."""
  found = {}
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT and "noqa" not in token.string:
      alone = token.line.strip().startswith("#")
      found[token.start[0]] = (token.string.lstrip("# "), alone)
  return found


def _comment_of(comments, first: int, last: int) -> str:
  """The comment above line `first`, or else behind line `last` or `first`."""
  above, line = [], first - 1
  while line in comments and comments[line][1]:
    above.insert(0, comments[line][0])
    line -= 1
  behind = [comments[i][0] for i in (last, first) if i in comments]
  return " ".join(above or behind[:1])


def _comment_above(module: Any, name: str) -> str:
  """The comment above or behind the assignment of a module's variable."""
  source = inspect.getsource(module)
  for node in ast.parse(source).body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
      return _comment_of(_comments(source), node.lineno, node.end_lineno)
  raise AssertionError(f"no {name} in {module}")


def _keys_and_comments(thing: Any, variable: str = "") -> dict[str, str]:
  """{dotted key: comment}, in the order of the source.

  Args:
    thing: a function that builds a config `c` by assignments to its keys, or a
      module.
    variable: if `thing` is a module, the name of the dict(...) to read in it.
  """
  source = textwrap.dedent(inspect.getsource(thing))
  comments, found = _comments(source), {}

  def visit(node, where):
    last = getattr(node, "end_lineno", 0)
    if isinstance(node, ast.Assign):
      target = ast.unparse(node.targets[0])
      if variable not in ("", target):
        return
      where = "" if variable else target.removeprefix("c.")
      # A comment behind the last line of a dict belongs to its last key.
      last = node.lineno
    elif isinstance(node, ast.keyword):
      where = f"{where}.{node.arg}" if where else node.arg
    if isinstance(node, ast.Assign | ast.keyword):
      found[where] = _comment_of(comments, node.lineno, last)
    elif variable and isinstance(node, ast.FunctionDef):
      return
    for child in ast.iter_child_nodes(node):
      visit(child, where)

  visit(ast.parse(source), "")
  return found


def _leaves(config: Any, where: str = "") -> Iterator[tuple[str, Any, str]]:
  """Yields (dotted key, default, type) of all keys, also those of dicts."""
  for key in config:
    value, dotted = config[key], f"{where}{key}"
    if hasattr(value, "keys") and len(value) and dotted != "schedule":
      yield from _leaves(value, f"{dotted}.")
      continue
    kind = {"ConfigDict": "dict", "NoneType": "any"}.get(
      config.get_type(key).__name__, config.get_type(key).__name__
    )
    if value is None and kind != "any":
      kind += " or None"
    if hasattr(value, "to_dict"):
      value = value.to_dict()
    yield dotted, value, kind


def explained_keys() -> dict[str, str]:
  """{key: text with its type, default and comment} for every config key."""
  said = _keys_and_comments(configs.default_config)
  found = {k: more for k, *more in _leaves(configs.default_config())}
  out, group = {}, ""
  for key, about in said.items():
    if key in found:
      value, kind = found[key]
      about = " ".join(filter(None, (group, about)))
      out[key] = f"{kind}, `{_value(value)}`. {_sentence(about)}"
    # The comment of a dict goes to the dict's first key.
    within = any(k.startswith(f"{key}.") for k in found)
    group = _sentence(about) if within else ""
  return out


def _sentence(text: str) -> str:
  """Adds a full stop, and a capital unless the text begins with code."""
  if not text:
    return ""
  first = text.split()[0]
  name = not first.isalpha() or text[len(first) :].startswith(":")
  return (text if name else text[0].upper() + text[1:]).rstrip(".") + "."


def _list(explained: dict[str, str]) -> str:
  return "".join(f"- `{k}`: {text}\n" for k, text in explained.items())


def _explained_arguments(module: Any, name: str) -> dict[str, str]:
  """{argument: its default and comment} of the module's dict `name`."""
  said = _keys_and_comments(module, name)
  return {
    k: f"`{_value(_given(v))}`. {_sentence(said[k])}"
    for k, v in getattr(module, name).items()
  }


def _given(value: Any) -> Any:
  """The value of a default, which may be a `placeholder` for None."""
  return value.get() if isinstance(value, FieldReference) else value


def _arguments_of(path: str) -> dict[str, Any]:
  """{argument: default} of a config file, as its get_config parses them."""
  found = []
  parse_arg = configs.parse_arg

  def record(text, forms=None, **defaults):
    found.append({**dict.fromkeys(forms or {}, False), **defaults})
    return parse_arg(text, forms, **defaults)

  with (
    mock.patch.object(configs, "parse_arg", record),
    contextlib.suppress(UserError),  # some configs need an argument
  ):
    configs.load(path)
  return found[0] if found else {}


def _config(path: pathlib.Path) -> str:
  name = str(path.relative_to(ROOT))
  title, _, text = ast.get_docstring(ast.parse(path.read_text())).partition(
    "\n"
  )
  arguments = [
    f"{key}={_value(_given(value))}".replace("'", "")
    for key, value in _arguments_of(str(path)).items()
  ]
  out = [f"### `{name}`", title, text.strip("\n")]
  if arguments:
    defaults = _wrapped("", arguments)
    out.append(f"All arguments and their defaults:\n\n```text\n{defaults}\n```")
  return "\n\n".join(out) + "\n\n"


def config_page() -> str:
  """The text of docs/config_reference.md."""
  out = [_CONFIG_HEAD, _list(explained_keys())]
  out.append(
    "\n## Arguments that recipes share\n\nThe configs below name these lists.\n"
  )
  for module, name in (
    (recipes, "ARGUMENTS"),
    (recipes, "CROPMIX"),
    (transfer, "ARGUMENTS"),
  ):
    comment = _comment_above(module, name)
    out.append(f"\n### `{module.__name__}.{name}`\n\n{comment}\n\n")
    out.append(_list(_explained_arguments(module, name)))
  for title, folder in (("Configs", ""), ("Configs of studies", "studies")):
    out.append(f"\n## {title}\n\n")
    for path in sorted((ROOT / "configs").glob("**/*.py")):
      if (path.parent.name == "studies") == bool(folder):
        out.append(_config(path))
  return "".join(out).rstrip() + "\n"


PAGES = {"ops_reference.md": ops_page, "config_reference.md": config_page}


def main(argv=None):
  """Runs the command."""
  commands.parser(__doc__).parse_args(argv)
  for name, page in PAGES.items():
    (ROOT / "docs" / name).write_text(page())
    print(ROOT / "docs" / name)


if __name__ == "__main__":
  with commands.one_line():
    main()
