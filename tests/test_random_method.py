"""method="random" of resizing: bilinear or bicubic, drawn for each image."""

import collections
import random

import numpy as np
import pytest
import scipy.stats
from op_helpers import ALARM, pillow, run, run_many, traced

from pp_ops.registry import get_preprocess_fn

METHODS = ("bilinear", "bicubic")
# Noise, so that the methods differ by more than rounding. Its contrast is low,
# because Pillow cuts the overshoot of bicubic off between its two passes.
IMAGE = np.random.default_rng(0).integers(64, 192, (60, 60, 3), np.uint8)


def test_the_images_and_how_often_are_timms():
  timm = pytest.importorskip("timm.data.transforms")
  size, num = (20, 31), 400
  theirs = timm.RandomResizedCropAndInterpolation(
    size, scale=(1, 1), ratio=(1, 1), interpolation="random"
  )
  random.seed(0)
  their = [np.asarray(theirs(pillow(IMAGE))) for _ in range(num)]
  our = run_many(f"resize({size}, 'random', antialias=True)", IMAGE, num)
  counts = collections.Counter(x.tobytes() for x in our)
  assert len(counts) == len({x.tobytes() for x in their}) == 2
  for method in METHODS:
    expected = run(f"resize({size}, '{method}', antialias=True)", IMAGE)
    ours = counts[expected.tobytes()]
    near = [np.abs(x.astype(int) - expected).max() <= 1 for x in their]
    for count in (ours, sum(near)):
      assert scipy.stats.binomtest(count, num).pvalue > ALARM


@pytest.mark.long
def test_the_method_leaves_the_other_draws_alone():
  spec = "random_resize_small(20, 22, '{}', antialias=True)"
  kinds = collections.Counter()
  for i in range(40):
    outs = {
      m: traced(spec.format(m), IMAGE.shape)(IMAGE, i).numpy()
      for m in ("random", *METHODS)
    }
    out = outs["random"]
    same = [m for m in METHODS if np.array_equal(out, outs[m])]
    assert len(same) == 1
    kinds[same[0], len(out)] += 1
  assert set(kinds) == {(m, n) for m in METHODS for n in (20, 21, 22)}


def test_a_seed_decides_whatever_the_threads():
  spec = "resize(24, 'random')"
  one = run_many(spec, IMAGE, 64, threads=1)
  np.testing.assert_array_equal(one, run_many(spec, IMAGE, 64, threads=4))
  assert len({x.tobytes() for x in one}) == 2


def test_test_images_are_not_resized_at_random():
  for op in ("resize_small", "resize_long"):
    with pytest.raises(ValueError, match="unknown resize method 'random'"):
      get_preprocess_fn(f"{op}(8, 'random')")
