"""A big_vision pp string means the same here.

The differences are in docs/from_big_vision.md. With BIG_VISION_PATH set,
big_vision's own code and configs are the reference.
"""

import importlib
import re
import sys

import big_vision_helpers
import numpy as np
import pytest
import tensorflow as tf
from op_helpers import photo

from pp_ops.registry import get_preprocess_fn

NEEDS_PATH = pytest.mark.skipif(
  not big_vision_helpers.PATH, reason="BIG_VISION_PATH is not set"
)
RANDOM = re.compile("random_crop|inception_crop|flip_lr|randaug|choice")

# The strings of its classification configs.
END = (
  '|value_range(-1, 1)|onehot(1000, key="{}", key_result="labels")'
  '|keep("image", "labels")'
).format
STRINGS = [
  "decode_jpeg_and_inception_crop(224)|flip_lr|randaug(2,0)" + END("label"),
  "decode_jpeg_and_inception_crop(224)|flip_lr|randaug(2,20)" + END("label"),
  "decode_jpeg_and_inception_crop(224)|flip_lr"
  '|onehot(1000, key="label", key_result="labels")'
  '|value_range(-1, 1)|keep("image", "labels")',
  "decode|inception_crop(384)|flip_lr" + END("label"),
  "decode|resize_small(448)|random_crop(384)|flip_lr" + END("label"),
  "decode|resize(160)|random_crop(128)|flip_lr" + END("label"),
  "decode|resize_small(256)|central_crop(224)" + END("label"),
  "decode|resize_small(256)|central_crop(224)" + END("real_label"),
  "decode|resize(384)" + END("original_label"),
  "decode|resize_small(256)|central_crop(224)|value_range(-1, 1)"
  '|onehot(21843)|keep("image", "labels")',
]


def example():
  """The features of all data sets that those configs name."""
  return {
    "image": tf.io.encode_jpeg(photo(299, 450), quality=90),
    "label": tf.constant(7),
    "original_label": tf.constant(7),
    "labels": tf.constant([3, 7, 3]),
    "real_label": tf.constant([1, 5]),
  }


@pytest.mark.parametrize("spec", STRINGS)
def test_a_string_of_its_configs(spec):
  out = get_preprocess_fn(spec)(example())
  assert set(out) == {"image", "labels"}
  assert out["image"].dtype == tf.float32
  assert out["image"].shape[2] == 3 and out["image"].shape[0] >= 128
  labels = [1, 5] if "real_label" in spec else [7] if "key=" in spec else [3, 7]
  np.testing.assert_array_equal(np.flatnonzero(out["labels"]), labels)


@pytest.fixture
def theirs(tmp_path, monkeypatch):
  """big_vision's own get_preprocess_fn, with all that its configs import."""
  for name, module in big_vision_helpers.addons().items():
    monkeypatch.setitem(sys.modules, name, module)
  big_vision_helpers.use("real", tmp_path, monkeypatch)
  for name in ("ops_general", "ops_image", "archive.randaug"):
    importlib.import_module(f"big_vision.pp.{name}")
  return importlib.import_module("big_vision.pp.builder").get_preprocess_fn


def strings_of(config):
  """All pp strings in a config."""
  for key, value in config.items():
    if hasattr(value, "items"):
      yield from strings_of(value)
    elif key in ("pp", "pp_fn", "pp_train", "pp_eval"):
      yield value


CONFIGS = {
  **{f"vit_i1k aug={a}": f"aug={a}" for a in ("none", "light1", "strong2")},
  **{f"vit_i21k {v}": f"variant={v}" for v in ("Ti/16", "L/16")},
  "vit_s16_i1k": None,
  "bit_i1k": None,
  "bit_i21k": None,
  "mlp_mixer_i1k": None,
  **{
    f"transfer {c} {d}": f"model=bit-m-r50x1,dataset={d},crop={c}"
    for c, d in (
      ("inception_crop", "imagenet2012"),
      ("resmall_crop", "cifar100"),
      ("resize_crop", "oxford_iiit_pet"),
    )
  },
  **{
    f"load_and_eval {n}": f"name={n}"
    for n in ("bit_paper", "vit_i1k", "vit_i21k")
  },
}


