"""Crop windows by the million on a JAX device."""

import functools

import jax
import jax.numpy as jnp

from pp_ops.laws import windows


@functools.partial(jax.jit, static_argnums=(0, 2))
def sample(
  law: windows.Law,
  key: jax.Array,
  num: int,
  height: float,
  width: float,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
  """Draws windows of one image shape.

  All windows propose until the last one is admitted, so the time goes with the
  unluckiest; `pp_ops.laws.sample` draws again only what was rejected.

  Args:
    law: any law of `pp_ops.laws`.
    key: of the random numbers.
    num: how many windows.
    height: image height in pixels.
    width: image width in pixels.

  Returns:
    y, x, h, w: [num] int32, and fell_back: [num] bool.
  """
  height, width = jnp.float32(height), jnp.float32(width)
  attempts_key, place_key = jax.random.split(key)

  def rejected(carry):
    attempt, _, _, done = carry
    return (attempt < law.max_attempts) & ~done.all()

  def propose(carry):
    attempt, h, w, done = carry
    key = jax.random.fold_in(attempts_key, attempt)
    # Float32 uniforms are multiples of 2^-23; their midpoints keep the ratio
    # off its bounds, where rounding would tie and give impossible windows.
    u = jax.random.uniform(key, (law.draws, num)) + 2**-24
    new_h, new_w, ok = law.propose(jnp.moveaxis(u, 0, -1), height, width, jnp)
    use = ok & ~done
    return (
      attempt + 1,
      jnp.where(use, new_h, h),
      jnp.where(use, new_w, w),
      done | ok,
    )

  zero = jnp.zeros(num)
  start = (0, zero, zero, jnp.zeros(num, bool))
  _, h, w, done = jax.lax.while_loop(rejected, propose, start)
  v = jnp.moveaxis(jax.random.uniform(place_key, (2, num)), 0, -1)
  y, x = law.place(v, h, w, height, width, jnp)
  central = law.fallback(height, width, jnp)
  window = (
    jnp.where(done, a, b).astype(jnp.int32)
    for a, b in zip((y, x, h, w), central, strict=True)
  )
  return *window, ~done
