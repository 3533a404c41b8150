"""Crops: every law of `pp_ops.laws`, run on the accelerator in float32.

`inception_crop` has TensorFlow's law. Its windows are those of
`inception_crop_coupled` in tf.data and not of `inception_crop`, because
TensorFlow's kernel makes its own random numbers from a seed.
"""

import copy
import dataclasses

import jax
import jax.numpy as jnp

from big_crop.device_ops import image as image_ops
from big_crop.device_ops.canvas import Canvas
from pp_ops import registry as host
from pp_ops.checks import check_method, check_size
from pp_ops.laws import Law, arguments
from pp_ops.laws import names as law_names
from pp_ops.registry import Op


def cut(law: Law, canvas: Canvas, u: jax.Array, v: jax.Array) -> Canvas:
  """Cuts a law's window out of an image; the uniforms u and v decide which.

  u [law.max_attempts, law.draws] and v [2] are float32 in [0, 1).
  """
  height, width = (n.astype(jnp.float32) for n in (canvas.height, canvas.width))
  *window, _ = law.window(u, v, height, width, jnp)
  y, x, h, w = (a.astype(jnp.int32) for a in window)
  return dataclasses.replace(
    canvas, y=canvas.y + y, x=canvas.x + x, height=h, width=w, least=(1, 1)
  )


def get_crop(name: str, law: Law, size, resize: dict):
  """The function of a crop op; see `pp_ops.crops.get_crop`."""
  check_method(resize["method"], random=True)
  size = None if size is None else check_size(size)

  def crop(image, rng):
    own = copy.copy(rng)
    if size is not None and resize["method"] == "random":
      rng.next_bits()  # skips the draw that the resize uses
    u = rng.uniform([law.max_attempts, law.draws], "float64")
    v = rng.uniform([2], "float64")
    window = cut(law, image_ops.not_resized(image, name), u, v)
    if size is None:
      return window
    return image_ops.resize_to(window, size, rng=own, **resize)

  return crop


def law_op(name: str) -> Op | None:
  """The crop op of the law of this name, or None if there is no such law."""
  law_class = law_names.law_class_of(name)
  if law_class is None:
    return None

  def factory(*args, **kwargs):
    return get_crop(name, *arguments.bind(law_class, args, kwargs))

  factory.__signature__ = arguments.signature(law_class)
  return Op(factory, "image", "image", None)


def random_resized_crop(
  key: jax.Array,
  images: jax.Array,
  sizes: jax.Array | None = None,
  law: Law | str = "inception_crop_fixed",
  size: int | tuple[int, int] = 224,
  method: str = "bilinear",
  antialias: bool = True,
) -> jax.Array:
  """Crops and resizes a batch on the accelerator, in any JAX code.

  Args:
    key: a JAX random key.
    images: [B, S, T, C], uint8 or float.
    sizes: int32 [B, 2], the true (height, width) of each image, which lies at
      the top left of its [S, T] array; by default images fill their arrays.
    law: a law of `pp_ops.laws`, or a crop op of a pp string, for example
      "beta_crop(alpha=2, beta=1)".
    size: size of the result in pixels, an int or (height, width).
    method: one of `pp_ops.checks.METHODS`.
    antialias: whether to antialias, as torchvision does and TensorFlow by
      default does not.

  Returns:
    [B, *size, C] of the same dtype; integers are rounded.

  Raises:
    ValueError: in one line, for a wrong law, size or method.
  """
  law = host.law_of(law) if isinstance(law, str) else law
  check_method(method)
  size = check_size(size)
  batch = images.shape[0]
  if sizes is None:
    sizes = jnp.tile(jnp.array(images.shape[1:3], jnp.int32), [batch, 1])
  u_key, v_key = jax.random.split(key)
  u = jax.random.uniform(u_key, (batch, law.max_attempts, law.draws))
  # The uniforms are multiples of 2^-23. Half of that is added, because 0 would
  # give exactly the smallest ratio, where rounding a side may be a tie.
  u += 2.0**-24
  v = jax.random.uniform(v_key, (batch, 2))

  def one(image, shape, u, v):
    zero = jnp.int32(0)
    canvas = Canvas(image, zero, zero, shape[0], shape[1])
    return image_ops.resize_to(
      cut(law, canvas, u, v), size, method, antialias, None
    )

  return jax.vmap(one)(images, sizes, u, v)
