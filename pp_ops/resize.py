"""Faster equivalents of `tf.image.resize`, and Pillow's resize."""

import tensorflow as tf

_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


def resize_by_tensorflow(
  image: tf.Tensor,
  size: tf.Tensor | tuple[int, int],
  method: str,
  antialias: bool = False,
) -> tf.Tensor:
  """`tf.image.resize`, faster for integer images that are not antialiased.

  Images are [H, W, C] of any real dtype; the size is (height, width) or an
  int32 [2] tensor. Returns [height, width, C]; float32 unless the method is
  "nearest", which keeps the dtype.
  """
  if image.dtype.is_integer and method != "nearest" and not antialias:
    # The kernel would convert a pixel to float each time that it reads it.
    image = tf.cast(image, tf.float32)
  return tf.image.resize(image, size, method, antialias=antialias)


def resize_antialiased(
  image: tf.Tensor,
  size: tf.Tensor | tuple[int, int],
  method: str,
  transposed: bool = False,
) -> tf.Tensor:
  """`tf.image.resize(image, size, method, antialias=True)` in half the time.

  TensorFlow's kernel spends most of its time on loops over pixels of three
  channels each. Here both passes run over whole rows, with transposes in
  between, and a window that needs no antialiasing goes to the plain bilinear
  kernel.

  Args:
    image: [H, W, C], any real dtype.
    size: (height, width), or an int32 [2] tensor.
    method: "bilinear" or "bicubic".
    transposed: leave out the last transpose, for callers that process the image
      further in that layout.

  Returns:
    float32 [height, width, C], or [width, C, height] if transposed.
  """
  size = tf.convert_to_tensor(size)
  new_height, new_width = size[0], size[1]
  shape = tf.shape(image)
  height, width, channels = shape[0], shape[1], shape[2]

  def plain(x):
    out = tf.cast(resize_by_tensorflow(x, size, method), tf.float32)
    return columns_first(out) if transposed else out

  def shrink_rows():
    rows = _resize_rows(tf.reshape(image, [height, -1]), new_height, method)
    return tf.reshape(rows, [new_height, width, channels])

  def shrink_columns():
    columns = tf.reshape(columns_first(shrink_rows()), [width, -1])
    columns = _resize_rows(columns, new_width, method)
    out = tf.reshape(columns, [new_width, channels, new_height])
    return out if transposed else rows_first(out)

  if method == "bilinear":
    out = tf.cond(
      width > new_width,
      shrink_columns,
      lambda: tf.cond(
        height > new_height, lambda: plain(shrink_rows()), lambda: plain(image)
      ),
    )
  else:
    out = shrink_columns()
  static = tf.get_static_value(size)
  known = [None, None] if static is None else static.tolist()
  known = [*known, image.shape[-1]]
  return tf.ensure_shape(out, [*known[1:], known[0]] if transposed else known)


def columns_first(image: tf.Tensor) -> tf.Tensor:
  """[height, width, C] -> [width, C, height]."""
  height, width, channels = tf.unstack(tf.shape(image))
  # Transposed as a matrix, which is faster than transposing three axes.
  flat = tf.transpose(tf.reshape(image, [height, -1]))
  return tf.reshape(flat, [width, channels, height])


def rows_first(image: tf.Tensor) -> tf.Tensor:
  """[width, C, height] -> [height, width, C]."""
  width, channels, height = tf.unstack(tf.shape(image))
  flat = tf.transpose(tf.reshape(image, [-1, height]))
  return tf.reshape(flat, [height, width, channels])


def resize_as_pillow(
  image: tf.Tensor, size: tf.Tensor, method: str
) -> tf.Tensor:
  """Resizes with antialiasing as Pillow does, but does not round the result.

  torchvision's `Resize` of a Pillow image calls Pillow. Pillow resizes the
  width first and rounds to uint8 before it resizes the height, which moves one
  pixel in five by a grey level.

  Args:
    image: uint8 [H, W, C].
    size: int32 [2], (height, width).
    method: "bilinear" or "bicubic".

  Returns:
    float32 [height, width, C].
  """
  shape = tf.shape(image)
  height, channels = shape[0], shape[2]
  columns = tf.transpose(tf.reshape(image, [height, -1]))
  columns = tf.reshape(columns, [shape[1], -1])
  columns = _resize_rows(columns, size[1], method)
  columns = tf.clip_by_value(tf.round(columns), 0, 255)
  rows = tf.transpose(tf.reshape(columns, [-1, height]))
  out = _resize_rows(rows, size[0], method)
  out = tf.reshape(out, [size[0], size[1], channels])
  return tf.ensure_shape(out, [None, None, image.shape[-1]])


def _resize_rows(x, rows, method):
  """Resizes [n, m] to [rows, m] along its first axis, antialiased."""
  count = tf.shape(x)[0]
  # The kernel sees an image of n rows, one column and m channels. Its first
  # pass then adds whole rows of x, and its second only copies the result.
  line = tf.reshape(x, [1, count, 1, -1])
  scale = tf.cast(rows, tf.float32) / tf.cast(count, tf.float32)
  out = tf.raw_ops.ScaleAndTranslate(
    images=line,
    size=tf.stack([rows, 1]),
    scale=tf.stack([scale, 1.0]),
    translation=[0.0, 0.0],
    kernel_type=_KERNELS[method],
    antialias=True,
  )
  return tf.reshape(out, [rows, -1])
