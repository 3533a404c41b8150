"""Name -> op, and `"a|b(1)|c(key='x')"` -> function over a feature dict.

The language: ops joined by `|`, each a name or a call whose arguments are
Python literals. It is parsed with `ast` and never evaluated.

An op is registered as a factory that takes the arguments of the string and
returns a function of one feature:

    @register("fade", inkey="image")
    def get_fade(factor=0.5):
      return lambda image: image * factor

which the string reaches as `fade`, `fade(0.1)` or `fade(key="mask")`. A
function with a parameter named `rng` is random and gets a `pp_ops.random.Rng`.
"""

import ast
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# These register the ops that come with the package.
import pp_ops.color
import pp_ops.crops
import pp_ops.features
import pp_ops.labels
import pp_ops.randaug
import pp_ops.random_erasing
import pp_ops.timm_randaug  # noqa: F401
from pp_ops.op_table import did_you_mean, lookup, names, register
from pp_ops.random import Rng

__all__ = [
  "call_factory",
  "did_you_mean",
  "get_preprocess_fn",
  "import_modules",
  "law_of",
  "lookup",
  "names",
  "parse",
  "register",
]

Features = dict[str, Any]

SEED = "_seed"  # The feature that `pp_ops.random.example_seed` travels in.
_KEY_ARGS = ("key", "inkey", "outkey")


def parse(spec: str) -> list[tuple[str, list, dict]]:
  """Parses a pp string.

  Args:
    spec: such as `"decode|resize(224, antialias=True)"`.

  Returns:
    (name, args, kwargs) for each op, in order.

  Raises:
    ValueError: for anything that is not a chain of names and literal calls.
  """
  try:
    # The parentheses let a string run over several lines.
    node = ast.parse(f"({spec}\n)", mode="eval").body
  except (SyntaxError, ValueError) as e:
    reason = getattr(e, "msg", e)
    raise ValueError(f"pp string {spec!r} does not parse: {reason}") from None
  ops = []
  while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
    ops.append(node.right)
    node = node.left
  ops.append(node)
  return [_parse_op(op, spec) for op in reversed(ops)]


def _parse_op(node, spec):
  def wrong(what):
    return ValueError(f"pp string {spec!r}: {ast.unparse(node)!r} {what}")

  if isinstance(node, ast.Name):
    return node.id, [], {}
  if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
    raise wrong("is not an op: write name or name(literal, key=literal)")
  try:
    args = [ast.literal_eval(a) for a in node.args]
    kwargs = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
  except (ValueError, TypeError):
    raise wrong("has an argument that is not a literal") from None
  if None in kwargs:
    raise wrong("uses **, which the language does not have")
  return node.func.id, args, kwargs


def call_factory(name: str, factory: Callable, args, kwargs) -> Any:
  """Calls `factory`; mismatched arguments give a one-line ValueError."""
  parameters = inspect.signature(factory).parameters
  try:
    inspect.signature(factory).bind(*args, **kwargs)
  except TypeError as e:
    unknown = [k for k in kwargs if k not in parameters]
    hint = (
      f": {did_you_mean(unknown[0], parameters)}"
      if unknown
      else (f"; its arguments are ({', '.join(map(str, parameters.values()))})")
    )
    raise ValueError(f"op {name!r}: {e}{hint}") from None
  try:
    return factory(*args, **kwargs)
  except (TypeError, ValueError) as e:
    raise ValueError(f"op {name!r}: {e}") from e


def import_modules(modules) -> None:
  """Imports modules that register ops, by their dotted names.

  Raises:
    ValueError: if there is no such module.
  """
  for name in modules:
    try:
      importlib.import_module(name)
    except ModuleNotFoundError as e:
      # A module that is there may itself lack one; that is another fault.
      if e.name != name and not name.startswith(f"{e.name}."):
        raise
      raise ValueError(f"pp_modules: no module {name!r} on the path") from None


def law_of(spec: str) -> Any:
  """The crop law that one op's spec declares, e.g. `"beta_crop(alpha=2)"`.

  Raises:
    ValueError: if the op is unknown, has wrong arguments, or is not a crop.
  """
  ops = parse(spec)
  if len(ops) != 1:
    raise ValueError(f"{spec!r}: need one crop op, got {len(ops)} ops")
  name, args, kwargs = ops[0]
  kwargs = {k: v for k, v in kwargs.items() if k not in _KEY_ARGS}
  law = lookup(name).law
  if law is None:
    crops = [n for n in names() if lookup(n).law]
    raise ValueError(f"op {name!r} declares no crop law; {', '.join(crops)} do")
  return call_factory(name, law, args, kwargs)


def _build(name, args, kwargs, position):
  """One op of a pp string as a function of (features, seed)."""
  op = lookup(name)
  keys = {}
  if op.inkey is not None:
    keys = {k: kwargs.pop(k) for k in _KEY_ARGS if k in kwargs}
    if "key" in keys and len(keys) > 1:
      raise ValueError(f"op {name!r}: give key, or inkey and outkey, not both")
  function = call_factory(name, op.factory, args, kwargs)
  random = "rng" in inspect.signature(function).parameters
  both = keys.get("key")
  inkey = both or keys.get("inkey", op.inkey)
  outkey = both or keys.get("outkey", op.outkey)

  def apply(features, make_rng):
    extra = {"rng": make_rng(position)} if random else {}
    if inkey is None:
      return function(dict(features), **extra)
    if inkey not in features:
      raise ValueError(
        f"op {name!r} reads feature {inkey!r}, which is not there; there are "
        + ", ".join(map(repr, features))
      )
    return {**features, outkey: function(features[inkey], **extra)}

  return apply


def get_preprocess_fn(spec: str) -> Callable[[Features], Features]:
  """Builds the function that a pp string describes.

  Args:
    spec: the pp string.

  Returns:
    A graph function from a dict of features, the tensors of one example, to
    such a dict, for `tf.data.Dataset.map`. If the dict has the feature
    `"_seed"` (`pp_ops.random.example_seed`), every random op draws from it
    alone; without it from TensorFlow's own stateful generator.

  Raises:
    ValueError: unknown op, wrong argument or bad syntax, in one line.
  """
  try:
    ops = [_build(*op, position) for position, op in enumerate(parse(spec))]
  except ValueError as e:
    if spec in str(e):
      raise
    raise ValueError(f"{e} (in pp string {spec!r})") from e

  # Ops are graph code already; converting them would only blur their errors.
  @tf.autograph.experimental.do_not_convert
  def preprocess(features: Features) -> Features:
    features = dict(features)
    seed = features.pop(SEED, None)
    for op in ops:
      features = op(features, lambda position: Rng(seed, position))
    return features

  return preprocess
