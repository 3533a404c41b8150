"""Gaussian blur on the accelerator, as `pp_ops.blur`."""

import jax.numpy as jnp
import numpy as np

from big_crop.device_ops.resize import apply
from big_crop.device_ops.uint8_op import register_uint8
from pp_ops.augmentations import blur_matrix, check_blur, check_blur_fits


@register_uint8("gaussian_blur")
def get_gaussian_blur(kernel_size: int = 23, sigma=(0.1, 2.0)):
  """Blurs by a random width; see `pp_ops.blur.get_gaussian_blur`."""
  low, high = check_blur(kernel_size, sigma)

  def gaussian_blur(image, rng):
    check_blur_fits(kernel_size, *image.shape[:2])
    width = low + rng.uniform() * (high - low)
    rows, columns = (
      blur_matrix(np.arange(n, dtype=np.float32), width, kernel_size, jnp)
      for n in image.shape[:2]
    )
    return apply(image, rows, columns)

  return gaussian_blur
