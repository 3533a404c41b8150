"""Small prepared TFDS datasets, and a stand-in for a model of ImageNet."""

import io

import jax.numpy as jnp
import numpy as np
from PIL import Image


def prepare(data_dir, encoding):
  """Writes `prepared` to a data_dir: 41 and 7 images, labels their numbers.

  Returns:
    The images uint8 [41, 20, 24, 3] of "train", whose first seven are those of
    "validation", too.
  """
  import tensorflow as tf
  import tensorflow_datasets as tfds

  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (41, 20, 24, 3), np.uint8)
  split = lambda num: tf.data.Dataset.from_tensor_slices(
    {
      "image": images[:num],
      "label": np.arange(num),
      "file_name": [f"{i}.jpg" for i in range(num)],
    }
  )
  tfds.dataset_builders.store_as_tfds_dataset(
    name="prepared",
    version="1.0.0",
    data_dir=data_dir,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(
          shape=(20, 24, 3), encoding_format=encoding
        ),
        "label": tfds.features.ClassLabel(num_classes=41),
        "file_name": tfds.features.Text(),
      }
    ),
    split_datasets={"train": split(41), "validation": split(7)},
    download_config=tfds.download.DownloadConfig(num_shards=3),
  )
  return images


def grey(level, size=(60, 50)):
  """A JPEG of one grey level, to be read."""
  data = io.BytesIO()
  Image.new("RGB", size, (level,) * 3).save(data, "JPEG")
  data.seek(0)
  return data


def grey_level(variables, image):
  """Logits highest at the images' grey level, then at the ones above it."""
  level = jnp.round((image.mean((1, 2, 3)) + 1) * 127.5)
  distance = (jnp.arange(1000) - level[:, None]) % 1000
  return variables - distance.astype(jnp.float32), {}


def write(name, split, examples, data_dir, monkeypatch):
  """Lets TFDS's own builder of a dataset write (key, example) pairs."""
  import tensorflow_datasets as tfds

  builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
  monkeypatch.setattr(
    builder, "_split_generators", lambda dl_manager: {split: iter(examples)}
  )
  builder.download_and_prepare()
