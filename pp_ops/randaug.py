"""RandAugment: a few ops, drawn anew for each image, at one magnitude.

The line-up and the levels are those of the authors' efficientnet code
(tensorflow/tpu), which big_vision uses too: 16 ops, two more than in the paper
(Cubuk et al., 2020) and without its identity. "You May Be Running the Wrong
Inception Crop", appendix D, lists them and what is wrong with the contrast.
"""

import tensorflow as tf

from pp_ops import geometry
from pp_ops.policies import check_randaug, randaug_line_up
from pp_ops.registry import lookup
from pp_ops.uint8_op import one_of, register_uint8

_NUM_OPS = 16


def _line_up(magnitude, legacy, sign, place):
  """The 16 ops at a magnitude.

  Args:
    magnitude: the level.
    legacy: whether as big_vision rounds, and with its contrast.
    sign: scalar float32 tensor, 1 or -1: which way the directed ops go.
    place: float32 [2], uniform: where the cutout is.

  Returns:
    16 functions from image to image.
  """

  def op(name, args):
    if name == "cutout":
      return lambda image: geometry.cut_out(image, *args, place, fill=128)
    return lookup(name).factory(*args)

  line_up = randaug_line_up(magnitude, legacy)
  return [op(name, args_at(sign)) for name, args_at in line_up.items()]


@register_uint8("randaug")
def get_randaug(
  num_layers: int = 2, magnitude: float = 10, contrast: str = "fixed"
):
  """Applies `num_layers` ops, each drawn uniformly from 16.

  AutoContrast, Equalize, Invert, Rotate, Posterize, Solarize, Color, Contrast,
  Brightness, Sharpness, ShearX, ShearY, TranslateX, TranslateY, Cutout and
  SolarizeAdd, which are also ops of their own. Rotate, shear and translate go
  either way with probability one half. Empty places become 128.

  Args:
    num_layers: how many, 0 or more.
    magnitude: 0 to 30, of all ops alike; 10 is the top level of the tables,
      from where it goes on linearly until an op has no more room. Note that
      Color, Contrast, Brightness and Sharpness change nothing at 5, and that
      two ops get weaker with it, until they wrap around as in efficientnet's
      uint8: Posterize keeps int(0.4 magnitude) bits, but one where that is 0 or
      more than 8 (below 2.5, and from 22.5), and Solarize inverts from
      int(25.6 magnitude) modulo 256 up (everything at 0, 10, 20 and 30).
    contrast: "fixed", or "legacy" for what efficientnet and big_vision compute:
      a broken contrast (`pixels.get_contrast`), and grey values and smoothed
      ones that are truncated (`pixels.get_color`, `pixels.get_sharpness`).

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  check_randaug(num_layers, magnitude, contrast)

  op_at = lambda i: (
    lambda image, sign, place: _line_up(
      magnitude, contrast == "legacy", sign, place
    )[i](image)
  )
  choose = one_of(
    [op_at(i) for i in range(_NUM_OPS)],
    tf.TensorSpec([], tf.float32),
    tf.TensorSpec([2], tf.float32),
  )

  def randaug(image, rng):
    for _ in range(num_layers):
      # Outside of the branches, so that each layer draws once.
      which, way, *place = tf.unstack(rng.uniform([4]))
      sign = tf.where(way < 0.5, -1.0, 1.0)
      which = tf.cast(which * _NUM_OPS, tf.int32)
      image = choose(which, image, sign, tf.stack(place))
    return image

  return randaug
