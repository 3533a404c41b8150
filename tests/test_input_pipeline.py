"""Batches: repeatable, resumable, sharded, complete, and honest on bad data."""

import functools
import itertools

import data_helpers
import numpy as np
import pytest
import tensorflow as tf
from objective_helpers import LABELLED

from big_crop.data import base, input_pipeline, sources
from pp_ops.registry import get_preprocess_fn

PP = (
  "decode_jpeg_and_inception_crop_fixed(16)|flip_lr|value_range(-1, 1)"
  '|keep("image", "label")'
)
EVAL_PP = 'decode|resize(16)|value_range(-1, 1)|keep("image", "label")'


def jpeg(rng, height=24, width=32):
  image = rng.integers(0, 256, (height, width, 3), np.uint8)
  return tf.io.encode_jpeg(image).numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """41 images in three classes."""
  rng = np.random.default_rng(0)
  root = tmp_path_factory.mktemp("folder")
  for i in range(41):
    path = root / f"class_{i % 3}" / f"image_{i}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(jpeg(rng))
  return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """The data_dir of a TFDS dataset of 41 images whose label is their number."""
  data_dir = tmp_path_factory.mktemp("tfds")
  data_helpers.prepare(data_dir, "jpeg")
  return data_dir


@pytest.fixture(params=["folder", "tfds"])
def open_source(request, folder, prepared):
  """(split, shard) -> a source of 41 images."""
  if request.param == "folder":
    return lambda split="all", shard=(0, 1): sources.get_source(
      str(folder), split, shard=shard
    )
  return lambda split="train", shard=(0, 1): sources.get_source(
    str(prepared / "prepared" / "1.0.0"), split, shard=shard
  )


@functools.cache
def in_graph(pp):
  """A string's preprocessing as one graph for the streams of all tests."""
  return tf.function(get_preprocess_fn(pp), autograph=False)


def batches(source, num, batch_size=8, pp=PP, seed=5, **kwargs):
  stream = input_pipeline.train_batches(
    source, in_graph(pp), LABELLED, batch_size, seed=seed, **kwargs
  )
  return list(itertools.islice(stream, num))


def assert_same(some, others):
  assert len(some) == len(others)
  for a, b in zip(some, others, strict=True):
    assert a.data.keys() == b.data.keys()
    for key in a.data:
      np.testing.assert_array_equal(a.data[key], b.data[key])


def indices(source, seed=None):
  return [int(e["_index"]) for e in source.epoch(seed)]


@pytest.mark.first(1)
def test_threads_do_not_change_a_batch(open_source):
  source = open_source()
  one = batches(source, 12, num_parallel_calls=1)
  assert_same(one, batches(source, 12, num_parallel_calls=8))


@pytest.mark.first(1)
def test_stream_is_entered_anywhere(open_source):
  source = open_source()
  whole = batches(source, 16)  # three epochs of 41
  for start in (1, 5, 11):
    resumed = batches(source, 16 - start, start=whole[start - 1].position)
    assert_same(whole[start:], resumed)


@pytest.mark.first(1)
def test_seed_and_epoch_decide_order_and_crops(open_source):
  source = open_source()
  first, again = batches(source, 5), batches(source, 5)
  assert_same(first, again)
  other = batches(source, 5, seed=6)
  assert not np.array_equal(first[0].data["image"], other[0].data["image"])
  # An epoch of 41 holds each example once, in another order than the next.
  epochs = [batches(source, 1, batch_size=41, start=s)[0] for s in (0, 41)]
  labels = [e.data["label"] for e in epochs]
  np.testing.assert_array_equal(np.sort(labels[0]), np.sort(labels[1]))
  assert not np.array_equal(labels[0], labels[1])
  means = [np.sort(e.data["image"].mean((1, 2, 3))) for e in epochs]
  assert not np.allclose(*means)


@pytest.mark.long
def test_what_an_example_looks_like_depends_on_seed_epoch_and_index_alone(
  folder,
):
  """Whatever the batch size, the split or the number of hosts."""

  def looks(source, num, batch_size):
    out = {}
    for batch in batches(source, num, batch_size):
      for image in batch.data["image"]:
        out[image.tobytes()] = out.get(image.tobytes(), 0) + 1
    return out

  whole = looks(sources.get_source(str(folder), "all"), 1, 41)
  shares = {}
  for host in (0, 1):
    source = sources.get_source(str(folder), "all", shard=(host, 2))
    shares |= looks(source, source.num_examples, 1)
  assert whole == shares and len(whole) == 41


@pytest.mark.first(1)
def test_hosts_share_without_overlap(open_source):
  everything = sorted(indices(open_source()))
  for hosts in (2, 3, 4):
    shares = [open_source(shard=(h, hosts)) for h in range(hosts)]
    assert sorted(itertools.chain(*map(indices, shares))) == everything
    sizes = [s.num_examples for s in shares]
    assert max(sizes) - min(sizes) <= 1
    assert {s.total_examples for s in shares} == {41}


