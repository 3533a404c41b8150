"""Ops that make labels: one-hot vectors, and strings to numbers."""

import zipfile

import numpy as np
import tensorflow as tf

from pp_ops.checks import check_onehot, check_there
from pp_ops.errors import UserError
from pp_ops.registry import register


@register("onehot", inkey=None)
def get_onehot(
  depth: int,
  key: str | None = None,
  key_result: str | None = None,
  multi: bool = True,
  on: float = 1,
  off: float = 0,
  inkey: str | None = None,
  outkey: str | None = None,
):
  """One-hot float32 vectors.

  Args:
    depth: number of classes.
    key: the feature to read. By default `labels`, as in big_vision, or `label`
      if there is no `labels`; the result is then written to `labels`.
    key_result: the feature to write, `key` itself by default.
    multi: whether a vector of n labels becomes one multi-hot [depth] vector, as
      ImageNet-ReaL's label sets need, rather than [n, depth].
    on: value at the classes of the labels.
    off: value at all other classes.
    inkey: the feature to read if `key` is not given; the result is then written
      to `outkey`.
    outkey: the feature to write if neither `key` nor `key_result` is given,
      `labels` by default.

  Returns:
    An op on the features: int, scalar or [n] -> float32 [depth] or [n, depth].
  """
  check_onehot(depth, key, key_result, inkey, outkey)
  given = key or inkey

  def onehot(features):
    read = given or ("labels" if "labels" in features else "label")
    check_there(features, [read], "onehot")
    label = features[read]
    hot = tf.one_hot(label, depth)
    if multi and label.shape.rank == 1:
      hot = tf.reduce_any(hot > 0, 0)
    hot = tf.where(tf.cast(hot, tf.bool), float(on), float(off))
    return {**features, key_result or key or outkey or "labels": hot}

  return onehot


@register("lookup")
def get_lookup(mapping: str, npzkey: str = "fnames", sep: str | None = None):
  """Replaces a string by its number in a file, or by -1 if it is not there.

  Args:
    mapping: a text file, whose line i (from 0) is the string of number i; or an
      .npz file with an array of strings.
    npzkey: name of the array in the .npz file.
    sep: if given, each line of the text file is a string, this separator and
      the string's number.

  Returns:
    string tensor -> int64 tensor.
  """
  if not isinstance(mapping, str):
    raise UserError(f"mapping={mapping!r}: need a file's name")
  try:
    with tf.io.gfile.GFile(mapping, "rb") as file:
      if mapping.endswith(".npz"):
        keys = np.load(file)[npzkey]
      else:
        keys = file.read().decode().splitlines()
    values = range(len(keys))
    if sep is not None and not mapping.endswith(".npz"):
      keys, values = zip(*(line.split(sep) for line in keys), strict=True)
      values = [int(v) for v in values]
  except (
    tf.errors.OpError,
    KeyError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
  ) as e:
    reason = str(e).split("\n")[0]
    raise UserError(f"mapping={mapping!r} does not load: {reason}") from None
  if len(set(map(str, keys))) < len(keys):
    raise UserError(f"mapping={mapping!r} has a string twice")
  keys, values = tf.constant(keys), tf.constant(list(values), tf.int64)

  def lookup(text):
    with tf.init_scope():  # one table, not one for each call of the graph
      start = tf.lookup.KeyValueTensorInitializer(keys, values)
      table = tf.lookup.StaticHashTable(start, -1)
    return table.lookup(text)

  return lookup
