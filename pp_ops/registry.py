"""Name -> op, and `"a|b(1)|c(key='x')"` -> function over a feature dict.

`pp_ops.language` parses the string.

An op is registered as a factory that takes the arguments of the string and
returns a function of one feature:

    @register("fade", inkey="image")
    def get_fade(factor=0.5):
      return lambda image: image * factor

A string calls this op by `fade`, `fade(0.1)` or `fade(key="mask")`. A function
with a parameter named `rng` is random and gets a `pp_ops.random.Rng`.

Importing this module, parsing a string and asking for a crop's law do not
import TensorFlow, so that programs without TensorFlow can read pp strings. The
modules that define ops do import it; they are loaded when an op of theirs is
first needed.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from pp_ops import laws
from pp_ops.errors import UserError
from pp_ops.language import parse, short
from pp_ops.laws import arguments
from pp_ops.laws import names as law_names

Features = dict[str, Any]

SEED = "_seed"  # The feature that `pp_ops.random.example_seed` travels in.
_KEY_ARGS = ("key", "inkey", "outkey")

# The modules whose import registers the ops that come with the package. Crop
# ops are made from the laws, see `pp_ops.laws.names`, and not registered.
_MODULES = (
  "pp_ops.autoaugment",
  "pp_ops.blur",
  "pp_ops.color",
  "pp_ops.corruptions.op",
  "pp_ops.cropmix",
  "pp_ops.features",
  "pp_ops.geometry",
  "pp_ops.image",
  "pp_ops.jitter",
  "pp_ops.labels",
  "pp_ops.pixels",
  "pp_ops.policies",
  "pp_ops.randaug",
  "pp_ops.random_apply",
  "pp_ops.random_erasing",
  "pp_ops.ranges",
  "pp_ops.selection",
  "pp_ops.timm_randaug",
  "pp_ops.vtab_labels",
)
_CROPS = "pp_ops.crops"  # makes a law's crop op; imports TensorFlow
_LARGEST = 1e9  # absolute value of a number among the arguments


class Op(NamedTuple):
  """What the registry knows of an op; see `register`."""

  factory: Callable
  inkey: str | None
  outkey: str | None
  law: Callable | None


_OPS: dict[str, Op] = {}


def register(
  name: str,
  *,
  inkey: str | None = "image",
  outkey: str | None = None,
  law: Callable | None = None,
) -> Callable[[Callable], Callable]:
  """Decorator: registers an op factory under a name.

  Args:
    name: what the pp string calls it.
    inkey: the feature that the op reads unless the string gives `key` or
      `inkey`; None for an op on the whole feature dict.
    outkey: the feature that it writes unless the string gives `key` or
      `outkey`; the one it reads by default.
    law: for crops: a function of the op's arguments that returns its
      `pp_ops.laws` law, so that it can be measured and matched.

  Returns:
    The factory, unchanged.

  Raises:
    ValueError: if another factory has the name.
  """

  def add(factory):
    old = _OPS.get(name)
    if factory.__module__ not in _MODULES:
      _import_ops()  # so that a clash with a name of theirs is noticed
      old = _OPS.get(name) or _law_op(name)
    # A reloaded module may register again.
    if old and _origin(old.factory) != _origin(factory):
      raise UserError(
        f"op {name!r} is already registered by {_origin(old.factory)}"
      )
    _OPS[name] = Op(factory, inkey, outkey or inkey, law)
    return factory

  return add


def _import_ops():
  for module in _MODULES:
    importlib.import_module(module)


def _origin(factory):
  return f"{factory.__module__}.{factory.__qualname__}"


def _law_op(name):
  """The crop op of the law of this name, or None if there is no such law."""
  law_class = law_names.law_class_of(name)
  if law_class is None:
    return None

  def factory(*args, **kwargs):
    crops = importlib.import_module(_CROPS)
    return crops.get_crop(name, *arguments.bind(law_class, args, kwargs))

  def law(*args, **kwargs):
    return arguments.bind(law_class, args, kwargs)[0]

  factory.__signature__ = arguments.signature(law_class)
  law.__signature__ = factory.__signature__
  factory.__module__ = law_class.__module__
  factory.__qualname__ = law_class.__qualname__
  return Op(factory, "image", "image", law)


def names() -> list[str]:
  """The names of all ops, sorted."""
  _import_ops()
  return sorted([*_OPS, *law_names.op_names()])


def did_you_mean(name: str, choices) -> str:
  """The hint `did you mean 'x'? choices: ...`, for an unknown name.

  It lists all choices, or only the nearest ones if there are many.
  """
  choices = sorted(choices)
  near = difflib.get_close_matches(name[:40], choices, n=8, cutoff=0.0)
  listed = ", ".join(choices) or "none"
  if len(listed) > 150:
    listed = ", ".join([*near, "..."])
  near = f"did you mean {near[0]!r}? " if near else ""
  return f"{near}choices: {listed}"


def lookup(name: str) -> Op:
  """The op of a name.

  Raises:
    ValueError: if no op has the name, or if two have it.
  """
  crop = _law_op(name)
  if not crop:
    _import_ops()
  op = _OPS.get(name, crop)
  if not op:
    near = did_you_mean(name, names())
    raise UserError(f"unknown op {short(repr(name))}: {near}")
  if crop and op is not crop:
    raise UserError(
      f"op {name!r} is registered twice: by {_origin(op.factory)} and by the "
      f"law {_origin(crop.factory)}"
    )
  return op


def _check_kind(op, key, value, default):
  """Raises for a value that makes no sense as an argument of any op."""
  good, need = True, ""
  if isinstance(value, list | tuple):
    for item in value:
      _check_kind(op, key, item, None)
  if isinstance(default, bool):
    good, need = isinstance(value, bool), "True or False"
  elif isinstance(value, bool):
    good, need = not isinstance(default, int | float), "a number"
  elif isinstance(value, complex):
    good, need = False, "a real number"
  elif isinstance(value, int | float):
    good, need = abs(value) <= _LARGEST, "a number, finite and at most 1e9"
  if not good:
    raise UserError(f"op {op!r}: {key}={short(repr(value))}: need {need}")


def call_factory(name: str, factory: Callable, args, kwargs) -> Any:
  """Calls `factory`; mismatched arguments give a one-line ValueError.

  An argument whose default is a bool takes only bools; one whose default is a
  number takes no bools. Numbers must be finite and at most 1e9.
  """
  parameters = inspect.signature(factory).parameters
  try:
    bound = inspect.signature(factory).bind(*args, **kwargs)
  except TypeError as e:
    unknown = [k for k in kwargs if k not in parameters]
    hint = (
      f": {did_you_mean(unknown[0], parameters)}"
      if unknown
      else (f"; its arguments are ({', '.join(map(str, parameters.values()))})")
    )
    raise UserError(f"op {name!r}: {e}{hint}") from None
  for key, value in bound.arguments.items():
    _check_kind(name, key, value, parameters[key].default)
  try:
    return factory(*args, **kwargs)
  except (TypeError, ValueError) as e:
    raise UserError(f"op {name!r}: {e}") from e


def import_modules(modules) -> None:
  """Imports modules that register ops, by their dotted names.

  Raises:
    ValueError: if there is no such module.
  """
  for name in modules:
    if not all(part.isidentifier() for part in name.split(".")):
      raise UserError(f"pp_modules: {name!r} is no module's name")
    try:
      importlib.import_module(name)
    except ModuleNotFoundError as e:
      # If the module was found but fails to import another module, the original
      # error says best what is wrong.
      if e.name != name and not name.startswith(f"{e.name}."):
        raise
      hint = f"; write {name[:-3]!r}" if name.endswith(".py") else ""
      raise UserError(
        f"pp_modules: no module {name!r} on the path{hint}"
      ) from None


def law_of(spec: str, several: bool = False) -> Any:
  """The crop law that one op's spec declares, e.g. `"beta_crop(alpha=2)"`.

  Args:
    spec: a pp string of one op.
    several: whether the law may also be a `CropMix`, which draws several
      windows.

  Returns:
    The law, a `Law` or `CropMix`.

  Raises:
    ValueError: if the op is unknown, has wrong arguments, or is not a crop.
  """
  ops = parse(spec)
  if len(ops) != 1:
    raise UserError(f"{spec!r}: need one crop op, got {len(ops)} ops")
  name, args, kwargs = ops[0]
  kwargs = {k: v for k, v in kwargs.items() if k not in _KEY_ARGS}
  law = lookup(name).law
  if law is None:
    crops = [n for n in names() if lookup(n).law]
    raise UserError(f"op {name!r} declares no crop law; {', '.join(crops)} do")
  found = call_factory(name, law, args, kwargs)
  if not (several or isinstance(found, laws.Law)):
    raise UserError(f"{spec!r} crops several windows: need a crop of one")
  return found


def law_alone(law: Any, others: tuple[str, ...], whose: str) -> Any:
  """Reads an argument named `law` of an op or class that crops by that law.

  Args:
    law: a `pp_ops.laws` law, or a crop op's string.
    others: arguments of crop ops that the string may not give, because the op
      or class has arguments of its own for them, for example "size".
    whose: what the error message calls this op or class.

  Returns:
    The law.

  Raises:
    ValueError: in one line, if `law` is neither, or gives one of `others`.
  """
  if isinstance(law, laws.Law):
    return law
  if not isinstance(law, str):
    raise UserError(
      f"law={law!r}: need a pp_ops.laws law or a crop op's string, as in "
      "'beta_crop(alpha=2)'"
    )
  found = law_of(law)
  [(name, args, kwargs)] = parse(law)
  parameters = inspect.signature(lookup(name).factory).parameters
  given = {**dict(zip(parameters, args, strict=False)), **kwargs}
  for key in others:
    if given.get(key) is not None:
      raise UserError(
        f"law={law!r}: {key}={given[key]!r} is not the law's: leave it out, "
        f"and give it to {whose}"
      )
  return found


def _build(op, name, args, kwargs, position):
  """One op of a pp string as a function of (features, make_rng)."""
  keys = {}
  if op.inkey is not None:
    keys = {k: kwargs.pop(k) for k in _KEY_ARGS if k in kwargs}
    for key, value in keys.items():
      if not isinstance(value, str):
        raise UserError(f"op {name!r}: {key}={value!r}: need a feature's name")
    if "key" in keys and len(keys) > 1:
      raise UserError(f"op {name!r}: give key, or inkey and outkey, not both")
  function = call_factory(name, op.factory, args, kwargs)
  if not callable(function):
    raise UserError(
      f"op {name!r}: its factory returns {function!r} where a function of the "
      "feature must be"
    )
  random = "rng" in inspect.signature(function).parameters
  both = keys.get("key")
  inkey = both or keys.get("inkey", op.inkey)
  outkey = both or keys.get("outkey", op.outkey)

  def apply(features, make_rng):
    extra = {"rng": make_rng(position)} if random else {}
    if inkey is not None and inkey not in features:
      raise UserError(
        f"op {name!r} reads feature {inkey!r}, which is not there; there are "
        + ", ".join(map(repr, features))
      )
    value = dict(features) if inkey is None else features[inkey]
    try:
      out = function(value, **extra)
    except (TypeError, ValueError) as e:
      if isinstance(e, UserError):
        raise
      if not _is_ours(op):  # It may be a bug in the user's op: keep it whole.
        e.add_note(f"in a pp string: {_misfit(name, inkey, value, e)}")
        raise
      raise UserError(_misfit(name, inkey, value, e)) from e
    if out is None:
      raise UserError(f"op {name!r} returned None: its function has no return")
    return out if inkey is None else {**features, outkey: out}

  return apply


def _is_ours(op):
  module = op.factory.__module__  # for a crop op, the module of its law
  return module.startswith(("pp_ops.", "big_crop.device_ops."))


def _misfit(name, inkey, value, error):
  """The error message for an op that can't take what the ops before it give."""
  dtype = getattr(value, "dtype", None)
  if isinstance(value, bytes) or getattr(dtype, "name", "") == "string":
    return f"op {name!r} gets {inkey!r} as it is encoded: put decode before it"
  what = "these features" if inkey is None else repr(inkey)
  if dtype is not None:
    shape = getattr(value, "shape", "")
    what += f", {getattr(dtype, 'name', dtype)} {shape}"
  return f"op {name!r} does not take {what}: {short(str(error), 150)}"


