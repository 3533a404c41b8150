"""CropMix on both engines, against a plain transcription of the paper."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from device_helpers import both, on_device, on_host, photographs
from op_helpers import first_quick
from PIL import Image
from scipy import stats
from test_pp_crops import IMAGES, many

from big_crop.device_ops import cropmix as device_cropmix
from big_crop.device_ops import philox
from big_crop.device_ops.canvas import Canvas
from big_crop.measure.measurement import measure
from pp_ops import cropmix, laws, registry, seeds
from pp_ops.augmentations import PERMUTATIONS
from pp_ops.laws.cropmix import sample_union, smaller_weight
from pp_ops.random import Rng, example_seed

ALARM = 1e-5  # of each comparison; 100 of them alarm once in a thousand runs
SHAPE, SIZE = (60, 85), (24, 33)
# Images for each number of views.
NUMS = [15_000, pytest.param(150_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("alpha", [0.1, 0.4 / 3, 0.2, 1, 4, 100])
def test_weights_are_the_quantiles_of_beta(alpha):
  u = np.random.default_rng(0).random(100_000)
  weight = smaller_weight(u, alpha, np)
  tail = stats.beta.cdf(weight, alpha, alpha)
  np.testing.assert_allclose(tail, np.minimum(u, 1 - u), atol=1e-4)
  single = smaller_weight(jnp.asarray(u, jnp.float32), alpha, jnp)
  np.testing.assert_allclose(single, weight, atol=1e-4)
  np.testing.assert_allclose(smaller_weight(tf.constant(u), alpha, tf), weight)


def random_resized_crops(rng, num, low, high):
  """torchvision's `RandomResizedCrop.get_params` for `num` images of SHAPE."""
  height, width = SHAPE
  out = np.zeros((num, 4), int)
  todo = np.arange(num)
  for _ in range(10):
    area = height * width * rng.uniform(low, high, len(todo))
    ratio = np.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3), len(todo)))
    w, h = np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))
    ok = (0 < w) & (w <= width) & (0 < h) & (h <= height)
    h, w = h[ok].astype(int), w[ok].astype(int)
    y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    out[todo[ok]] = np.stack([y, x, h, w], 1)
    todo = todo[~ok]
  w = round(height * 4 / 3)  # SHAPE is wider than that
  out[todo] = 0, (width - w) // 2, height, w
  return out


def transcription(rng, n, mix, num):
  """What the paper draws for `num` images with n views: section 3.2, A.

  Returns:
    Windows [num, n, 4] in the order of mixing; for each step whether the newer
    image is the lighter or pasted one, that one's permutation, and lambda or
    the box.
  """
  s = 0.01
  bounds = [s + k * (1 - s) / n for k in range(n + 1)]
  views = np.stack(
    [random_resized_crops(rng, num, *bounds[k : k + 2]) for k in range(n)], 1
  )
  order = rng.permuted(np.tile(np.arange(n), (num, 1)), axis=1)
  windows = np.take_along_axis(views, order[..., None], 1)
  shape = num, n - 1
  alpha = 0.4 / n if mix == "mixup" else 1.0
  lam = rng.beta(alpha, alpha, shape)
  permutation = rng.integers(0, 6, shape)
  if mix == "mixup":
    return windows, lam > 0.5, permutation, np.minimum(lam, 1 - lam)[..., None]
  box = []
  for length in SIZE:
    side = np.floor(length * np.sqrt(1 - lam)).astype(int)
    begin = rng.integers(0, length, shape) - side // 2
    box += [np.maximum(begin, 0), np.minimum(begin + side, length)]
  return windows, rng.random(shape) < 0.5, permutation, np.stack(box, -1)


