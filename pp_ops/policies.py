"""Registers, for tf.data, the ops that are written once for all engines.

The ops themselves, policies, ops on two views and on value ranges, are in files
of their own.
"""

import tensorflow as tf

from pp_ops import autoaugment, jitter, randaug, ranges, timm_randaug, views
from pp_ops.engines import Engine
from pp_ops.registry import register
from pp_ops.uint8_op import one_of, ops_of, register_uint8


def _chooser(line_up, *dtypes):
  # One op more than the line-up: the identity, for `which` beyond the line-up.
  ops = [*ops_of(line_up), lambda image, *drawn: image]
  return one_of(ops, *(tf.TensorSpec([], dtype) for dtype in dtypes))


_ENGINE = Engine(tf, tf.cast, _chooser)
for _module in (autoaugment, jitter, randaug, timm_randaug):
  for _name, _get_op in _module.OPS.items():
    register_uint8(_name)(_ENGINE.bind(_get_op))
for _name, _get_op in views.OPS.items():
  register(_name, inkey=None)(_ENGINE.bind(_get_op))
for _name, _get_op in ranges.OPS.items():
  register(_name)(_ENGINE.bind(_get_op))
