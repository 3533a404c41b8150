"""TensorFlow's stateless random numbers, in JAX and in NumPy.

The generator is Philox 4x32-10 (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", 2011), and the seed is scrambled into key and counter as
`tf.random.stateless_uniform` does it. So an op that runs here draws exactly the
numbers that it draws in tf.data: the same windows, flips and magnitudes.

JAX computes in 32 bits unless told otherwise. A number that TensorFlow draws in
float64 becomes the midpoint of the interval of width 2^-23 that it lies in. A
window's side is a rounded function of such numbers, so it occasionally differs
by a pixel.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pp_ops.seeds import Draws

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
# The key with which TensorFlow scrambles seeds.
_SCRAMBLE_KEY = (0x3EC8F720, 0x02461E29)


def _product(a, b):
  """High and low 32 bits of the product of uint32 `a` and an int `b`."""
  a_low, a_high = a & 0xFFFF, a >> 16
  b_low, b_high = (np.uint32(x) for x in (b & 0xFFFF, b >> 16))
  low, middle, other = a_low * b_low, a_high * b_low, a_low * b_high
  carry = ((low >> 16) + (middle & 0xFFFF) + (other & 0xFFFF)) >> 16
  high = a_high * b_high + (middle >> 16) + (other >> 16) + carry
  return high, a * np.uint32(b)


def philox(counter: Sequence, key: Sequence) -> list:
  """Philox 4x32-10: four random uint32 for each counter and key.

  Args:
    counter: four uint32 arrays, of NumPy or JAX, that broadcast.
    key: two such arrays.

  Returns:
    Four uint32 arrays.
  """
  c0, c1, c2, c3 = counter
  k0, k1 = key
  for i in range(10):
    if i:
      k0, k1 = k0 + np.uint32(_WEYL[0]), k1 + np.uint32(_WEYL[1])
    high0, low0 = _product(c0, _MULTIPLIERS[0])
    high1, low1 = _product(c2, _MULTIPLIERS[1])
    c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
  return [c0, c1, c2, c3]


def random_bits(seed: jax.Array, num: int) -> jax.Array:
  """`tf.random.stateless_uniform([num], seed, None, None, tf.uint32)`.

  The seed is uint32 [4]: the two int64 of a stateless seed, each with its low
  half first. Returns uint32 [num], a NumPy array if the seed is one, else a JAX
  array.
  """
  xp = np if isinstance(seed, np.ndarray) else jnp
  key = [xp.asarray(k, np.uint32) for k in _SCRAMBLE_KEY]
  # Integer overflow is part of the algorithm; NumPy warns of it for scalars.
  with np.errstate(over="ignore"):
    mixed = philox([seed[i] for i in range(4)], key)
    count = xp.arange(-(-num // 4), dtype=np.uint32)
    zero = xp.zeros_like(count)
    words = philox([count, zero, mixed[2] + zero, mixed[3] + zero], mixed[:2])
  return xp.stack(words, -1).reshape(-1)[:num]


def permutation(num: int, seed: np.ndarray) -> np.ndarray:
  """`tf.random.experimental.stateless_shuffle(tf.range(num), seed)`.

  `num` must be below 2^31, the seed is int64 [2]. Returns int64 [num].
  """
  words = random_bits(seed_words(*seed), max(num - 1, 1))
  jumps = words % np.arange(num, 1, -1, dtype=np.uint32)[: len(words)]
  order = list(range(num))  # faster than an array, element by element
  for i, jump in enumerate(jumps.tolist() if num > 1 else []):
    order[i], order[i + jump] = order[i + jump], order[i]
  return np.array(order, np.int64)


def seed_words(high: np.ndarray, low: np.ndarray) -> np.ndarray:
  """The two int64 of `pp_ops.seeds.pack`, shaped [...], as uint32 [..., 4]."""
  pair = np.stack(np.broadcast_arrays(high, low), -1).astype("<i8")
  return np.ascontiguousarray(pair).view("<u4")


class Rng(Draws):
  """The source of a random op's numbers: `pp_ops.random.Rng` in JAX."""

  def __init__(self, seed: jax.Array, position: int = 0):
    """Draws for the op at `position` of its pp string.

    Args:
      seed: uint32 [4], a row of `seed_words`.
      position: the op's place in the string.
    """
    super().__init__(position)
    self._seed = seed

  def reserve(self, num: int) -> jax.Array:
    """Reserves the next `num` draws for another `Rng`, and returns its seed."""
    # No carry into the next word, because the seed's lowest bits are free.
    return self._seed + jnp.array([0, 0, self.next_bits(num), 0], jnp.uint32)

  def bits(self, num: int) -> jax.Array:
    """uint32 [num]. Like a call of any other method, this is one draw."""
    return random_bits(self.reserve(1), num)

  def uniform(self, shape: Sequence[int] = (), dtype=jnp.float32) -> jax.Array:
    """Uniform float32 numbers in [0, 1).

    With dtype "float64" they are float32, too, but stand for the float64
    numbers that TensorFlow would draw: they differ by at most 2^-24, and are
    never 0 or 1.
    """
    num = math.prod(shape)
    if dtype == "float64":
      words = self.bits(2 * num).reshape(-1, 2)
      upper = (words[:, 0] & 0xFFFFF) << 3 | words[:, 1] >> 29
      u = (upper.astype(jnp.float32) + 0.5) * 2.0**-23
      return u.reshape(shape)
    return _float32(self.bits(num)).reshape(shape)

  def integers(self, low: int, high: int) -> jax.Array:
    """int32 scalar, uniform in low..high - 1."""
    word = self.bits(1)[0] % np.uint32(high - low)
    return word.astype(jnp.int32) + low

  def normal(self, shape: Sequence[int] = (), dtype=jnp.float32) -> jax.Array:
    """Standard normal float32 numbers (Box-Muller).

    For the arguments see `uniform`. The numbers equal TensorFlow's except for
    the last bits of logarithm, sine and cosine.
    """
    num = math.prod(shape)
    pairs = -(-num // 2)
    if dtype == "float64":
      u = self.uniform([pairs, 2], "float64")
    else:
      u = _float32(self.bits(2 * pairs)).reshape(pairs, 2)
    radius, angle = _polar(u[:, 0], u[:, 1])
    both = jnp.stack([jnp.sin(angle) * radius, jnp.cos(angle) * radius], -1)
    return both.reshape(-1)[:num].reshape(shape)

  def streams(self, num: int) -> jax.Array:
    """Key (2 words) and upper half of the counter (2) for each of `num` draws.

    Returns uint32 [4, num], for `normal_at`.
    """
    own = np.zeros([num, 4], np.uint32)
    own[:, 2] = [self.next_bits() for _ in range(num)]
    key = [jnp.uint32(k) for k in _SCRAMBLE_KEY]
    return jnp.stack(philox([*(self._seed + own).T], key))


def normal_at(place: jax.Array, stream: jax.Array) -> jax.Array:
  """Single elements of what `Rng.normal` would draw.

  A counter-based generator gives any element without those before it. Noise for
  boxes whose sizes are known only on the device can therefore be computed in an
  array of the image's size, with one call of the generator for each value.

  Args:
    place: int32, flat indices of the elements.
    stream: four uint32 arrays that broadcast with `place`, see `Rng.streams`.

  Returns:
    float32, shaped like `place`.
  """
  place = place.astype(jnp.uint32)
  count = [place >> 2, jnp.zeros_like(place), *stream[2:]]
  a, b, c, d = philox(count, stream[:2])
  second = (place & 2) > 0
  radius, angle = _polar(
    *(_float32(w) for w in (jnp.where(second, c, a), jnp.where(second, d, b)))
  )
  wave = jnp.where((place & 1) > 0, jnp.cos(angle), jnp.sin(angle))
  return wave * radius


def _float32(words):
  return (words & 0x7FFFFF).astype(jnp.float32) * 2.0**-23


def _polar(u, v):
  """Box-Muller's radius and angle for two uniforms, as TensorFlow has it."""
  return jnp.sqrt(-2.0 * jnp.log(jnp.maximum(u, 1e-7))), (2.0 * math.pi) * v