@functools.cache
def ours(spec, num):
  """Numbers of views, windows and steps that the device draws."""
  law = registry.law_of(spec, several=True)
  indices = np.arange(num, dtype=np.int64)
  words = philox.seed_words(*seeds.pack(3, np.int64(0), indices, np.int64(0)))

  @jax.jit
  @jax.vmap
  def draw(seed):
    rng = philox.Rng(seed)
    u = rng.uniform([law.draws], "float64")
    n = jnp.int32
    canvas = Canvas(jnp.zeros((1, 1, 1)), n(0), n(0), n(SHAPE[0]), n(SHAPE[1]))
    own = philox.Rng(rng.reserve(2 * law.most))
    views, windows, steps = device_cropmix.plan(law, u, canvas, SIZE, own)
    windows = [jnp.stack([w.y, w.x, w.height, w.width]) for w in windows]
    return views, jnp.stack(windows), steps

  return jax.tree.map(np.asarray, draw(words))


def same_distribution(a, b):
  """p-value for two samples of numbers to have one distribution."""
  a, b = np.ravel(a), np.ravel(b)
  if len(np.unique(a)) > 100:
    return stats.ks_2samp(a, b).pvalue
  values = np.union1d(a, b)
  table = np.stack([(x[:, None] == values).sum(0) for x in (a, b)])
  return stats.chi2_contingency(table[:, table.sum(0) > 10]).pvalue


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("images", NUMS)
@pytest.mark.slow
def test_what_is_drawn_is_the_papers(images, n, mix):
  spec = f"cropmix({SIZE}, num=(2, 3, 4), mix={mix!r})"
  num, windows, steps = ours(spec, 3 * images)
  assert stats.chisquare(np.unique(num, return_counts=True)[1]).pvalue > ALARM
  mine = num == n
  windows, steps = windows[mine, :n], [s[mine, : n - 1] for s in steps]
  theirs = transcription(np.random.default_rng(n), n, mix, images)
  newer, weight, box, permutation = steps
  found = {}
  for k in range(n):
    for i, what in enumerate("yxhw"):
      pair = windows[:, k, i], theirs[0][:, k, i]
      found[f"view {k}, {what}"] = same_distribution(*pair)
  # Sorted areas, which show that no two views have the same range of scales.
  areas = [np.sort(w[..., 2] * w[..., 3], 1) for w in (windows, theirs[0])]
  for k in range(n):
    found[f"scale {k}"] = same_distribution(areas[0][:, k], areas[1][:, k])
  for k in range(n - 1):
    found[f"newer {k}"] = same_distribution(newer[:, k], theirs[1][:, k])
    pair = permutation[:, k].astype(int), theirs[2][:, k]
    found[f"permutation {k}"] = same_distribution(*pair)
    if mix == "mixup":
      # NumPy's lambda rounds to 1, and its weight to 0, if 1 - lambda < 1e-16.
      weights = (x[:, k].astype(float) for x in (weight, theirs[3][..., 0]))
      pair = (np.maximum(x, 1e-12) for x in weights)
      found[f"weight {k}"] = same_distribution(*pair)
    else:
      corners = box[:, k][:, [0, 2, 1, 3]]
      for i in range(4):
        pair = corners[:, i].astype(int), theirs[3][:, k, i]
        found[f"box {k}, {i}"] = same_distribution(*pair)
  worst = min(found, key=found.get)
  assert found[worst] > ALARM, (worst, found[worst])


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
@pytest.mark.first(1)
@pytest.mark.long
def test_the_image_is_pillows(mix):
  spec = f"cropmix({SIZE}, mix={mix!r})"
  law, images = registry.law_of(spec, several=True), photographs(num=60)
  planner = cropmix.get_planner(law, SIZE)

  @tf.function(autograph=False)
  def draw(shape, seed):
    return planner(shape, Rng(seed))

  for i, out in enumerate(on_host(spec, images)):
    seed = example_seed(1, tf.constant(2, tf.int64), tf.constant(i, tf.int64))
    plan = draw(tf.shape(images[i]), seed)
    n = int(plan.num)
    windows = plan.windows.numpy()[:n]
    steps = [x.numpy()[: n - 1] for x in plan.steps]
    views = [
      np.asarray(
        Image.fromarray(images[i][y : y + h, x : x + w]).resize(SIZE[::-1], 2),
        np.float64,
      )
      for y, x, h, w in windows
    ]
    mixed = views[0]
    for view, newer, weight, box, order in zip(views[1:], *steps, strict=True):
      lighter, heavier = (view, mixed) if newer else (mixed, view)
      lighter = lighter[..., PERMUTATIONS[int(order)]]
      if mix == "mixup":
        mixed = weight * lighter + (1 - weight) * heavier
      else:
        top, left, bottom, right = box.astype(int)
        mixed = heavier.copy()
        mixed[top:bottom, left:right] = lighter[top:bottom, left:right]
    image = np.asarray(out["image"], np.float64)
    assert np.abs(np.round(mixed) - image).max() <= 1


