"""timm's mixup and CutMix: closed form, laws, targets, and timm itself.

Tests of distributions have fixed seeds; each p-value falls under its threshold,
1e-4, by chance once in 10^4.
"""

import jax
import numpy as np
import pytest
import scipy.stats
from op_helpers import first_quick

from big_crop.objectives import cutmix, losses, mixing, targets
from big_crop.runtime import sharding

MODES = cutmix.MODES
H, W = 20, 12


def ones_and_zeros(size):
  """A batch whose first half is 1, of class 0, and whose second is 0, of 1.

  So the mean of a mixed image in the first half is its own part of it.
  """
  first = np.arange(size) < size // 2
  image = np.zeros((size, H, W, 1), np.float32)
  image[first] = 1
  return image, np.stack([first, ~first], 1).astype(np.float32)


def own_weights(mode, num, **kwargs):
  """Weights and images of the first half, `num` or more, as drawn."""
  mix = jax.jit(cutmix.make(mode=mode, **kwargs))
  if mode != "batch":
    image, labels = mix(jax.random.key(0), *ones_and_zeros(2 * num))
    return np.asarray(labels)[:num, 0], np.asarray(image)[:num, ..., 0]
  keys = jax.random.split(jax.random.key(0), num)
  image, labels = jax.vmap(lambda k: mix(k, *ones_and_zeros(2)))(keys)
  return np.asarray(labels)[:, 0, 0], np.asarray(image)[:, 0, :, :, 0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.first(2)
def test_mixup_is_a_weighted_sum_with_the_flipped_batch(mode):
  rng = np.random.default_rng(0)
  image = rng.normal(size=(8, H, W, 3)).astype(np.float32)
  labels = np.eye(8, dtype=np.float32)
  mix = cutmix.make(mixup_alpha=0.5, mode=mode)
  got, got_labels = mix(jax.random.key(1), image, labels)
  num = 4 if mode == "half" else 8
  assert got.shape == (num, H, W, 3) and got_labels.shape == (num, 8)
  weights = np.asarray(got_labels)[np.arange(num), np.arange(num)]
  w = weights[:, None, None, None]
  expected = w * image[:num] + (1 - w) * image[::-1][:num]
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
  partners = 7 - np.arange(num)
  np.testing.assert_allclose(
    np.asarray(got_labels)[np.arange(num), partners], 1 - weights, atol=1e-6
  )
  distinct = {"batch": 1, "pair": 4, "elem": 8, "half": 4}[mode]
  assert len(np.unique(weights.round(6))) == distinct
  if mode == "pair":
    np.testing.assert_array_equal(weights, weights[::-1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.first(2)
def test_cutmix_pastes_one_box_and_counts_its_pixels(mode):
  weights, image = own_weights(mode, 64, cutmix_alpha=1.0)
  assert set(np.unique(image)) == {0, 1}
  np.testing.assert_allclose(image.mean((1, 2)), weights, atol=1e-6)
  for one in image:
    y, x = np.nonzero(one == 0)
    if len(y):
      box = (np.ptp(y) + 1) * (np.ptp(x) + 1)
      assert box == len(y), "not a rectangle"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.first(1)
def test_the_weight_of_mixup_is_beta(mode):
  weights, _ = own_weights(mode, 4000, mixup_alpha=0.4)
  law = scipy.stats.beta(0.4, 0.4)
  assert scipy.stats.kstest(weights, law.cdf).pvalue > 1e-4


def test_both_weights_survive_rounding():
  """Weights are 0 as often as timm's, which are drawn in float64."""
  num, alpha = 100_000, 0.1
  ours = [np.asarray(v) for v in cutmix._beta(jax.random.key(3), alpha, num)]
  theirs = np.random.default_rng(4).beta(alpha, alpha, num)
  theirs = theirs, 1 - theirs
  for a, b in zip(ours, theirs, strict=True):
    lost = [[(v == 0).sum(), (v != 0).sum()] for v in (a, b)]
    assert scipy.stats.fisher_exact(lost).pvalue > 1e-4
  assert (ours[1] == 0).mean() > 0.01  # float32 alone would give 0.09
  law = scipy.stats.beta(alpha, alpha)
  for v in ours:
    assert (v[v > 0] > 1e-38).all()
    small = v[(v > 1e-15) & (v < 0.5)]
    cdf = lambda x: (law.cdf(x) - law.cdf(1e-15)) / (0.5 - law.cdf(1e-15))
    assert scipy.stats.kstest(small, cdf).pvalue > 1e-4


def boxes_of_the_paper(num, alpha, rng):
  """Images of CutMix's boxes, by its paper with timm's rounding, in NumPy."""
  ratio = np.sqrt(1 - rng.beta(alpha, alpha, num))
  inside = []
  for length in (H, W):
    cut = (length * ratio).astype(int)[:, None]
    centre = rng.integers(0, length, (num, 1))
    place = np.arange(length)
    inside.append(
      (centre - cut // 2 <= place) & (place < centre + (cut + 1) // 2)
    )
  return 1.0 - inside[0][:, :, None] * inside[1][:, None]


def sides_of(image):
  """Height and width of the zeros in each image."""
  zeros = image == 0
  return np.stack([zeros.any(2).sum(1), zeros.any(1).sum(1)], 1)


def same_law(a, b):
  """p-value of a chi-square test that two samples of integers have one law."""
  values = np.unique(np.concatenate([a, b]))
  table = [[(x == v).sum() for v in values] for x in (a, b)]
  return scipy.stats.chi2_contingency(table).pvalue


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.first(2)
def test_the_law_of_the_box(mode):
  _, image = own_weights(mode, 4000, cutmix_alpha=1.0)
  expected = boxes_of_the_paper(4000, 1.0, np.random.default_rng(1))
  for axis in (0, 1):
    assert same_law(*(sides_of(x)[:, axis] for x in (image, expected))) > 1e-4
    first = [(x == 0).any(2 - axis).argmax(1) for x in (image, expected)]
    assert same_law(*first) > 1e-4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.first(1)
def test_mixup_and_cutmix_are_as_frequent(mode):
  _, image = own_weights(mode, 4000, mixup_alpha=0.8, cutmix_alpha=1.0)
  is_mixup = ((image > 0) & (image < 1)).any((1, 2)).sum()
  assert scipy.stats.binomtest(int(is_mixup), 4000, 0.5).pvalue > 1e-4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.first(1)
def test_timm_agrees(mode):
  timm_mixup = pytest.importorskip("timm.data.mixup")
  torch = pytest.importorskip("torch")
  num = 3000
  kwargs = dict(mixup_alpha=0.8, cutmix_alpha=1.0)
  ours, our_images = own_weights(mode, num, **kwargs)

  np.random.seed(0)
  labels = torch.arange(2 * num)
  settings = dict(mode=mode, label_smoothing=0.0, num_classes=2 * num, **kwargs)
  image, _ = ones_and_zeros(2 * num)
  if mode == "batch":
    settings["num_classes"] = 2
    mix = timm_mixup.Mixup(**settings)
    theirs, their_images = [], []
    for _ in range(num):
      image, _ = ones_and_zeros(2)
      x = torch.tensor(image).permute(0, 3, 1, 2)
      x, y = mix(x, torch.arange(2))
      theirs.append(float(y[0, 0]))
      their_images.append(x[0, 0].numpy())
    theirs, their_images = np.array(theirs), np.stack(their_images)
  elif mode == "half":
    # timm has this mode for uint8 images only.
    mix = timm_mixup.FastCollateMixup(**settings)
    pixels = (255 * image).astype(np.uint8).transpose(0, 3, 1, 2)
    x, y = mix([(a, int(b)) for a, b in zip(pixels, labels, strict=True)])
    assert len(x) == len(y) == num
    theirs = np.diagonal(y.numpy())
    their_images = x[:, 0].numpy() / 255
  else:
    mix = timm_mixup.Mixup(**settings)
    x, y = mix(torch.tensor(image).permute(0, 3, 1, 2), labels)
    theirs = np.diagonal(y.numpy())[:num]
    their_images = x[:num, 0].numpy()

  assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-4
  is_cut = lambda x: ((x == 0) | (x == 1)).all((1, 2)) & (x == 0).any((1, 2))
  a, b = (x[is_cut(x)] for x in (our_images, their_images))
  counts = [len(a), num - len(a)], [len(b), num - len(b)]
  assert scipy.stats.chi2_contingency(counts).pvalue > 1e-4
  for axis in (0, 1):
    # Bins of four: a chi-square test wants more than a few of each.
    sides = [sides_of(x)[:, axis] // 4 for x in (a, b)]
    assert same_law(*sides) > 1e-4


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_timms_targets(mode):
  """timm's smoothed and mixed labels, from its weights, are our targets."""
  timm_mixup = pytest.importorskip("timm.data.mixup")
  torch = pytest.importorskip("torch")
  num = 10
  np.random.seed(1)
  mix = timm_mixup.Mixup(
    mixup_alpha=0.8, mode=mode, label_smoothing=0.1, num_classes=num
  )
  image, _ = ones_and_zeros(num)
  classes = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
  x, y = mix(torch.tensor(image).permute(0, 3, 1, 2), classes)
  weight = x.mean((1, 2, 3)).numpy()
  weight[num // 2 :] = 1 - weight[num // 2 :]
  hot = np.eye(num, dtype=np.float32)[classes.numpy()]
  labels = weight[:, None] * hot + (1 - weight[:, None]) * hot[::-1]
  got = targets.make(smoothing=0.1)(labels)
  np.testing.assert_allclose(got, y.numpy(), atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.2])
@pytest.mark.parametrize("sum_classes", [False, True])
def test_timms_binary_cross_entropy(smoothing, threshold, sum_classes):
  timm_loss = pytest.importorskip("timm.loss")
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(0)
  logits = rng.normal(scale=3, size=(6, 7)).astype(np.float32)
  classes = rng.integers(0, 7, 6)
  theirs = timm_loss.BinaryCrossEntropy(
    smoothing=smoothing, target_threshold=threshold, sum_classes=sum_classes
  )(torch.tensor(logits), torch.tensor(classes))
  make_targets = targets.make(smoothing=smoothing, threshold=threshold)
  name = "sigmoid_xent" if sum_classes else "mean_sigmoid_xent"
  hot = np.eye(7, dtype=np.float32)[classes]
  ours = losses.get(name)(logits, make_targets(hot)).mean()
  np.testing.assert_allclose(ours, float(theirs), rtol=1e-6)


def test_targets():
  labels = np.array([[1, 0, 0, 0], [0.3, 0.7, 0, 0]], np.float32)
  make = lambda **kw: np.asarray(targets.make(**kw)(labels))
  np.testing.assert_array_equal(make(), labels)
  np.testing.assert_allclose(
    make(smoothing=0.1),
    [[0.925, 0.025, 0.025, 0.025], [0.295, 0.655, 0.025, 0.025]],
    rtol=1e-6,
  )
  np.testing.assert_allclose(make(smoothing=0.1).sum(1), 1, rtol=1e-6)
  present = np.array([[1, 0, 0, 0], [1, 1, 0, 0]])
  np.testing.assert_array_equal(make(kind="present"), present)
  np.testing.assert_allclose(
    make(kind="present", smoothing=0.1), 0.9 * present, rtol=1e-6
  )
  np.testing.assert_array_equal(
    make(threshold=0.5), [[1, 0, 0, 0], [0, 1, 0, 0]]
  )
  np.testing.assert_array_equal(make(threshold=0.3)[1], [0, 1, 0, 0])
  assert make(kind="present").dtype == np.float32


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    (dict(kind="all"), "unknown config.targets.kind 'all'"),
    (dict(smoothing=1.0), "config.targets.smoothing is 1.0"),
    (dict(threshold=-0.1), "config.targets.threshold is -0.1"),
    (dict(kind="present", threshold=0.2), "takes every class above 0"),
  ],
)
def test_bad_targets_get_one_line(kwargs, message):
  with pytest.raises(ValueError, match=message):
    targets.make(**kwargs)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    (dict(mode="example"), "unknown config.mixing.mode 'example'"),
    (dict(mixup_alpha=-1), "config.mixing.mixup_alpha is -1"),
    (dict(cutmix_alpha=-1), "config.mixing.cutmix_alpha is -1"),
  ],
)
def test_bad_mixing_gets_one_line(kwargs, message):
  with pytest.raises(ValueError, match=message):
    mixing.make(mixing=kwargs)


def test_one_kind_of_mixing_at_a_time():
  with pytest.raises(ValueError, match="both on; keep one"):
    mixing.make(dict(p=0.2), dict(cutmix_alpha=1.0))
  image, labels = ones_and_zeros(4)
  for mixup in ({}, dict(p=0.0)):
    got = mixing.make(mixup, dict(mixup_alpha=0.0))(None, image, labels)
    assert got[0] is image and got[1] is labels


@pytest.mark.parametrize("mode", ["pair", "half"])
def test_an_odd_batch_has_no_pairs(mode):
  mix = cutmix.make(mixup_alpha=1.0, mode=mode)
  with pytest.raises(ValueError, match="needs an even batch, not 3 images"):
    mix(jax.random.key(0), *ones_and_zeros(3))


@pytest.mark.parametrize("mode", first_quick(MODES, 2))
@pytest.mark.first(1)
def test_mixing_does_not_depend_on_the_sharding(mode):
  image, labels = ones_and_zeros(16)
  mix = jax.jit(cutmix.make(mixup_alpha=0.5, cutmix_alpha=1.0, mode=mode))
  mesh = sharding.make_mesh([("data", 8)])
  data = sharding.make_global_batch({"image": image, "labels": labels}, mesh)
  key = jax.random.key(5)
  expected = mix(key, image, labels)
  for a, b in zip(mix(key, **data), expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-6)
