"""Augmentation ops on pixel values, as Pillow's, in a graph.

They map uint8 [height, width, channels], 3 channels or 1, to uint8 of the same
shape. RandAugment (`pp_ops.randaug`) chooses from them and defines its level
tables. Numbers may be scalar tensors, so that a policy can draw them per image.

Where Pillow and TensorFlow's own RandAugment (tensorflow/tpu, efficientnet;
big_vision has a copy) differ, these ops follow Pillow, unless `legacy=True`.
"""

import tensorflow as tf

from pp_ops.augmentations import GREY, check_bool
from pp_ops.checks import check_number
from pp_ops.uint8_op import register_uint8


def _flat(image, dtype=tf.float32):
  """[height, width * channels], because broadcasting over long rows is fast."""
  return tf.cast(tf.reshape(image, [tf.shape(image)[0], -1]), dtype)


def _per_channel(values, image):
  """Repeats values [channels] to [width * channels], a row of `_flat`."""
  return tf.tile(values, [tf.shape(image)[1]])


def _blend(degenerate, image, factor):
  """Pillow's blend: degenerate + factor (image - degenerate) as uint8.

  The result is clipped to 0..255 and truncated. Both inputs are float32, of
  whole grey levels, and broadcast. Factor 0 gives `degenerate`, 1 the image,
  and more than 1 extrapolates beyond the image.
  """
  out = degenerate + factor * (image - degenerate)
  return tf.cast(tf.minimum(tf.maximum(out, 0.0), 255.0), tf.uint8)


_GREY = [w / 65536 for w in GREY]  # exact in float32


@register_uint8("autocontrast")
def get_autocontrast():
  """Stretches each channel linearly to 0..255; a flat one stays as it is.

  Pillow's `ImageOps.autocontrast`: floor(255 (x - low) / (high - low)). It is
  computed exactly here, whereas Pillow and efficientnet may lose a grey level
  by rounding.
  """

  def autocontrast(image):
    flat = _flat(image, tf.uint8)
    channels = image.shape[-1]

    def extreme(reduce):
      # Over rows first, because that reads whole rows of memory.
      columns = tf.reshape(reduce(flat, 0), [-1, channels])
      return tf.cast(reduce(columns, 0), tf.float32)

    low, high = extreme(tf.reduce_min), extreme(tf.reduce_max)
    stretch = high > low
    low = tf.where(stretch, low, 0.0)
    width = tf.where(stretch, high - low, 255.0)
    above = tf.cast(flat, tf.float32) - _per_channel(low, image)
    out = above * 255.0 / _per_channel(width, image)
    return tf.reshape(tf.cast(out, tf.uint8), tf.shape(image))

  return autocontrast


