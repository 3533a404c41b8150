"""The embedded default dataset: the same everywhere, varied, not too easy."""

import hashlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageStat

from big_crop.data import critters

_TRAIN = 1200
_VALIDATION = 400


@pytest.fixture(scope="module")
def train():
  return critters.generate("train", 0, _TRAIN)


@pytest.fixture(scope="module")
def validation():
  return critters.generate("validation", 0, _VALIDATION)


def _digests(jpegs):
  return [hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs]


def _open(jpeg):
  image = Image.open(io.BytesIO(jpeg))
  image.load()
  return image


def test_one_example_is_the_one_of_the_batch(train):
  jpegs, labels = train
  assert len(labels) == len(jpegs) == _TRAIN
  for index in (1199, 0, 500):
    assert critters.example("train", index) == (jpegs[index], labels[index])
  again, same = critters.generate("train", 500, 503)
  assert again == jpegs[500:503]
  assert same == labels[500:503]


def test_another_process_draws_the_same_and_loads_no_framework(train):
  # A stand-in for the package's __init__, which may load TensorFlow.
  folder = os.path.dirname(critters.__file__)
  program = (
    "import hashlib, sys, types\n"
    "package = types.ModuleType('big_crop.data')\n"
    f"package.__path__ = [{folder!r}]\n"
    "sys.modules['big_crop.data'] = package\n"
    "from big_crop.data import critters\n"
    "jpegs, _ = critters.generate('train', 40, 44)\n"
    "print(*(hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs))\n"
    "assert not {'tensorflow', 'jax'} & set(sys.modules)\n"
  )
  command = [sys.executable, "-c", program]
  result = subprocess.run(command, capture_output=True, text=True, check=True)
  assert result.stdout.split() == _digests(train[0][40:44])


def test_no_two_images_are_equal(train, validation):
  digests = _digests(train[0] + validation[0])
  assert len(set(digests)) == _TRAIN + _VALIDATION


@pytest.mark.parametrize("split", critters.SPLIT_SIZES)
def test_labels_are_balanced_and_mixed(split):
  size, classes = critters.SPLIT_SIZES[split], critters.NUM_CLASSES
  labels = np.array([critters._label(split, i) for i in range(size)])
  assert len(critters.CLASS_NAMES) == len(set(critters.CLASS_NAMES)) == classes
  np.testing.assert_array_equal(
    np.bincount(labels, minlength=classes), size // classes
  )
  tenth = np.bincount(labels[: size // 10], minlength=classes)
  np.testing.assert_array_equal(tenth, size // 10 // classes)
  blocks = labels.reshape(-1, classes)
  assert len(np.unique(blocks, axis=0)) == len(blocks)


def test_splits_have_other_labels(train, validation):
  assert train[1][:_VALIDATION] != validation[1]


def test_jpegs_have_sizes_and_aspects_like_photographs(train):
  images = [_open(jpeg) for jpeg in train[0]]
  assert {(image.format, image.mode) for image in images} == {("JPEG", "RGB")}
  width, height = np.array([image.size for image in images]).T
  long, short = np.maximum(width, height), np.minimum(width, height)
  assert long.min() >= 96 and long.max() <= 200
  assert len(set(long)) > 90
  aspect = long / short
  shares = {4 / 3: 0.64, 3 / 2: 0.16, 1: 0.12, 16 / 9: 0.08}
  for value, share in shares.items():
    # Four standard errors at N = 1200 are at most 0.056.
    assert np.mean(np.abs(aspect - value) < 0.03) == pytest.approx(
      share, abs=0.056
    )
  assert np.mean(height > width) == pytest.approx(0.3 * 0.88, abs=0.052)


def test_pixels_vary(train):
  for jpeg in train[0][:50]:
    assert min(ImageStat.Stat(_open(jpeg)).stddev) > 5


def _mean_colours(jpegs):
  """Products of pairs of mean red, green, blue and 1: float[n, 10]."""
  means = [ImageStat.Stat(_open(jpeg)).mean for jpeg in jpegs]
  means = np.insert(np.array(means) / 255, 0, 1, axis=1)
  rows, columns = np.triu_indices(4)
  return means[:, rows] * means[:, columns]


def test_mean_colour_does_not_give_the_class_away(train, validation):
  targets = np.eye(critters.NUM_CLASSES)[train[1]]
  weights = np.linalg.lstsq(_mean_colours(train[0]), targets, rcond=None)[0]
  guesses = np.argmax(_mean_colours(validation[0]) @ weights, axis=1)
  # Above chance, 0.05, because colour is meant to help.
  assert 0.08 < np.mean(guesses == validation[1]) < 0.25
