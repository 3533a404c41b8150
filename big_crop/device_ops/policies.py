"""Registers, for the accelerator, the ops written once for all engines.

Each layer of a policy draws an op for each image, and runs each stage that the
ops consist of once for the whole batch; see `uint8_op`.
"""

import jax.numpy as jnp

from big_crop.device_ops.registry import register
from big_crop.device_ops.uint8_op import chooser, register_uint8
from pp_ops import autoaugment, jitter, randaug, ranges, timm_randaug, views
from pp_ops.engines import Engine

_ENGINE = Engine(jnp, jnp.asarray, chooser)
for _module in (autoaugment, jitter, randaug, timm_randaug):
  for _name, _get_op in _module.OPS.items():
    register_uint8(_name)(_ENGINE.bind(_get_op))
for _name, _get_op in views.OPS.items():
  register(_name, inkey=None)(_ENGINE.bind(_get_op))
for _name, _get_op in ranges.OPS.items():
  register(_name)(_ENGINE.bind(_get_op))
