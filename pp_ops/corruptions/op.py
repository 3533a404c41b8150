"""The op `corrupt`: a corruption of ImageNet-C in a pp string."""

import numpy as np
import tensorflow as tf

from pp_ops import corruptions
from pp_ops.errors import UserError
from pp_ops.uint8_op import register_uint8


@register_uint8("corrupt")
def get_corrupt(name: str, severity: int = 3, frost: str | None = None):
  """Corrupts an image as ImageNet-C does; see `pp_ops.corruptions.corrupt`.

  The paper corrupts images after their crop to 224x224:
  `decode|resize_small(256)|central_crop(224)|corrupt("fog", 3)|value_range`.

  Args:
    name: such as "gaussian_noise", one of `pp_ops.corruptions.NAMES`.
    severity: 1 to 5.
    frost: for "frost": the folder with ImageNet-C's photographs of frost. By
      default the environment variable FROST_DIR, or the folder of an installed
      `imagecorruptions`.

  Returns:
    A random op on uint8 [height, width, 3], 32 pixels or more each way.
  """
  corruptions.check_corruption(name, severity, frost)

  def on_array(image, seed):
    # A fresh generator per image, so that the result depends on the seed alone
    # and not on batches or threads.
    rng = np.random.default_rng(seed)
    return corruptions.corrupt(image, name, severity, rng, frost)

  def corrupt(image, rng):
    if image.shape[-1] != 3:
      raise UserError(f"op 'corrupt' got {image.shape}: need 3 channels")
    if None not in image.shape:
      corruptions.check_sides(name, *image.shape[:2])
    seed = rng.uniform([2], 0, 1 << 62, tf.int64)
    return tf.numpy_function(on_array, [image, seed], tf.uint8, stateful=False)

  return corrupt
