"""Gaussian blur as torchvision's: two matrix products, then rounding."""

import tensorflow as tf

from pp_ops.augmentations import blur_matrix, check_blur, check_blur_fits
from pp_ops.uint8_op import register_uint8


@register_uint8("gaussian_blur")
def get_gaussian_blur(kernel_size: int = 23, sigma=(0.1, 2.0)):
  """Blurs with a Gaussian of random width; torchvision's `GaussianBlur`.

  The image is reflected at its first and last pixels, and the result rounded to
  the nearest grey level, halves to even. `random_apply` makes it occasional.

  MoCo's own code blurs with Pillow's `ImageFilter.GaussianBlur(sigma)` instead:
  three box blurs, each rounded to grey levels, with the edge pixels repeated
  beyond the edges.

  Args:
    kernel_size: odd number of pixels. Both sides of the image must be longer
      than half of it.
    sigma: standard deviation in pixels, 0.01 or more: uniform in (least, most),
      or one number.

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  low, high = check_blur(kernel_size, sigma)

  def blur_rows(image, sigma):
    """Blurs [n, m, channels] along its first axis, and swaps the first two."""
    shape = tf.shape(image)
    place = tf.range(tf.cast(shape[0], tf.float32))
    matrix = blur_matrix(place, sigma, kernel_size, tf)
    rows = tf.reshape(matrix @ tf.reshape(image, [shape[0], -1]), shape)
    return tf.transpose(rows, [1, 0, 2])

  def gaussian_blur(image, rng):
    check_blur_fits(kernel_size, *image.shape[:2])
    check = tf.debugging.assert_greater(
      tf.shape(image)[:2],
      kernel_size // 2,
      f"the image is too small for kernel_size={kernel_size}",
    )
    width = low + rng.uniform() * (high - low)
    with tf.control_dependencies([check]):
      columns = blur_rows(tf.cast(image, tf.float32), width)
    return tf.cast(tf.round(blur_rows(columns, width)), tf.uint8)

  return gaussian_blur
