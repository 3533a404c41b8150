"""Runs one pp string on both engines, over images of several sizes."""

import jax
import numpy as np
import tensorflow as tf
from PIL import Image

from big_crop.device_ops import registry as device
from big_crop.device_ops.canvas import unpack
from big_crop.device_ops.philox import seed_words
from pp_ops import registry, seeds
from pp_ops.random import example_seed

SIZES = ((64, 64), (48, 75), (90, 61), (64, 85), (85, 64), (33, 96))


def photographs(sizes=SIZES, num=None):
  """Images with edges and gradients, whose sizes take turns."""
  rng, out = np.random.default_rng(0), []
  for i in range(num or len(sizes)):
    height, width = sizes[i % len(sizes)]
    coarse = rng.integers(0, 256, (7, 9, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), 3)
    noise = rng.integers(-20, 21, (height, width, 3))
    out.append(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))
  return out


def pack(images):
  """Images as the stored arrays of `big_crop.data.packed`."""
  short = max(min(x.shape[:2]) for x in images)
  long = max(max(x.shape[:2]) for x in images)
  out = np.zeros((len(images), short, long, 3), np.uint8)
  for place, image in zip(out, images, strict=True):
    if image.shape[0] > image.shape[1]:
      image = image.swapaxes(0, 1)
    place[: image.shape[0], : image.shape[1]] = image
  return out, np.array([x.shape[:2] for x in images], np.int32)


def on_host(spec, images, seed=1, epoch=2):
  """Each image as preprocessed by tf.data's ops."""
  op = registry.get_preprocess_fn(spec)

  @tf.function(
    input_signature=[
      tf.TensorSpec([None, None, 3], tf.uint8),
      tf.TensorSpec([], tf.int64),
    ],
    autograph=False,
  )
  def preprocess(image, index):
    seed_ = example_seed(seed, tf.constant(epoch, tf.int64), index)
    return op({"image": image, "label": index, "_seed": seed_})

  return [preprocess(image, i) for i, image in enumerate(images)]


def on_device(spec, images, seed=1, epoch=2, least=(1, 1)):
  """The batch as preprocessed by the device's ops."""
  stored, shapes = pack(images)
  indices = np.arange(len(images), dtype=np.int64)
  words = seed_words(*seeds.pack(seed, np.int64(epoch), indices, np.int64(0)))

  @jax.jit
  def run(stored, shapes, label, words):
    canvas = unpack(stored, shapes, least)
    features = {"image": canvas, "label": label}
    return device.get_preprocess_fn(spec)(features, words)

  return run(stored, shapes, indices.astype(np.int32), words)


def both(spec, images, **kwargs):
  """The images of both engines, as float arrays."""
  host = [np.asarray(f["image"]) for f in on_host(spec, images)]
  device_ = np.asarray(on_device(spec, images, **kwargs)["image"])
  assert all(x.dtype == device_.dtype for x in host)
  return np.stack(host).astype(np.float32), device_.astype(np.float32)
