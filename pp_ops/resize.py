"""Resizing methods, and a faster antialiased one than `tf.image.resize`'s."""

import tensorflow as tf

METHODS = {
  name: getattr(tf.image.ResizeMethod, const)
  for name, const in {
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
    "nearest": "NEAREST_NEIGHBOR",
    "area": "AREA",
    "lanczos3": "LANCZOS3",
    "lanczos5": "LANCZOS5",
    "gaussian": "GAUSSIAN",
    "mitchellcubic": "MITCHELLCUBIC",
  }.items()
}


def resize_antialiased(image, size, method):
  return tf.image.resize(image, size, METHODS[method], antialias=True)
