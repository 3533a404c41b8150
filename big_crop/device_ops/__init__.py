"""The crops and the ops of pp strings on the accelerator, in JAX.

`random_resized_crop` is a function for any JAX code; `get_preprocess_fn` makes
a function of a pp string; `register` adds an op that pp strings can name.
"""

from big_crop.device_ops.crops import random_resized_crop
from big_crop.device_ops.registry import get_preprocess_fn, register

__all__ = ["get_preprocess_fn", "random_resized_crop", "register"]
