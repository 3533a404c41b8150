"""The device engine's stream and batches: tf.data's, on any devices."""

import gc
import itertools
import json
import weakref

import jax
import numpy as np
import pytest
from device_helpers import SIZES, photographs
from PIL import Image

from big_crop import config as configs
from big_crop import pack, train
from big_crop.data import device_pipeline, input_pipeline, sources
from big_crop.runtime import sharding

PP = (
  'inception_crop_fixed(24)|flip_lr|value_range(-1, 1)|keep("image", "label")'
)
NUM = 44


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  """A packed folder of 44 images in two classes, training and validation."""
  folder = tmp_path_factory.mktemp("images")
  for i, image in enumerate(photographs(SIZES, NUM + 10)):
    place = folder / ("train" if i < NUM else "validation") / "ab"[i % 2]
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(place / f"{i:03d}.png")
  out = folder.parent / "packed"
  pack.pack(str(folder), out, 48)
  return str(out)


def device_stream(path, num, start=0, devices=None, shard=(0, 1), **kwargs):
  mesh = sharding.make_mesh([("data", -1)], devices)
  options = dict(seed=5, start=start, mesh=mesh) | kwargs
  batches = device_pipeline.device_batches(
    sources.get_source(path, "train", shard=shard),
    device_pipeline.get_preprocess_fn(PP),
    ("image", "label"),
    16 // shard[1],
    **options,
  )
  return [
    (jax.device_get(arrays), batch.position)
    for arrays, batch in itertools.islice(batches, num)
  ]


def images(stream):
  return np.concatenate([arrays["image"] for arrays, _ in stream])


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.first(1)
def test_stream_is_that_of_tf_data(packed, repeats):
  """The same examples, windows and flips, over three epochs."""
  host = input_pipeline.train_batches(
    sources.get_source(packed, "train"),
    input_pipeline.get_preprocess_fn(PP),
    ("image", "label"),
    16,
    seed=5,
    repeats=repeats,
  )
  host = [b.data for b in itertools.islice(host, 7)]
  ours = device_stream(packed, 7, repeats=repeats)
  assert [p for _, p in ours] == [16 * i for i in range(1, 8)]
  for theirs, (mine, _) in zip(host, ours, strict=True):
    np.testing.assert_array_equal(theirs["label"], mine["label"])
    grey_levels = np.abs(theirs["image"] - mine["image"]) * 127.5
    assert grey_levels.max() < 1.001


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.first(1)
def test_devices_and_memory_change_nothing(packed, hold, devices):
  expected = device_stream(packed, 4, devices=jax.devices()[:1], hold=True)
  found = device_stream(packed, 4, devices=jax.devices()[:devices], hold=hold)
  for (one, _), (other, _) in zip(expected, found, strict=True):
    np.testing.assert_array_equal(one["label"], other["label"])
    np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.long
def test_resume_is_exact(packed):
  whole = images(device_stream(packed, 7))
  np.testing.assert_array_equal(
    whole[64:], images(device_stream(packed, 3, 64))
  )
  # A start that is not at a batch's border.
  np.testing.assert_array_equal(
    whole[50:66], images(device_stream(packed, 1, 50))
  )


@pytest.mark.long
def test_hosts_share_the_stream(packed):
  """The hosts' parts, taken in turn, are one host's stream."""
  one = images(device_stream(packed, 2))
  two = [images(device_stream(packed, 2, shard=(i, 2))) for i in range(2)]
  np.testing.assert_array_equal(one, np.stack(two, 1).reshape(one.shape))


@pytest.mark.parametrize("hold", [True, False])
def test_evaluation_reads_each_example_once(packed, hold):
  mesh = sharding.make_mesh([("data", -1)])
  source = sources.get_source(packed, "validation")
  found = [
    (jax.device_get(arrays), num)
    for arrays, num in device_pipeline.eval_device_batches(
      source,
      device_pipeline.get_preprocess_fn("resize(48)"),
      ("image", "label"),
      8,
      mesh=mesh,
      hold=hold,
    )
  ]
  assert [num for _, num in found] == [8, 2]
  mask = np.concatenate([a["mask"] for a, _ in found])
  np.testing.assert_array_equal(mask, np.arange(16) < 10)
  labels = np.concatenate([a["label"] for a, _ in found])[:10]
  np.testing.assert_array_equal(labels, source.labels[source.indices])
  host = input_pipeline.eval_batches(
    source,
    input_pipeline.get_preprocess_fn("resize(48)"),
    ("image", "label"),
    10,
  )
  theirs = next(iter(host)).data["image"].astype(int)
  ours = np.concatenate([a["image"] for a, _ in found])[:10]
  assert np.abs(theirs - ours).max() <= 1


def test_the_devices_hold_no_longer_what_nobody_has(packed):
  """Without this, a study would hold its data once for each run."""
  source = sources.get_source(packed, "train")
  mesh = sharding.make_mesh([("data", -1)])
  images = weakref.ref(device_pipeline.store_of(source, mesh, True).data)
  assert images() is not None
  del source
  gc.collect()
  assert images() is None


def test_part_of_a_split(packed):
  """The devices hold the sub-split alone, and its indices stay the same."""
  source = sources.get_source(packed, "train[10:20]+validation")
  mesh = sharding.make_mesh([("data", -1)])
  (arrays, _), *_ = device_pipeline.eval_device_batches(
    source,
    device_pipeline.get_preprocess_fn("central_crop(20)"),
    ("image",),
    24,
    mesh=mesh,
    hold=True,
  )
  image = source.example(source.indices[13])
  y, x = ((n - 20) // 2 for n in image.shape[:2])
  np.testing.assert_array_equal(
    arrays["image"][13], image[y : y + 20, x : x + 20]
  )


def quickstart(packed, *overrides):
  return configs.load(
    f"configs/quickstart.py:data={packed},engine=device,res=24,batch=16,epochs=1",
    [
      "--config.total_epochs=None",
      "--config.total_steps=12",
      "--config.ckpt_steps=5",
      "--config.model.width=32",
      "--config.model.depth=1",
      "--config.model.mlp_dim=32",
      *overrides,
    ],
  )


@pytest.mark.slow
def test_training_resumes_to_the_bit(packed, tmp_path, monkeypatch):
  whole = train.run(quickstart(packed), str(tmp_path / "whole"))
  assert whole["metrics"]["val/count"] == 10
  calls = itertools.count()
  monkeypatch.setattr(train.hosts, "stop_requested", lambda: next(calls) == 6)
  assert train.run(quickstart(packed), str(tmp_path / "cut")) is None
  monkeypatch.undo()
  again = train.run(
    quickstart(packed, "--config.input.hold=False"), str(tmp_path / "cut")
  )
  assert again["params_sha256"] == whole["params_sha256"]
  logged = [json.loads(x) for x in open(tmp_path / "cut" / "metrics.jsonl")]
  assert logged[-1]["step"] == 12


BAD = {
  "--config.input.engine=gpu": "config.input.engine 'gpu'",
  "--config.input.data={'name':'critters','split':'validation[:64]'}": (
    "needs packed data"
  ),
  "--config.input.pp=decode|resize(8)|flatten": "no form that runs",
  "--config.input.repeats=0": "repeats=0",
  "--config.evals.val.pp_fn=decode|resize_small(20)": "different sizes",
}


@pytest.mark.parametrize("override", BAD)
def test_bad_configs(packed, tmp_path, override):
  with pytest.raises(ValueError, match=r".") as e:
    train.run(quickstart(packed, override), str(tmp_path / "run"))
  assert BAD[override] in str(e.value) and "\n" not in str(e.value)
