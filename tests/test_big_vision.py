"""One line in a big_vision config, and what its pp strings may then say.

With BIG_VISION_PATH set, to the folder that holds `big_vision/`, the tests run
beside big_vision's own code too.
"""

import importlib
import sys

import big_vision_helpers
import numpy as np
import pytest
import tensorflow as tf
from op_helpers import error, photo

from pp_ops import crops, randaug, uint8_op

NEEDS_PATH = pytest.mark.skipif(
  not big_vision_helpers.PATH, reason="BIG_VISION_PATH is not set"
)
# Height and width do not divide by the JPEG's blocks.
IMAGE = photo(75, 109)
JPEG = tf.io.encode_jpeg(IMAGE, quality=80).numpy()
WINDOWS = ((0, 0, 75, 109), (3, 5, 40, 41), (37, 60, 38, 49), (74, 0, 1, 7))


@pytest.fixture(
  params=["stand-in", pytest.param("real", marks=NEEDS_PATH)],
)
def kind(request, tmp_path, monkeypatch):
  big_vision_helpers.use(request.param, tmp_path, monkeypatch)
  return request.param


@pytest.fixture
def ops(kind):
  """The registry of a run, in the order in which big_vision's train.py goes."""
  importlib.import_module("pp_ops.big_vision")  # as its config is read
  for name in ("ops_general", "ops_image", "archive.randaug"):
    importlib.import_module(f"big_vision.pp.{name}")
  return big_vision_helpers.registry()


def test_a_config_is_read_before_big_visions_ops(ops):
  assert ops["inception_crop"].__module__ != "pp_ops.big_vision"
  fade = ops["solarize"](threshold=0, inkey="image", outkey="other")
  out = fade({"image": IMAGE})
  np.testing.assert_array_equal(out["other"], 255 - IMAGE)
  crop = ops["inception_crop_fixed"](24, area_min=8)
  data = tf.data.Dataset.from_tensors({"image": IMAGE}).repeat(3)
  for example in data.map(crop):
    assert example["image"].shape == (24, 24, 3)
  fused = ops["decode_jpeg_and_beta_crop"](16, alpha=2, key="photo")
  assert fused({"photo": JPEG})["photo"].shape == (16, 16, 3)
  # big_vision passes an unseeded example: each is drawn anew.
  outs = {crop({"image": IMAGE})["image"].numpy().tobytes() for _ in range(5)}
  assert len(outs) == 5


def test_a_randaug_that_can_be_imported_stays(kind, monkeypatch, tmp_path):
  for name, module in big_vision_helpers.addons().items():
    monkeypatch.setitem(sys.modules, name, module)
  if kind == "stand-in":
    (tmp_path / "big_vision/pp/archive/randaug.py").write_text(
      "from big_vision.pp.registry import Registry\n"
      "Registry.register('preprocess_ops.randaug')(lambda: 'theirs')\n"
    )
  importlib.import_module("pp_ops.big_vision")
  importlib.import_module("big_vision.pp.archive.randaug")
  op = big_vision_helpers.registry()["randaug"]
  assert not getattr(op(), "__module__", "").startswith("pp_ops")