def build(spec: str, lookup: Callable[[str], Op] = lookup) -> list[Callable]:
  """The ops that a pp string describes, for whatever engine runs them.

  Args:
    spec: the pp string.
    lookup: name -> op; engines other than tf.data pass their own lookup.

  Returns:
    Functions (features, make_rng) -> features, in order; `make_rng` takes an
    op's place in the string and returns the Rng that a random op draws from.

  Raises:
    ValueError: unknown op, wrong argument or bad syntax, in one line.
  """
  try:
    return [
      _build(lookup(op[0]), *op, position)
      for position, op in enumerate(parse(spec))
    ]
  except UserError as e:
    place = f" (in pp string {short(repr(spec))})"
    if "pp string" in str(e):
      place = ""
    raise UserError(f"{short(str(e), 300 - len(place))}{place}") from e


def get_preprocess_fn(spec: str) -> Callable[[Features], Features]:
  """Builds the function that a pp string describes.

  Args:
    spec: the pp string.

  Returns:
    A graph function from the features of one example, a dict of tensors, to
    such a dict, for `tf.data.Dataset.map`. If the dict has the feature
    `"_seed"` (`pp_ops.random.example_seed`), all random ops draw from that seed
    alone; otherwise they draw from TensorFlow's stateful generator.

  Raises:
    ValueError: unknown op, wrong argument or bad syntax, in one line.
  """
  _import_ops()
  ops = build(spec)

  import tensorflow as tf

  from pp_ops.random import Rng

  # Ops are graph code already; AutoGraph would only obscure their errors.
  @tf.autograph.experimental.do_not_convert
  def preprocess(features: Features, *others) -> Features:
    if others or not isinstance(features, dict):
      raise UserError(
        "a pp string takes one dict of features, as {'image': image, 'label': "
        "label}; write ds.map(lambda image, label: pp({...})) for pairs"
      )
    features = dict(features)
    seed = features.pop(SEED, None)
    for op in ops:
      features = op(features, lambda position: Rng(seed, position))
    return features

  return preprocess