def test_sub_splits(open_source):
  part = lambda spec: indices(open_source(spec))
  full = part("train")
  assert part("train[:10]") + part("train[10:]") == full
  assert len(part("train[:50%]")) == round(len(full) / 2)
  assert part("train[5:9]+train[20:22]") == full[5:9] + full[20:22]
  for wrong in ("train[:x]", "train[:99]", "trian", "all[:3]"):
    with pytest.raises(ValueError, match="split"):
      open_source(wrong)


def test_evaluation_counts_every_example_once(open_source):
  for hosts in (1, 3):
    counted, lengths = [], set()
    for host in range(hosts):
      source = open_source(shard=(host, hosts))
      seen = list(
        input_pipeline.eval_batches(
          source, in_graph(EVAL_PP), LABELLED, 4, num_hosts=hosts
        )
      )
      lengths.add(len(seen))
      for batch in seen:
        assert batch.data["image"].shape == (4, 16, 16, 3)
        real = batch.data["image"][batch.mask > 0]
        counted += [image.tobytes() for image in real]
    assert len(lengths) == 1, "hosts must agree on the number of batches"
    assert len(counted) == len(set(counted)) == 41


def test_prepared_dataset_by_name_and_features(prepared):
  source = sources.get_source("prepared", "validation", str(prepared))
  assert source.num_examples == 7 and source.num_classes == 41
  labels = [int(e["label"]) for e in source.epoch(None)]
  assert sorted(labels) == list(range(7))
  assert "record" in source.describe(0)


@pytest.fixture
def broken(folder, tmp_path):
  """A copy of the folder in which one image is cut short."""
  for path in folder.glob("*/*"):
    target = tmp_path / path.relative_to(folder)
    target.parent.mkdir(exist_ok=True)
    data = path.read_bytes()
    bad = path.name == "image_13.jpg"
    target.write_bytes(b"\xff\xd8\xff" + data[3:40] if bad else data)
  return sources.get_source(str(tmp_path), "all")


def test_corrupt_image_is_named(broken):
  with pytest.raises(ValueError, match=r"image_13\.jpg.*skip_corrupt"):
    batches(broken, 6)
  with pytest.raises(ValueError, match=r"image_13\.jpg"):
    list(
      input_pipeline.eval_batches(
        broken, get_preprocess_fn(EVAL_PP), LABELLED, 8
      )
    )


def test_corrupt_image_is_left_out_and_counted(broken):
  seen = batches(broken, 20, skip_corrupt=True)  # 160 of 4 epochs' 164
  assert sum(b.skipped for b in seen) == 4 - (seen[-1].position <= 163)
  # The stream can still be entered anywhere.
  later = batches(broken, 8, start=seen[11].position, skip_corrupt=True)
  assert_same(seen[12:], later)
  evaluated = input_pipeline.eval_batches(
    broken, get_preprocess_fn(EVAL_PP), LABELLED, 8, skip_corrupt=True
  )
  assert sum(b.mask.sum() for b in evaluated) == 40


def test_a_stream_without_examples_is_an_error(folder):
  source = sources.get_source(str(folder), "all")
  pp = get_preprocess_fn("decode|random_crop(999)|keep('image', 'label')")
  with pytest.raises(ValueError, match="no example can be used; the first"):
    input_pipeline.train_batches(
      source, pp, LABELLED, 8, seed=0, skip_corrupt=True
    )


def test_pp_strings_that_cannot_make_a_batch(folder):
  source = sources.get_source(str(folder), "all")
  for pp, message in [
    ("decode", "fixed one"),
    ('keep("image", "label")', "decode it"),
    ('decode|resize(8)|keep("image")', "neither 'label' nor 'labels'"),
    ('keep("label")', "no feature 'image'"),
  ]:
    with pytest.raises(ValueError, match=message):
      input_pipeline.feature_specs(source, get_preprocess_fn(pp), LABELLED)


def test_missing_datasets(tmp_path):
  for args, message in [
    (("critter", "train"), "did you mean 'critters'"),
    (("folder", "train"), "needs data_dir"),
    ((str(tmp_path / "no"), "train"), "is not there"),
    (("folder", "train", str(tmp_path)), "no images"),
    (("imagenet2012", "train", str(tmp_path)), "tfds build imagenet2012"),
  ]:
    with pytest.raises(ValueError, match=message):
      sources.get_source(*args)


def test_folder_with_split_folders(folder, tmp_path):
  for i, path in enumerate(sorted(folder.glob("*/*"))):
    target = tmp_path / ("val" if i % 4 == 0 else "train") / path.parent.name
    target.mkdir(parents=True, exist_ok=True)
    (target / path.name).write_bytes(path.read_bytes())
  sizes = {
    split: sources.get_source(str(tmp_path), split).num_examples
    for split in ("train", "validation", "val", "val[:50%]")
  }
  assert sizes == {"train": 30, "validation": 11, "val": 11, "val[:50%]": 6}


def test_host_range_is_even():
  for total, count in [(41, 3), (2, 4), (1000, 7)]:
    ranges = [base.host_range(total, (i, count)) for i in range(count)]
    assert ranges[0][0] == 0 and ranges[-1][1] == total
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
