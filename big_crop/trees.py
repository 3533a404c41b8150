"""Pytrees whose leaves have names: `Transformer/encoderblock_0/.../kernel`.

A leaf's name is its path joined by slashes, without a leading one, as in
big_vision. A regular expression must match the whole name, and in a list of
expressions the first that matches wins.
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
  """A table of the leaves: name, shape, dtype and size, and the sum of these.

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

  Further leaves are those of `rest`, trees of the same structure.
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
    all_used: raise if a rule matches no name first. False for rules that are
      our own defaults, of which one may match nothing in a given model.

  Returns:
    The index of its rule for each name that has one.

  Raises:
    ValueError: for a list that is not one of pairs, an expression that does
      not compile, and one that is the first to match no name at all, because
      a misspelt expression must not pass silently. Only a closing `.*` may
      find nothing left to match.
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
  """Returns a digest by which two runs' parameters compare to the bit.

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
    # Gathering an array that each process holds in full would stack the copies.
    if isinstance(leaf, jax.Array) and not (
      leaf.is_fully_addressable or leaf.is_fully_replicated
    ):
      leaf = multihost_utils.process_allgather(leaf, tiled=True)
    array = np.asarray(leaf)
    digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()