@register_uint8("equalize")
def get_equalize():
  """Flattens each channel's histogram, exactly as `ImageOps.equalize`."""

  def equalize(image):
    channels = image.shape[-1]
    # One histogram and one lookup table hold all channels side by side.
    offsets = _per_channel(tf.range(channels) * 256, image)
    place = _flat(image, tf.int32) + offsets
    bins = 256 * channels
    counts = tf.histogram_fixed_width(place, [0, bins - 1], bins)
    counts = tf.reshape(counts, [channels, 256])
    upto = tf.cumsum(counts, 1)
    # The number of pixels below the highest level that occurs.
    but_highest = tf.where(upto < upto[:, -1:], upto, 0)
    step = tf.reduce_max(but_highest, 1, keepdims=True) // 255
    table = (upto - counts + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    table = tf.reshape(tf.cast(table, tf.uint8), [-1])
    # For single bytes gather_nd is faster than gather.
    out = tf.gather_nd(table, place[..., None])
    return tf.reshape(out, tf.shape(image))

  return equalize


@register_uint8("invert")
def get_invert():
  """Replaces each value x by 255 - x; Pillow's `ImageOps.invert`."""
  return tf.bitwise.invert


@register_uint8("posterize")
def get_posterize(bits: int):
  """Keeps the `bits` highest bits of each value; `ImageOps.posterize`.

  0 bits leave nothing: black. (efficientnet keeps one bit, see `randaug`.)
  """
  check_number("bits", bits, 0, 8, whole=True)

  def posterize(image):
    kept = 256 - tf.bitwise.left_shift(1, 8 - bits)
    return tf.bitwise.bitwise_and(image, tf.cast(kept, tf.uint8))

  return posterize


def _all_ones_where(condition):
  """uint8 255 where a bool is true, else 0: faster than tf.where."""
  return tf.cast(condition, tf.uint8) * tf.constant(255, tf.uint8)


def _below(image, threshold):
  """uint8 255 where image < threshold, 0 <= threshold <= 256, else 0."""
  # A threshold of 256, which no uint8 can hold, is handled by the second term.
  limit = tf.cast(tf.minimum(threshold, 255), tf.uint8)
  return _all_ones_where(image < limit) | _all_ones_where(threshold > 255)


@register_uint8("solarize")
def get_solarize(threshold: int = 128):
  """Inverts values at or above `threshold`; Pillow's `ImageOps.solarize`.

  Threshold 0 inverts everything and 256 nothing. (efficientnet treats 256 as 0,
  see `randaug`.)
  """
  check_number("threshold", threshold, 0, 256, whole=True)

  def solarize(image):
    return image ^ ~_below(image, threshold)

  return solarize


@register_uint8("solarize_add")
def get_solarize_add(addition: int, threshold: int = 128):
  """Adds to values below `threshold`, clipped to 0..255; efficientnet's op."""
  check_number("addition", addition, -255, 255, whole=True)
  check_number("threshold", threshold, 0, 256, whole=True)

  def solarize_add(image):
    up = tf.cast(tf.maximum(addition, 0), tf.uint8)
    down = tf.cast(tf.maximum(-addition, 0), tf.uint8)
    added = tf.maximum(tf.minimum(image, 255 - up) + up, down) - down
    return image ^ ((image ^ added) & _below(image, threshold))

  return solarize_add


@register_uint8("color")
def get_color(factor: float, legacy: bool = False):
  """Less or more colour: factor 0 is grey, 1 the image itself.

  Pillow's `ImageEnhance.Color`.

  Args:
    factor: at least 0.
    legacy: use the grey of efficientnet, which is TensorFlow's, instead of
      Pillow's. It is a level lower for about half of all colours.

  Returns:
    The op. An image of one channel stays as it is.
  """
  check_number("factor", factor, 0)
  check_bool("legacy", legacy)

  def color(image):
    if image.shape[-1] == 1:
      return image
    pixels = tf.cast(tf.reshape(image, [-1, 3]), tf.float32)
    if legacy:
      grey = tf.reshape(tf.image.rgb_to_grayscale(image), [-1, 1])
      grey = tf.cast(grey, tf.float32)
    else:
      # The matrix makes all three channels grey, because broadcasting a single
      # grey channel is slow.
      grey = tf.floor(pixels @ tf.constant([[w] * 3 for w in _GREY]) + 0.5)
    return tf.reshape(_blend(grey, pixels, factor), tf.shape(image))

  return color


def _mean_grey(image):
  """Pillow's mean grey, float32 scalar: greys and their mean are rounded."""
  if image.shape[-1] == 1:
    grey = image
  else:
    r, g, b = (
      w * tf.cast(image[..., i], tf.float32) for i, w in enumerate(_GREY)
    )
    grey = tf.floor(r + g + b + 0.5)
  mean = tf.reduce_mean(tf.cast(grey, tf.float64))
  return tf.cast(tf.floor(mean + 0.5), tf.float32)


def _pixels_by_256(image):
  count = tf.cast(tf.size(image) // image.shape[-1], tf.float32)
  return tf.floor(tf.minimum(count / 256.0, 255.0))


@register_uint8("contrast")
def get_contrast(factor: float, legacy: bool = False):
  """Less or more contrast: factor 0 is the mean grey, 1 the image itself.

  Pillow's `ImageEnhance.Contrast`.

  Args:
    factor: at least 0.
    legacy: compute what efficientnet and big_vision do: their "mean" is the
      number of pixels / 256, at most 255, whatever the image shows, so that the
      op brightens or darkens ("You May Be Running the Wrong Inception Crop",
      appendix D). For 224x224 pixels that "mean" is 196.
  """
  check_number("factor", factor, 0)
  check_bool("legacy", legacy)
  mean = _pixels_by_256 if legacy else _mean_grey

  def contrast(image):
    return _blend(mean(image), tf.cast(image, tf.float32), factor)

  return contrast


@register_uint8("brightness")
def get_brightness(factor: float):
  """Multiplies each value by `factor`; Pillow's `ImageEnhance.Brightness`."""
  check_number("factor", factor, 0)

  def brightness(image):
    return _blend(0.0, tf.cast(image, tf.float32), factor)

  return brightness


def _smooth(image):
  """Pillow's smoothing, rounded, of all but the outermost pixels.

  Returns:
    float32 [height - 2, (width - 2) * channels].
  """
  c = image.shape[-1]
  flat = _flat(image)
  rows = flat[:-2] + flat[1:-1] + flat[2:]
  box = rows[:, : -2 * c] + rows[:, c:-c] + rows[:, 2 * c :]
  return tf.floor((box + 4.0 * flat[1:-1, c:-c]) / 13.0 + 0.5)


def _smooth_legacy(image):
  """efficientnet's smoothing, shaped like `_smooth`'s: truncated, not rounded.

  It is the same convolution as efficientnet's, because truncation depends on
  the rounding of sums that should be whole numbers.
  """
  c = image.shape[-1]
  kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13.0
  out = tf.nn.depthwise_conv2d(
    tf.cast(image, tf.float32)[None],
    tf.tile(kernel[..., None, None], [1, 1, c, 1]),
    strides=[1, 1, 1, 1],
    padding="SAME",  # An image of fewer than three rows would fail as "VALID".
  )
  return _flat(tf.floor(out[0]))[1:-1, c:-c]


@register_uint8("sharpness")
def get_sharpness(factor: float, legacy: bool = False):
  """Less or more sharpness: factor 0 is smoothed, 1 the image itself.

  Pillow's `ImageEnhance.Sharpness`.

  Args:
    factor: at least 0.
    legacy: truncate the smoothed values, like efficientnet, which makes half of
      them a level lower. Pillow and the default round them.

  Returns:
    The op. It smooths with the kernel ((1, 1, 1), (1, 5, 1), (1, 1, 1)) / 13;
    the outermost pixels stay as they are.
  """
  check_number("factor", factor, 0)
  check_bool("legacy", legacy)
  smooth = _smooth_legacy if legacy else _smooth

  def sharpness(image):
    c = image.shape[-1]
    out = _blend(smooth(image), _flat(image)[1:-1, c:-c], factor)
    # These slices also reassemble an image whose height or width is only one or
    # two pixels, where there is no middle.
    edge = _flat(image, tf.uint8)
    sides = edge[1:-1]
    middle = tf.concat([sides[:, :c], out, sides[:, c:][:, -c:]], 1)
    out = tf.concat([edge[:1], middle, edge[1:][-1:]], 0)
    return tf.reshape(out, tf.shape(image))

  return sharpness