@NEEDS_PATH
@pytest.mark.parametrize("name", CONFIGS)
def test_its_configs_give_equal_features(name, theirs):
  module = importlib.import_module(
    f"big_vision.configs.{name.partition(' ')[0]}"
  )
  given = [CONFIGS[name]] if CONFIGS[name] else []
  specs = set(strings_of(module.get_config(*given)))
  assert specs
  for spec in specs:
    spec = re.sub(r"\|\|+", "|", spec)
    # The decoder differs on purpose.
    ref = theirs(re.sub(r"^decode\|", "decode(precise=True)|", spec))(example())
    out = get_preprocess_fn(spec)(example())
    assert set(out) == set(ref), spec
    for key in out:
      assert out[key].dtype == ref[key].dtype, (spec, key)
      assert out[key].shape == ref[key].shape, (spec, key)
    for key in set(out) - {"image"}:
      np.testing.assert_array_equal(out[key], ref[key], err_msg=spec)
    if not RANDOM.search(spec):
      # So does the rounding: ours is to the nearest grey level, theirs is down.
      off = (out["image"] - ref["image"]).numpy() * 127.5
      assert off.min() > -0.01 and off.max() < 1.01, spec


FEATURES = {
  "image": photo(50, 71).astype(np.float32),
  "labels": np.array([2, 0]),
  "label": np.array(1),
  "empty": np.zeros([0], np.int32),
  "text": np.array(["a", "b"]),
  "nested": {"x": np.array(1), "y": [np.array(2), np.array(3)]},
}


@NEEDS_PATH
@pytest.mark.parametrize(
  "spec",
  [
    "resize((20, 31))",
    "resize(20, 'bicubic', True)",
    "resize_small(20)",
    "resize_small(20, 'bilinear', antialias=True)",
    "resize_long(20)",
    "resize_long(20, 'bilinear', False)",
    "resize_long(20, 'bicubic')",
    "central_crop",
    "central_crop((20, 31), outkey='crop')",
    "value_range",
    "value_range(0, 1, 9, 90, True)",
    "value_range(0, 1, [1, 2, 3], [50, 60, 71], clip_values=True)",
    "vgg_value_range",
    "clip_value_range",
    "onehot(4)",
    "onehot(4, 'label')",
    "onehot(4, 'label', 'out', True, 0.9, 0.1)",
    "onehot(4, multi=False, off=-1.0)",
    "keep('image', 'label')",
    "drop('image', 'label')",
    "copy('nested', 'other')",
    "concat(['labels', 'labels'], 'twice')",
    "flatten",
    "flatten(['nested', 'text'])",
    "setdefault('empty', 3)",
    "setdefault('none', 'x')",
    "setdefault('label', 3)",
    "reshape((71, 50, 3))",
    "reshape([], key='label')",
    "reshape([1], key='label')|squeeze_last_dim(key='label')",
    "pad_to_shape((4,), where='both', key='labels')",
    "pad_to_shape((60, 71, None), 0.5, 'before')",
    "choice(2, key=['labels', 'text'])",
    "choice([2, 2], key='text', outkey='{key}2')",
  ],
)
def test_its_ops_give_equal_features(spec, theirs):
  start = lambda: tf.nest.map_structure(tf.constant, dict(FEATURES))
  ours, ref = get_preprocess_fn(spec)(start()), theirs(spec)(start())
  assert set(ours) == set(ref)
  tf.nest.assert_same_structure(ours, ref)
  for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(ref), strict=True):
    assert a.dtype == b.dtype
    if a.dtype.is_floating:
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3)
    else:
      np.testing.assert_array_equal(a, b)
