"""Names for the leaves of pytrees: `Transformer/encoderblock_0/.../kernel`.

A leaf's name is its path joined by slashes, without a leading slash, as in
big_vision. A regular expression must match the whole name, and in a list of
expressions the first match wins.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from big_crop.display import tables
from pp_ops.errors import UserError


def leaf_name(path: Sequence[Any]) -> str:
  """Returns the name of a key path of `jax.tree_util`."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
  """Returns the (name, leaf) pairs of a tree, in tree order."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [(leaf_name(path), leaf) for path, leaf in leaves]


def overview(tree: Any) -> str:
  """A table of the leaves' names, shapes, dtypes and sizes, and the total size.

  Args:
    tree: arrays, or anything with shape and dtype.
  """
  leaves = named_leaves(tree)
  rows = [("Name", "Shape", "Dtype", "Size")]
  rows += [
    (n, str(tuple(x.shape)), str(x.dtype), f"{x.size:,}") for n, x in leaves
  ]
  total = sum(x.size for _, x in leaves)
  return f"{tables.markdown(rows)}Total: {total:,}"


def map_with_names(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
  """Returns `tree` with every leaf replaced by `fn(name, leaf, *leaves)`.

  `leaves` are the corresponding leaves of `rest`, trees of the same structure.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, *leaves: fn(leaf_name(path), *leaves), tree, *rest
  )


def first_match(
  names: Iterable[str],
  rules: Sequence[tuple[str, Any]],
  where: str,
  *,
  all_used: bool = True,
) -> dict[str, int]:
  """Finds the rule of each name.

  Args:
    names: leaf names.
    rules: (regular expression, value) pairs; the first full match wins.
    where: the config key of the rules, for errors.
    all_used: raise if a rule is not the first match of any name. Pass False for
      rules that are our own defaults, because a default may match nothing in a
      given model.

  Returns:
    {name: index of its rule}, without the names that no rule matches.

  Raises:
    ValueError: if an item is not a pair; if an expression does not compile; or,
      with `all_used`, if an expression is not the first match of any name,
      because it may be misspelt. Only `.*` may find nothing left to match.
  """
  for rule in rules:
    if not (isinstance(rule, list | tuple) and len(rule) == 2):
      raise UserError(f"{where}: {rule!r} is not a (regex, value) pair.")
  names = list(names)
  compiled = []
  for pattern, _ in rules:
    try:
      compiled.append(re.compile(pattern))
    except (re.error, TypeError) as e:
      raise UserError(f"{where}: bad regex {pattern!r}: {e}.") from None
  matches = {}
  for name in names:
    for index, pattern in enumerate(compiled):
      if pattern.fullmatch(name):
        matches[name] = index
        break
  for index, pattern in enumerate(compiled):
    unused = index not in matches.values() and pattern.pattern != ".*"
    if all_used and unused:
      taken = any(map(pattern.fullmatch, names))
      raise UserError(
        f"{where}: {pattern.pattern!r} matches no parameter"
        + (" that an earlier pattern does not take." if taken else ".")
        + f" A parameter's name looks like {names[-1] if names else ''!r}."
      )
  return matches


def params_sha256(params: Any) -> str:
  """Returns a digest that is equal if and only if parameters are bit-identical.

  SHA-256 over the leaves in the order of their names: name, dtype, shape and
  the bytes of the whole array in C order, whatever its sharding. Every process
  must call this, because sharded arrays are gathered.

  Args:
    params: a tree of arrays.

  Returns:
    64 hexadecimal digits.
  """
  digest = hashlib.sha256()
  for name, leaf in sorted(named_leaves(params), key=lambda pair: pair[0]):
    # An array that every process holds in full is not gathered, because the
    # copies would be stacked.
    if isinstance(leaf, jax.Array) and not (
      leaf.is_fully_addressable or leaf.is_fully_replicated
    ):
      leaf = multihost_utils.process_allgather(leaf, tiled=True)
    array = np.asarray(leaf)
    digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()
