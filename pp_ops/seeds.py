"""How run, epoch, example, op and draw are packed into 128 bits of seed.

All engines use this packing, so this module does not import TensorFlow. tf.data
ops draw by TensorFlow's stateless generators (`pp_ops.random`), ops on an
accelerator by the same generator in JAX (`big_crop.device_ops.philox`).

The first of two int64 numbers holds run seed and epoch, the second repeat,
example index, op position and draw, each from the highest bits down. Different
draws therefore have different seeds.
"""

from typing import Any

from pp_ops.errors import UserError

EPOCH_BITS = 24
INDEX_BITS, OP_BITS, DRAW_BITS = 37, 10, 8
MOST_SEEDS = 1 << (63 - EPOCH_BITS)


def pack(run_seed: int, epoch: Any, index: Any, repeat: Any) -> tuple[Any, Any]:
  """The seed of one example in one epoch, as its two halves.

  Args:
    run_seed: the run's seed, 0 <= run_seed < 2^39.
    epoch: int64, below 2^24; a number, or an array of any library.
    index: int64, below 2^37: the example's place in its dataset.
    repeat: int64, below 2^8: which of the example's repeats in this epoch.

  Returns:
    (high, low), int64, shaped like the arguments. The lowest 18 bits of `low`
    are free for op position and draw, see `Draws`.
  """
  if not 0 <= run_seed < MOST_SEEDS:
    raise UserError(f"seed={run_seed}: need 0 <= seed < 2^{63 - EPOCH_BITS}")
  high = (run_seed << EPOCH_BITS) + epoch
  low = (repeat * (1 << INDEX_BITS) + index) * (1 << (OP_BITS + DRAW_BITS))
  return high, low


class Draws:
  """Counts the draws of one op of a pp string."""

  def __init__(self, position: int):
    """Counts for the op at `position` of its string."""
    self._next = position << DRAW_BITS
    self._end = self._next + (1 << DRAW_BITS)

  def next_bits(self, num: int = 1) -> int:
    """The number that the next draw adds to the low half of the example's seed.

    Args:
      num: how many draws to reserve; each one after the first adds one more
        than the draw before it.
    """
    if self._next + num > self._end:
      raise UserError(f"an op may draw {1 << DRAW_BITS} times at most")
    self._next += num
    return self._next - num