def test_randaug_is_big_visions(ops, monkeypatch):
  args, line_up = [], randaug.line_up
  monkeypatch.setattr(
    randaug, "line_up", lambda *a: args.append(a) or line_up(*a)
  )
  ops["randaug"](2, 15)({"image": IMAGE})
  ops["randaug"](2, 15, contrast="fixed")({"image": IMAGE})
  assert [args[0], args[-1]] == [(15, True), (15, False)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("method", ["bilinear", "area", None])
def test_only_the_window_is_ours(ops, kind, window, method, monkeypatch):
  """With one window the images are big_vision's, to the last bit."""
  y, x, h, w = window
  given = lambda *_: tuple(map(tf.constant, window))
  monkeypatch.setattr(crops, "law_sampler", lambda _: given)
  resize = dict(size=32, method=method) if method else {}

  def expected(crop):
    if not method:
      return crop
    return tf.cast(tf.image.resize(crop, (32, 32), method), tf.uint8)

  # The fast DCT, and what it makes of a window's edges; no rounding.
  crop = tf.image.decode_and_crop_jpeg(JPEG, window, channels=3)
  from_jpeg = ops["decode_jpeg_and_beta_crop"](**resize)({"image": JPEG})
  np.testing.assert_array_equal(from_jpeg["image"], expected(crop))
  crop = IMAGE[y : y + h, x : x + w]
  from_image = ops["beta_crop"](**resize)({"image": tf.constant(IMAGE)})
  np.testing.assert_array_equal(from_image["image"], expected(crop))
  if kind == "stand-in":
    return

  box = tf.constant([y, x, 0]), tf.constant([h, w, 3]), None
  name = "sample_distorted_bounding_box"
  monkeypatch.setattr(tf.image, name, lambda *_, **__: box)
  theirs = ops["decode_jpeg_and_inception_crop"](**resize)({"image": JPEG})
  np.testing.assert_array_equal(from_jpeg["image"], theirs["image"])
  theirs = ops["inception_crop"](**resize)({"image": tf.constant(IMAGE)})
  np.testing.assert_array_equal(from_image["image"], theirs["image"])


def test_cropmix_is_ours(ops):
  image = ops["cropmix"](24)({"image": tf.constant(IMAGE)})["image"]
  fused = ops["decode_jpeg_and_cropmix"](24, num=2)({"image": JPEG})["image"]
  assert image.shape == fused.shape == (24, 24, 3)


def test_arguments_are_in_big_visions_order(ops, monkeypatch):
  laws = []
  sampler = crops.law_sampler
  monkeypatch.setattr(
    crops, "law_sampler", lambda law: laws.append(law) or sampler(law)
  )
  ops["inception_crop_fixed"](24, 8, 90, "nearest", False)
  ops["beta_crop"](24, 2, 3, 8, 90, "area")
  ops["decode_jpeg_and_inception_crop_fixed"](24, 8, 90, 0.5, 2, "area", True)
  fixed, beta, fused = laws
  assert (fixed.area_min, fixed.area_max, fixed.ratio_min) == (0.08, 0.9, 3 / 4)
  assert (beta.alpha, beta.beta, beta.area_max) == (2, 3, 0.9)
  assert (fused.ratio_min, fused.ratio_max) == (0.5, 2)
  with pytest.raises(ValueError, match="unexpected keyword argument 'aera"):
    ops["beta_crop"](24, aera_min=8)


@NEEDS_PATH
@pytest.mark.parametrize("place", range(16))
def test_every_op_of_randaug_is_big_visions(place, tmp_path, monkeypatch):
  for name, module in big_vision_helpers.addons().items():
    monkeypatch.setitem(sys.modules, name, module)
  big_vision_helpers.use("real", tmp_path, monkeypatch)
  theirs = importlib.import_module("big_vision.pp.archive.autoaugment")
  name = [*theirs.NAME_TO_FUNC][place]
  # The order in which distort_image_with_randaugment lists them.
  order = "AutoContrast Equalize Invert Rotate Posterize Solarize Color "
  order += "Contrast Brightness Sharpness ShearX ShearY TranslateX TranslateY "
  order = (order + "Cutout SolarizeAdd").split()
  signed = lambda level: -tf.constant(level, tf.float32)
  monkeypatch.setattr(theirs, "_randomly_negate_tensor", signed)
  middle = lambda shape, minval, maxval, dtype: maxval * 3 // 8
  monkeypatch.setattr(theirs.tf, "random_uniform", middle)
  constants = theirs.HParams(cutout_const=40, translate_const=100)
  noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
  for image in (photo(224, 240), noise):
    for level in range(31):
      op, _, args = theirs._parse_policy_info(
        name, 0.5, float(level), [128] * 3, constants
      )
      expected = op(tf.constant(image), *args).numpy()
      ours = uint8_op.ops_of(randaug.line_up(level, True))[order.index(name)]
      drawn = map(tf.constant, (-1.0, 3 / 8, 3 / 8))
      out = ours(tf.constant(image), *drawn).numpy()
      assert error(out, expected) <= 1, (name, level)
