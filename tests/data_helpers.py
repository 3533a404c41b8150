"""A small prepared TFDS dataset."""

import numpy as np


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