BOTH = [
  pytest.param("cropmix(24)", marks=pytest.mark.long),
  *first_quick(
    [
      "decode_jpeg_and_cropmix(24, mix='cutmix', num=(1, 3))|flip_lr",
      "cropmix((20, 24), num=2, scales='single', law='beta_crop(alpha=2)')",
      "cropmix(24, scales=[(1, 20), (30, 100)], num=2, permute=False, "
      "before='flip_lr|randaug(1, 5)')",
    ],
    0,
    pytest.mark.slow,
  ),
]


@pytest.mark.parametrize("spec", BOTH)
def test_both_engines_make_the_same(spec):
  host, device = both(spec, photographs(num=48))
  off = np.abs(host - device).reshape(len(host), -1).max(1) > 1
  # In float32 a side, or a tie in randaug, may round to another pixel.
  assert off.sum() <= 2, np.flatnonzero(off)


FUSED = ["cropmix(30)", "cropmix(30, mix='cutmix')"]


@pytest.mark.parametrize("spec", first_quick(FUSED, 1, pytest.mark.slow))
@pytest.mark.long
def test_fused_is_decode_then_cropmix_bit_for_bit(spec):
  images = [image() for image in IMAGES.values()]
  fused = many(f"keep('image')|decode_jpeg_and_{spec}", images, 12)
  plain = many(f"decode|{spec}", images, 12)
  np.testing.assert_array_equal(fused, plain)


