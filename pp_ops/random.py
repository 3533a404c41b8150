"""Random numbers of ops: functions of (run, epoch, example, op, draw).

An example carries one stateless seed, an int64 pair into which run seed, epoch
and example index are packed without loss. Op position and draw are packed into
the pair's free low bits. TensorFlow's stateless ops scramble all 128 bits with
Philox, so that any two different seeds give independent streams. Without a
seed, ops draw from TensorFlow's stateful generator.
"""

import tensorflow as tf

from pp_ops import seeds


def example_seed(
  run_seed: int, epoch: tf.Tensor, index: tf.Tensor, repeat: tf.Tensor | int = 0
):
  """The seed of one example in one epoch: int64 [2], for the feature `"_seed"`.

  The arguments are int64 scalars; `seeds.pack` explains them.
  """
  high, low = seeds.pack(
    run_seed, *(tf.cast(x, tf.int64) for x in (epoch, index, repeat))
  )
  return tf.stack([high, low])


class Rng(seeds.Draws):
  """The source of a random op's numbers; each call gives fresh ones."""

  def __init__(self, seed: tf.Tensor | None = None, position: int = 0):
    """Draws for the op at `position` of its pp string.

    Args:
      seed: int64 [2] of `example_seed`, or None for TensorFlow's stateful
        generator.
      position: the op's place in the string.
    """
    super().__init__(position)
    self._seed = seed

  def seed(self) -> tf.Tensor | None:
    """A fresh int64 [2] seed for a `tf.random.stateless_*` op, or None."""
    return self.reserve(1)

  def reserve(self, num: int) -> tf.Tensor | None:
    """Reserves the next `num` draws for another `Rng`, and returns its seed.

    Returns:
      int64 [2], or None if this `Rng` has no seed.
    """
    first = self.next_bits(num)
    if self._seed is None:
      return None
    return self._seed + tf.constant([0, first], tf.int64)

  def uniform(self, shape=(), minval=0, maxval=None, dtype=tf.float32):
    """Uniform numbers in [minval, maxval), as `tf.random.uniform`."""
    seed, dtype = self.seed(), tf.as_dtype(dtype)
    if seed is None:
      return tf.random.uniform(shape, minval, maxval, dtype)
    if maxval is None and dtype.is_floating:
      maxval = 1
    return tf.random.stateless_uniform(shape, seed, minval, maxval, dtype)

  def normal(self, shape=(), dtype=tf.float32):
    """Standard normal numbers."""
    seed = self.seed()
    if seed is None:
      return tf.random.normal(shape, dtype=dtype)
    return tf.random.stateless_normal(shape, seed, dtype=dtype)
