"""The language of pp strings: ops joined by `|`.

An op is a name or a call whose arguments are Python literals. A string is
parsed with `ast` and never evaluated. Needs no TensorFlow.
"""

import ast
import re
import warnings

from pp_ops.errors import UserError

# Limits far above any real string, and far below Python's limit of recursion.
_LONGEST = 5000  # characters
_MOST_OPS = 200


def parse(spec: str) -> list[tuple[str, list, dict]]:
  """Parses a pp string.

  Args:
    spec: such as `"decode|resize(224, antialias=True)"`, of at most 5,000
      characters and 200 ops. Empty places between two bars are skipped, as in
      big_vision, whose configs leave out ops in this way.

  Returns:
    (name, args, kwargs) for each op, in order.

  Raises:
    ValueError: for anything that is not a chain of names and literal calls.
  """

  def wrong(what):
    return UserError(f"pp string {short(repr(spec))} {what}")

  if not isinstance(spec, str):
    raise wrong("is no string")
  if len(spec) > _LONGEST:
    raise wrong(f"has {len(spec)} characters; at most {_LONGEST}")
  text = _without_gaps(spec)
  if not text:
    raise wrong("has no op; write name or name(literal, key=literal)")
  text = f"({text}\n)"  # parentheses allow it to run over several lines
  try:
    with warnings.catch_warnings():
      # SyntaxWarnings do not matter, because the code is never run.
      warnings.simplefilter("ignore")
      node = ast.parse(text, mode="eval").body
  except (SyntaxError, ValueError) as e:
    reason = short(str(getattr(e, "msg", e)))
    raise wrong(f"does not parse: {reason}") from None
  except (MemoryError, RecursionError):  # from Python's parser, if too deep
    raise wrong("is nested too deeply") from None
  ops = []
  while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
    ops.append(node.right)
    node = node.left
  ops.append(node)
  if len(ops) > _MOST_OPS:
    raise wrong(f"has {len(ops)} ops; at most {_MOST_OPS}")
  return [_parse_op(op, text, wrong) for op in reversed(ops)]


def short(text: str, width: int = 80) -> str:
  """One line of at most `width` characters."""
  text = " ".join(text.split()).encode(errors="backslashreplace").decode()
  return text if len(text) <= width else f"{text[: width - 3]}..."


def _without_gaps(spec):
  """The string without bars that separate nothing."""
  text = re.compile(r"""("[^"]*"|'[^']*')|\|(?:\s*\|)+""")
  return text.sub(lambda m: m[1] or "|", spec).strip().strip("|")


def _parse_op(node, text, wrong_string):
  def wrong(what):
    # Not ast.unparse, which may recurse too deeply.
    op = short(repr(ast.get_source_segment(text, node)))
    return wrong_string(f"has {op}, which {what}")

  if isinstance(node, ast.Name):
    return node.id, [], {}
  if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
    raise wrong("is not an op: write name or name(literal, key=literal)")
  try:
    args = [ast.literal_eval(a) for a in node.args]
    kwargs = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
  except (ValueError, TypeError, MemoryError, RecursionError):
    raise wrong("has an argument that is not a literal") from None
  if None in kwargs:
    raise wrong("uses **, which the language does not have")
  if len(kwargs) < len(node.keywords):
    raise wrong("gives an argument twice")
  return node.func.id, args, kwargs
