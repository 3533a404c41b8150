"""Repeated augmentation: which images an epoch has, how often, and how seen."""

import collections
import itertools

import jax
import numpy as np
import pytest
import tensorflow as tf
from objective_helpers import LABELLED

from big_crop.data import base, input_pipeline, sources
from big_crop.runtime import sharding
from pp_ops.random import example_seed
from pp_ops.registry import get_preprocess_fn

SEED = 5
PP = 'decode|inception_crop_fixed(8)|flip_lr|value_range|keep("image", "label")'
# One graph for the streams of all tests.
preprocess = tf.function(get_preprocess_fn(PP), autograph=False)


def source_of(num, shard=(0, 1)):
  """`num` images of noise whose label is their number."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (num, 12, 16, 3), np.uint8)
  return base.IndexedSource(
    [tf.io.encode_png(image).numpy() for image in images],
    range(num),
    {"train": num},
    [("train", 0, num)],
    [str(i) for i in range(num)],
    shard,
    describe=str,
  )


def stream(source, batch_size, num, **kwargs):
  batches = input_pipeline.train_batches(
    source, preprocess, LABELLED, batch_size, seed=SEED, **kwargs
  )
  return list(itertools.islice(batches, num))


def seen(batches):
  """How often each (label, pixels) occurs."""
  return collections.Counter(
    (int(label), image.tobytes())
    for batch in batches
    for label, image in zip(batch["label"], batch["image"], strict=True)
  )


def sampler_of_deit(order, num_replicas, rank, repeats):
  """DeiT's RASampler in NumPy, without its rounding to multiples of 256.

  https://github.com/facebookresearch/deit/blob/0c4b8f60/samplers.py: the
  permutation with each entry repeated, dealt to the ranks in turn, of which
  each takes the first len(order) / num_replicas.
  """
  dealt = np.repeat(order, repeats)[rank::num_replicas]
  return dealt[: len(order) // num_replicas]


@pytest.mark.parametrize("repeats", [2, 3])
@pytest.mark.parametrize("hosts", [1, 2, 8])
def test_an_epoch_is_that_of_deits_sampler(hosts, repeats):
  seed = example_seed(SEED, tf.constant(3, tf.int64), tf.constant(-1, tf.int64))
  order = [int(e["_index"]) for e in source_of(48).epoch(seed)]
  assert sorted(order) == list(range(48))
  for host in range(hosts):
    examples = list(source_of(48, (host, hosts)).epoch(seed, 0, repeats))
    expected = sampler_of_deit(order, hosts, host, repeats)
    assert [int(e["_index"]) for e in examples] == expected.tolist()
    if hosts == 1:
      found = [int(e["_repeat"]) for e in examples]
      assert found == [i % repeats for i in range(48)]


@pytest.mark.parametrize("num", [48, 512])
def test_an_epoch_is_that_of_timms_sampler(num):
  timm = pytest.importorskip("timm.data.distributed_sampler")
  torch = pytest.importorskip("torch")
  order = torch.randperm(num, generator=torch.Generator().manual_seed(0))
  for hosts in (1, 2, 8):
    for host in range(hosts):
      theirs = timm.RepeatAugSampler(range(num), hosts, host, num_repeats=3)
      ours = sampler_of_deit(order.numpy(), hosts, host, 3)
      assert list(theirs) == ours.tolist()


def test_every_repeat_is_augmented_anew():
  (epoch,) = stream(source_of(40), 40, 1, repeats=3)
  counts = collections.Counter(epoch.data["label"].tolist())
  assert sorted(counts.values()) == [1] + 13 * [3]
  # Crops of noise: equal pixels would be equal augmentations.
  assert max(seen([epoch.data]).values()) == 1


def test_one_repeat_is_no_repeat():
  plain, one = (
    stream(source_of(41), 8, 11, **kw) for kw in ({}, dict(repeats=1))
  )
  for a, b in zip(plain, one, strict=True):
    np.testing.assert_array_equal(a.data["image"], b.data["image"])


def test_the_next_epoch_has_other_images():
  first, second = stream(source_of(48), 48, 2, repeats=3)
  images = [set(batch.data["label"].tolist()) for batch in (first, second)]
  assert len(images[0]) == len(images[1]) == 16 and images[0] != images[1]


@pytest.mark.parametrize("hosts", [2, 3, 8])
@pytest.mark.first(1)
def test_hosts_share_the_images_and_their_augmentations(hosts):
  (whole,) = stream(source_of(48), 48, 1, repeats=3)
  shares = [
    stream(source_of(48, (h, hosts)), 48 // hosts, 1, repeats=3)[0]
    for h in range(hosts)
  ]
  assert seen([whole.data]) == seen([share.data for share in shares])


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_devices_share_a_batch(devices):
  mesh = sharding.make_mesh([("data", devices)], jax.devices()[:devices])
  (whole,) = stream(source_of(48), 48, 1, repeats=3)
  batches = stream(source_of(48), 16, 3, repeats=3)
  parts = []
  for batch in batches:
    placed = sharding.make_global_batch(batch.data, mesh)
    shards = {k: v.addressable_shards for k, v in placed.items()}
    for i in range(devices):
      parts.append({k: np.asarray(s[i].data) for k, s in shards.items()})
  assert len(parts) == 3 * devices
  assert seen([whole.data]) == seen(parts)


@pytest.mark.long
def test_the_stream_is_entered_anywhere():
  whole = stream(source_of(41), 8, 16, repeats=3)
  for start in (1, 5, 11):
    later = stream(
      source_of(41), 8, 16 - start, start=whole[start - 1].position, repeats=3
    )
    for a, b in zip(whole[start:], later, strict=True):
      np.testing.assert_array_equal(a.data["image"], b.data["image"])


@pytest.mark.parametrize("repeats", [0, 256, 1.5])
def test_repeats_that_cannot_be(repeats):
  with pytest.raises(ValueError, match="need a whole number, 1 to 255"):
    stream(source_of(8), 8, 1, repeats=repeats)


def test_a_prepared_dataset_repeats_too(tmp_path):
  import tensorflow_datasets as tfds

  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (20, 8, 8, 3), np.uint8)
  tfds.dataset_builders.store_as_tfds_dataset(
    name="noise",
    version="1.0.0",
    data_dir=tmp_path,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(num_classes=20),
      }
    ),
    split_datasets={
      "train": tf.data.Dataset.from_tensor_slices(
        {"image": images, "label": np.arange(20)}
      )
    },
  )
  source = sources.get_source("noise", "train", str(tmp_path))
  (epoch,) = stream(source, 20, 1, repeats=3)
  counts = collections.Counter(epoch.data["label"].tolist())
  assert sorted(counts.values()) == [2] + 6 * [3]
  assert max(seen([epoch.data]).values()) == 1
