"""The recipe's evaluators on ImageNet-ReaL and -V2 datasets made here.

TFDS's own builders write them from our examples: grey images, whose level is
the class that a stand-in for a model predicts.
"""

import jax
import numpy as np
import pytest
from data_helpers import grey, grey_level, write

from big_crop import config, evaluators
from big_crop.runtime import sharding

RECIPE = "configs/wrong_inception_crop/vit_s16_i1k.py"
LEVELS = [0, 17, 60, 100, 101, 140, 200, 230, 255]
REAL = [[0], [3, 17], [], [99], [101, 7, 9], [140], [], [1], [255, 2]]
LABELS = [0, 17, 61, 100, 101, 0, 200, 230, 254]


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
  images = [
    {"image": grey(level, (300 + i, 260)), "file_name": f"{i}.JPEG"}
    for i, level in enumerate(LEVELS)
  ]
  real = [
    (i, {**image, "original_label": LABELS[i], "real_label": REAL[i]})
    for i, image in enumerate(images)
  ]
  write("imagenet2012_real", "validation", real, tmp_path, monkeypatch)
  for image in images:
    image["image"].seek(0)
  v2 = [(i, {**image, "label": LABELS[i]}) for i, image in enumerate(images)]
  write("imagenet_v2", "test", v2, tmp_path, monkeypatch)
  return tmp_path


@pytest.mark.slow
def test_real_and_v2(data_dir):
  evals = config.load(f"{RECIPE}:data_dir={data_dir}").evals
  context = {
    "model": None,
    "predict": jax.jit(grey_level),
    "mesh": sharding.make_mesh([("data", -1)]),
    "num_classes": 1000,
    "seed": 0,
  }
  results = {}
  for name in ("real", "v2"):
    evaluator = evaluators.make(name, evals[name].to_dict(), **context)
    results[name] = evaluator.run(0.0)
  sets = {"real": REAL, "v2": [[label] for label in LABELS]}
  for name, labels in sets.items():
    counted = [(g, s) for g, s in zip(LEVELS, labels, strict=True) if s]
    top1 = np.mean([g in s for g, s in counted])
    top5 = np.mean([any(g + k in s for k in range(5)) for g, s in counted])
    assert results[name]["count"] == len(counted)
    assert results[name]["top1"] == pytest.approx(top1)
    assert results[name]["top5"] == pytest.approx(top5)
  assert results["real"]["count"] == 7
