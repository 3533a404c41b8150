"""Small prepared TFDS datasets, and a stand-in for a model of ImageNet."""

import io

import jax.numpy as jnp
import numpy as np
from PIL import Image


def prepare(data_dir, encoding):
  """Writes `prepared` to a data_dir: 41 and 7 images, labelled by number.

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


def _repair(example, num):
  """Makes random values such that TFDS takes them: lengths, and boxes.

  A nested feature gets `num` entries, or fewer. A box is (y, x, y, x).
  """
  for key, value in example.items():
    if isinstance(value, dict):
      short = min(num, *map(len, value.values()))
      value = example[key] = {k: v[:short] for k, v in value.items()}
      _repair(value, num)
    elif "bbox" in key:
      pairs = value.reshape(*value.shape[:-1], 2, 2)
      example[key] = np.sort(pairs, -2).reshape(value.shape)


def mocked(name, data_dir, num, splits):
  """Prepares a dataset of random records, with TFDS's schema."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  with tfds.testing.mock_data(num, policy=tfds.testing.MockPolicy.USE_CODE):
    builder = tfds.builder(name)
    examples = builder.as_dataset(split="train", shuffle_files=False)
  spec, found = examples.element_spec, list(examples.as_numpy_iterator())
  for i, example in enumerate(found):
    _repair(example, 3 + i % 8)
  examples = tf.data.Dataset.from_generator(
    lambda: iter(found), output_signature=spec
  )
  tfds.dataset_builders.store_as_tfds_dataset(
    name=builder.name,
    config=builder.builder_config and builder.builder_config.name,
    version=str(builder.version),
    data_dir=data_dir,
    features=builder.info.features,
    split_datasets=dict.fromkeys(splits, examples),
  )


def grey(level, size=(60, 50)):
  """A JPEG of one grey level, to be read."""
  data = io.BytesIO()
  Image.new("RGB", size, (level,) * 3).save(data, "JPEG")
  data.seek(0)
  return data


def grey_level(variables, image):
  """A model: logits highest at the image's grey level, then at those above."""
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