def test_one_view_is_the_plain_crop_bit_for_bit():
  images = photographs(num=24)
  law = "area_min=8, antialias=True"
  for a, b in zip(
    both(f"cropmix(20, num=1, {law})", images),
    both(f"inception_crop_fixed(20, {law})", images),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_without_seeds_it_draws_anew_each_time():
  fn = registry.get_preprocess_fn("cropmix(8)")
  image = tf.constant(photographs(num=1)[0])
  data = tf.data.Dataset.from_tensors({"image": image}).repeat(20).map(fn)
  images = [x["image"].tobytes() for x in data.as_numpy_iterator()]
  assert len(set(images)) > 15


def test_grey_and_float_images():
  fn = registry.get_preprocess_fn("cropmix(8, num=3)")
  grey = photographs(num=1)[0][..., :1]
  assert fn({"image": tf.constant(grey)})["image"].shape == (8, 8, 1)
  out = fn({"image": tf.constant(grey, tf.float32) / 255})["image"]
  assert out.dtype == tf.float32 and 0 < float(tf.reduce_mean(out)) < 1


@pytest.mark.parametrize("op", ["mix_in", "cut_in"])
def test_two_views_are_mixed(op):
  """A white view and one twice as bright show the weight of the latter."""
  views = 'copy("image", "image2")|value_range(0, 1)|value_range(0, 2, '
  views = f"resize({SIZE})|{views}"
  spec = f'{views}key="image2")|{op}("image2")'
  white = np.full((*SIZE, 3), 255, np.uint8)
  images = np.asarray(on_device(spec, [white] * 3000)["image"])
  host = np.stack([f["image"] for f in on_host(spec, [white] * 16)])
  np.testing.assert_allclose(host, images[:16], atol=1e-5)
  weight = images[..., 0] - 1
  rng = np.random.default_rng(0)
  if op == "mix_in":
    assert np.ptp(weight, (1, 2)).max() == 0
    expected = rng.beta(0.2, 0.2, 30_000)
    assert same_distribution(weight[:, 0, 0], expected) > ALARM
    return
  assert set(np.unique(weight)) <= {0, 1}
  *_, box = transcription(rng, 2, "cutmix", 30_000)
  top, bottom, left, right = np.moveaxis(box[:, 0], -1, 0)
  for axis, length in ((2, bottom - top), (1, right - left)):
    found = weight.max(axis).sum(1)
    assert same_distribution(found, np.where(bottom - top, length, 0)) > ALARM
  rows = weight.max(2)[weight.any((1, 2))].argmax(1)
  assert same_distribution(rows, top[(bottom > top) & (right > left)]) > ALARM


def test_what_the_views_cover_together():
  law = registry.law_of("cropmix(8, num=(1, 3, 4))", several=True)
  areas = sample_union(law, 300, *SHAPE, np.random.default_rng(0))
  rng, painted = np.random.default_rng(0), []
  for n, count in zip(law.num, rng.multinomial(300, [1 / 3] * 3), strict=True):
    windows = [laws.sample(v, count, *SHAPE, rng)[:4] for v in law.views(n)]
    for i in range(count):
      image = np.zeros(SHAPE, bool)
      for y, x, h, w in (np.stack(w)[:, i] for w in windows):
        image[y : y + h, x : x + w] = True
      painted.append(image.sum())
  assert sorted(areas) == sorted(painted)


def test_it_is_measured_view_by_view():
  crop = "cropmix(8, num=2)"
  *views, union = measure([crop], {"small": {SHAPE: 1}}, 20_000)
  assert [m.crop for m in views] == [f"{crop}: view {k} of 2" for k in (1, 2)]
  mean = [m.sampled.mean_scale() for m in (*views, union)]
  for m, sampled in zip(views, mean, strict=False):
    assert abs(m.exact.mean_scale() - sampled) < 0.01
  assert mean[0] < mean[1] < mean[2] < 1
  with pytest.raises(ValueError, match="several windows: need a crop of one"):
    registry.law_of(crop)


WRONG = {
  "num=0": "num=(0,): need a number of views from 1 to 8",
  "num=(2, 2)": "several different ones",
  "num=2.5": "need a number of views",
  "alpha=0": "alpha=0: need 0.001 <= alpha <= 1000",
  "alpha=-1": "alpha=-1: need",
  "area_min=60, area_max=40": "area_min=60, area_max=40: need",
  "scales=[(1, 60), (50, 100)], num=2": "a range ends at 0.6 and the next",
  "scales=[(50, 100), (1, 50)], num=2": "ascend and do not overlap",
  "scales=[(50, 1)], num=1": "need 0 <= smallest scale <= largest scale",
  "scales=[(1, 50), (50, 100)]": "with 2 ranges of scales: need num=2",
  "scales=[(1, 50), (50, 100)], num=2, area_min=5": "not both",
  "scales='many'": "need one of ('multi', 'single')",
  "scales=3": "or a list of (smallest, largest) in percent",
  "mix='blend'": "need one of ('mixup', 'cutmix')",
  "law='beta_crop(area_min=3)'": "area_min=3 is not the law's",
  "law='flip_lr'": "declares no crop law",
  "before='flip_lrr'": "did you mean 'flip_lr'?",
  "before=3": "need a pp string",
  "permute=1": "need True or False",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments_are_one_line(wrong):
  with pytest.raises(ValueError) as e:
    registry.get_preprocess_fn(f"decode|cropmix(8, {wrong})")
  assert WRONG[wrong] in str(e.value)
  assert "\n" not in str(e.value) and len(str(e.value)) <= 300
