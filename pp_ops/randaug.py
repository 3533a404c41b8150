"""RandAugment: a few ops, drawn anew for each image, at one magnitude.

The line-up and the levels are those of the authors' efficientnet code
(tensorflow/tpu), which big_vision uses too: 16 ops, two more than in the paper
(Cubuk et al., 2020) and without its identity. "You May Be Running the Wrong
Inception Crop", appendix D, lists them and what is wrong with the contrast.
"""

import tensorflow as tf

from pp_ops import geometry, pixels
from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean
from pp_ops.uint8_op import check_number, one_of, register_uint8

_NUM_OPS = 16
_MAX_LEVEL = 10  # of the tables; magnitudes above it are in use nevertheless
_CONTRASTS = ("fixed", "legacy")


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
  level = magnitude / _MAX_LEVEL
  enhance = level * 1.8 + 0.1
  shear = sign * (level * 0.3)
  translate = sign * (level * 100)
  pad_size = int(level * 40)
  # efficientnet's arithmetic is on uint8: it counts thresholds modulo 256, and
  # any shift that is not 0 to 7, by 8 - bits, is one by 7.
  bits = int(level * 4)
  bits = bits if 0 < bits <= 8 else 1
  threshold = int(level * 256) % 256
  return [
    pixels.get_autocontrast(),
    pixels.get_equalize(),
    pixels.get_invert(),
    geometry.get_rotate(sign * (level * 30)),
    pixels.get_posterize(bits),
    pixels.get_solarize(threshold),
    pixels.get_color(enhance, legacy),
    pixels.get_contrast(enhance, legacy),
    pixels.get_brightness(enhance),
    pixels.get_sharpness(enhance, legacy),
    geometry.get_shear_x(shear),
    geometry.get_shear_y(shear),
    geometry.get_translate_x(translate),
    geometry.get_translate_y(translate),
    lambda image: geometry.cut_out(image, pad_size, place, fill=128),
    pixels.get_solarize_add(min(int(level * 110), 255)),
  ]


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
  check_number("num_layers", num_layers, 0, whole=True)
  check_number("magnitude", magnitude, 0, 30)
  if contrast not in _CONTRASTS:
    raise UserError(
      f"unknown contrast {contrast!r}: "
      + did_you_mean(str(contrast), _CONTRASTS)
    )

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
