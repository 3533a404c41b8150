"""Ops that choose, combine and reshape an example's features, of any kind."""

import tensorflow as tf

from pp_ops.checks import check_choice, check_names, check_shape, check_there
from pp_ops.errors import UserError
from pp_ops.registry import register


@register("concat", inkey=None)
def get_concat(inkeys, outkey: str | None = None, axis: int = -1):
  """Concatenates features `inkeys` into `outkey`, by default `inkeys[0]`."""
  check_names(inkeys, "inkeys")

  def concat(features):
    check_there(features, inkeys, "concat")
    out = tf.concat([features[k] for k in inkeys], axis)
    return {**features, outkey or inkeys[0]: out}

  return concat


@register("flatten", inkey=None)
def get_flatten(keys=None):
  """Flattens nested features: `outer/inner` for dicts, `outer/0` for lists.

  Args:
    keys: names of the outermost features to flatten, all by default.

  Returns:
    An op on the features.
  """
  if keys is not None:
    keys = _names(keys)
    check_names(keys, "keys")

  def leaves(name, value):
    if isinstance(value, (list, tuple)):
      value = dict(enumerate(value))
    if not isinstance(value, dict):
      return {name: value}
    nested = [leaves(f"{name}/{k}", v) for k, v in value.items()]
    return {k: v for d in nested for k, v in d.items()}

  def flatten(features):
    out = {}
    for k, v in features.items():
      out |= leaves(k, v) if keys is None or k in keys else {k: v}
    return out

  return flatten


@register("setdefault", inkey=None)
def get_setdefault(key: str, value):
  """Sets `key` to `value` where it is missing or an empty tensor."""

  def setdefault(features):
    old = features.get(key)
    if old is None:
      return {**features, key: tf.constant(value)}
    new = tf.constant(value, old.dtype)
    # An axis whose length is 0, or not known statically, becomes 1.
    new = tf.broadcast_to(new, [s or 1 for s in old.shape])
    new = tf.cond(tf.size(old) > 0, lambda: old, lambda: new)
    return {**features, key: new}

  return setdefault


def _names(keys):
  return [keys] if isinstance(keys, str) else keys


@register("choice", inkey=None)
def get_choice(
  n="single",
  key=None,
  fewer_ok: bool = False,
  inkey=None,
  outkey=None,
):
  """Chooses random entries along the first axis, the same of all features.

  The chosen entries stay in their order.

  Args:
    n: how many different entries; (least, most) for a uniform number of them;
      or "single" for one entry without its leading axis.
    key: one feature or a list of features of the same length.
    fewer_ok: allow features of fewer than n entries, all of which are chosen.
    inkey: the features to read, if they are not those to write.
    outkey: the features to write; `{key}` in a name stands for the feature that
      is read.

  Returns:
    A random op on the features.
  """
  inkeys, outkeys = _names(inkey or key), _names(outkey or key)
  if not inkeys or not outkeys or len(inkeys) != len(outkeys):
    raise UserError(
      f"key={key!r}, inkey={inkey!r}, outkey={outkey!r}: need key, or inkey "
      "and as many outkey"
    )
  pair = n if isinstance(n, (list, tuple)) else (n, n)
  whole = len(pair) == 2 and all(type(i) is int and i > 0 for i in pair)
  if n != "single" and not (whole and pair[0] <= pair[1]):
    raise UserError(f"n={n!r}: need a number, (least, most) or 'single'")
  least, most = (1, 1) if n == "single" else pair

  def choice(features, rng):
    check_there(features, inkeys, "choice")
    values = [tf.convert_to_tensor(features[k]) for k in inkeys]
    if any(v.shape.rank == 0 for v in values):
      raise UserError(f"op 'choice': {inkeys} has a scalar: need entries")
    length = tf.shape(values[0])[0]
    checks = [tf.debugging.assert_equal(tf.shape(v)[0], length) for v in values]
    if not fewer_ok:
      checks.append(tf.debugging.assert_greater_equal(length, least))
    with tf.control_dependencies(checks):
      order = tf.argsort(rng.uniform([length], dtype=tf.float64))
    count = most
    if least < most:
      count = rng.uniform([], least, most + 1, tf.int32)
    places = tf.sort(order[:count])
    out = [tf.gather(v, places[0] if n == "single" else places) for v in values]
    if n != "single" and least == most and not fewer_ok:
      out = [tf.ensure_shape(v, [most, *v.shape[1:]]) for v in out]
    names = [o.format(key=k) for o, k in zip(outkeys, inkeys, strict=True)]
    return {**features, **dict(zip(names, out, strict=True))}

  return choice


@register("reshape")
def get_reshape(new_shape):
  """Gives a feature another shape, as `tf.reshape` does."""
  check_shape(new_shape, "new_shape")
  return lambda x: tf.reshape(x, new_shape)


@register("squeeze_last_dim")
def get_squeeze_last_dim():
  """Takes away a last axis of length 1."""
  return lambda x: tf.squeeze(x, -1)


_WHERE = ("after", "before", "both")


@register("pad_to_shape")
def get_pad_to_shape(shape, pad_value=0, where: str = "after"):
  """Pads a tensor to `shape`.

  Args:
    shape: a length for each axis, None to leave it alone.
    pad_value: what to pad with.
    where: "after", "before", or "both" for half of it before, rounded down.

  Returns:
    The op.
  """
  check_shape(shape, "shape", none_too=True)
  check_choice("where", where, _WHERE)

  def pad(x):
    if x.shape.rank != len(shape):
      raise UserError(f"op 'pad_to_shape' got {x.shape} for shape={shape!r}")
    lengths = tf.unstack(tf.shape(x))
    room = [
      0 if new is None else new - old
      for new, old in zip(shape, lengths, strict=True)
    ]
    before = {"after": lambda r: 0, "before": lambda r: r}.get(
      where, lambda r: r // 2
    )
    padding = [[before(r), r - before(r)] for r in room]
    out = tf.pad(x, padding, constant_values=tf.constant(pad_value, x.dtype))
    return tf.ensure_shape(out, shape)

  return pad
