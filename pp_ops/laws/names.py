"""Laws by name: what pp strings, `measure`, `match` and studies call them."""

import collections
import inspect

from pp_ops.errors import UserError
from pp_ops.laws.area import BetaLaw, FixedLaw, PowerLaw
from pp_ops.laws.law import Law
from pp_ops.laws.native import NativeLaw, PortLaw

# Each law is a crop op of its name, and with this prefix one that also decodes.
FUSED = "decode_jpeg_and_"

LAWS: dict[str, type[Law]] = {
  "inception_crop": NativeLaw,
  "inception_crop_port": PortLaw,
  "inception_crop_fixed": FixedLaw,
  "beta_crop": BetaLaw,
  "power_crop": PowerLaw,
}

# TensorFlow's kernel makes its own uniforms from a seed. This op has the law of
# that kernel but uses the same uniforms as every other law, so that crops under
# two laws differ by the law alone: common random numbers, for paired
# comparisons.
COUPLED = "inception_crop_coupled"
_LAW_OF_OP = collections.ChainMap(LAWS, {COUPLED: NativeLaw})


def op_names() -> list[str]:
  """The names of all crop ops."""
  return [prefix + name for name in _LAW_OF_OP for prefix in ("", FUSED)]


def law_class_of(op_name: str) -> type[Law] | None:
  """The law of a crop op, fused with decoding or not; None for other ops."""
  return _LAW_OF_OP.get(op_name.removeprefix(FUSED))


def register_law(name: str, law_class: type[Law]) -> None:
  """Makes a law known under a name.

  The crop ops `name` and `decode_jpeg_and_<name>` then exist, with the fields
  of the class as arguments, and `measure`, `match` and studies know them.

  Args:
    name: such as "squared_crop".
    law_class: a frozen dataclass, subclass of `Law`.

  Raises:
    ValueError: in one line, if the name is taken or invalid, or if law_class is
      no such class.
  """
  if not (isinstance(law_class, type) and issubclass(law_class, Law)):
    raise UserError(
      f"law {name!r}: need a subclass of pp_ops.laws.Law, got {law_class!r}"
    )
  # Without the decorator its fields would silently not become arguments.
  own = inspect.get_annotations(law_class)
  if own and "__dataclass_fields__" not in vars(law_class):
    raise UserError(
      f"law {name!r}: {law_class.__name__} has fields ({', '.join(own)}) but "
      "no @dataclasses.dataclass(frozen=True) above it"
    )
  if not name.isidentifier() or name.startswith(FUSED):
    raise UserError(
      f"law {name!r}: need a name as in Python that does not begin with {FUSED}"
    )
  taken = law_class_of(name)
  # A reloaded module may register its law again.
  if taken and _origin(taken) != _origin(law_class):
    raise UserError(f"law {name!r} is already registered: {_origin(taken)}")
  LAWS[name] = law_class


def _origin(law_class):
  return f"{law_class.__module__}.{law_class.__qualname__}"
