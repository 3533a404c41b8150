"""Samples of every law, under every namespace, against its exact distribution.

Chi-square over the window sizes, with cells pooled to an expected count of at
least 20. A right law fails a case with probability ALARM; seeds are fixed.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from op_helpers import first_quick
from scipy import stats

from pp_ops import laws
from pp_ops.laws import exact

ALARM = 1e-4
LAWS = [
  laws.NativeLaw(),
  laws.FixedLaw(),
  laws.PowerLaw(p=3),
  laws.BetaLaw(alpha=2),
  laws.BetaLaw(alpha=2.5, beta=3, area_min=0),
]
SHAPES = [
  *[(256, 512), (512, 256), (375, 500), (333, 500)],
  *[(64, 64), (32, 32), (7, 300)],
]
HARD = [(1, 1), (1, 500), (3, 3), (20000, 10)]


def sample_numpy(law, num, height, width, seed):
  rng = np.random.default_rng(seed)
  return laws.sample(law, num, height, width, rng)[2:4]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jax_sizes(law, num, height, width, key):
  def sizes(key):
    u_key, v_key = jax.random.split(key)
    # Float32 uniforms are multiples of 2^-23; their midpoints keep the ratio
    # off its bounds, where rounding would tie and give impossible windows.
    u = jax.random.uniform(u_key, (4096, law.max_attempts, law.draws)) + 2**-24
    v = jax.random.uniform(v_key, (4096, 2))
    return jnp.stack(law.window(u, v, height, width, jnp)[2:4]).astype(int)

  found = jax.lax.map(sizes, jax.random.split(key, -(-num // 4096)))
  return jnp.moveaxis(found, 0, 1).reshape(2, -1)[:, :num]


def sample_jax(law, num, height, width, seed):
  found = _jax_sizes(law, num, 1.0 * height, 1.0 * width, jax.random.key(seed))
  return np.asarray(found)


@functools.cache
def _tf_window(law):
  @tf.function(reduce_retracing=True)
  def window(num, height, width, seed):
    draw = lambda shape, i: tf.random.stateless_uniform(
      shape, tf.stack([seed, i]), dtype=tf.float64
    )
    u = draw(tf.stack([num, law.max_attempts, law.draws]), 0)
    return law.window(u, draw(tf.stack([num, 2]), 1), height, width, tf)

  return window


def sample_tf(law, num, height, width, seed):
  size = [tf.constant(float(a), tf.float64) for a in (height, width)]
  parts = []
  chunk = 20_000
  for i in range(0, num, chunk):
    out = _tf_window(law)(
      tf.constant(chunk), *size, tf.constant(seed + i, tf.int32)
    )
    parts.append(np.stack([out[2].numpy(), out[3].numpy()]).astype(int))
  return np.concatenate(parts, 1)


def native_op(law, num, height, width, seed):
  """TensorFlow's kernel itself."""

  @tf.function
  def one(i):
    _, size, _ = tf.image.stateless_sample_distorted_bounding_box(
      [height, width, 3],
      tf.zeros([0, 0, 4]),
      seed=tf.stack([seed, i]),
      min_object_covered=0.0,
      aspect_ratio_range=(law.ratio_min, law.ratio_max),
      area_range=(law.area_min, law.area_max),
      max_attempts=law.max_attempts,
      use_image_if_no_bounding_boxes=True,
    )
    return size[:2]

  # Twenty windows an element, because an element costs more than a window.
  twenty = lambda i: tf.stack([one(20 * i + k) for k in range(20)])
  ds = tf.data.Dataset.range(num // 20)
  ds = ds.map(lambda i: twenty(tf.cast(i, tf.int32)))
  parts = list(ds.batch(500).as_numpy_iterator())
  return np.concatenate(parts).reshape(num, 2).T


def chi_square(observed, expected, group):
  """P-value over groups of cells; group numbers ascend from 0."""
  observed = np.bincount(group, observed)
  expected = np.bincount(group, expected)
  if observed[expected == 0].any():
    return 0.0
  observed, expected = observed[expected > 0], expected[expected > 0]
  if len(expected) == 1:
    return 1.0
  statistic = ((observed - expected) ** 2 / expected).sum()
  return stats.chi2.sf(statistic, len(expected) - 1)


def p_value(sizes, law, height, width):
  """Sampled (h, w) against the exact law: by window size, and by crop scale.

  The first sees any difference of shape; the second, a hundred bins of equal
  probability, sees small shifts that are diluted over thousands of sizes.
  """
  h, w = (np.asarray(s).astype(np.int64) for s in sizes)
  assert h.min() >= 1 and w.min() >= 1
  assert h.max() <= height and w.max() <= width
  cells = (height + 1) * (width + 1)
  observed = np.bincount(h * (width + 1) + w, minlength=cells)
  prob = exact.size_distribution(law, height, width).prob.ravel()
  np.testing.assert_allclose(prob.sum(), 1, atol=1e-9)
  some = np.flatnonzero((prob > 0) | (observed > 0))
  expected, observed = prob[some] * len(h), observed[some]

  # Rare sizes are pooled where their running sum passes 20, 40, ...
  order = np.argsort(expected)
  rare = np.cumsum(np.where(expected[order] < 20, expected[order], 0)) // 20
  group = rare + np.cumsum(expected[order] >= 20)
  by_size = chi_square(observed[order], expected[order], group.astype(int))

  area = (some // (width + 1)) * (some % (width + 1))
  order = np.argsort(area, kind="stable")
  bins = np.minimum(np.cumsum(expected[order]) * 100 // len(h), 99)
  by_scale = chi_square(observed[order], expected[order], bins.astype(int))
  return min(1.0, 2 * min(by_size, by_scale))


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numpy(law, shape):
  num = 20_000 if shape == (7, 300) else 1_000_000
  assert p_value(sample_numpy(law, num, *shape, 1), law, *shape) > ALARM


# The native law, the fixed one, and the most general.
@pytest.mark.parametrize(
  "law", first_quick([*LAWS[:2], LAWS[-1], *LAWS[2:-1]], 3), ids=str
)
@pytest.mark.first(1)
@pytest.mark.long
def test_tensorflow_and_jax(law):
  """Large samples under at most ten attempts, small ones under a hundred.

  `Law.window` computes all attempts, of which more than ten hardly ever matter
  but take ten times as long. With ten, fallbacks are in the sample too.

  100,000 windows in a hundred bins of the crop scale, whose probabilities are
  wrong by 3.3% (root mean square), fail in 95% of all samples.
  """
  ten = dataclasses.replace(law, max_attempts=10)
  for shape in [(375, 500), (64, 64)]:
    some = sample_tf(ten, 100_000, *shape, 2)
    assert p_value(some, ten, *shape) > ALARM
    some = sample_jax(ten, 1 << 17, *shape, 3)
    assert p_value(some, ten, *shape) > ALARM
  if law != ten:
    some = sample_tf(law, 20_000, *shape, 2)
    assert p_value(some, law, *shape) > ALARM
    some = sample_jax(law, 1 << 14, *shape, 3)
    assert p_value(some, law, *shape) > ALARM


@pytest.mark.parametrize(
  ("law", "shape"),
  [
    *((laws.NativeLaw(), shape) for shape in [(64, 64), (7, 300), (333, 500)]),
    # With equal bounds, rounding in the kernel's float32 decides which windows
    # are admissible.
    (laws.NativeLaw(0.3, 0.3), (333, 500)),
    (laws.NativeLaw(0.3, 0.3), (100, 100)),
  ],
  ids=str,
)
@pytest.mark.first(2)
def test_tensorflows_own_kernel(law, shape):
  assert p_value(native_op(law, 100_000, *shape, 4), law, *shape) > ALARM


@pytest.mark.slow
@pytest.mark.parametrize(
  "area", [(0.05, 1), (0.08, 1), (0.25, 0.75), (0.2, 0.2), (0.3, 0.3), (1, 1)]
)
@pytest.mark.parametrize("ratio", [(3 / 4, 1.33), (3 / 4, 4 / 3)])
@pytest.mark.parametrize(
  "shape", [(100, 100), (333, 500), (375, 500), (500, 400), (64, 200)], ids=str
)
def test_kernel_sampler_and_exact_law(area, ratio, shape):
  law = laws.NativeLaw(*area, *ratio)
  kernel = p_value(native_op(law, 100_000, *shape, 11), law, *shape)
  sampler = p_value(sample_numpy(law, 1_000_000, *shape, 12), law, *shape)
  print(law, shape, f"kernel p = {kernel:.3g}, sampler p = {sampler:.3g}")
  assert min(kernel, sampler) > ALARM


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ten_million(law, shape):
  num = 200_000 if shape == (7, 300) else 10_000_000
  for sample in (sample_numpy, sample_jax):
    p = p_value(sample(law, num, *shape, 5), law, *shape)
    print(sample.__name__, law, shape, f"p = {p:.3g}")
    assert p > ALARM
  p = p_value(sample_tf(law, min(num, 1_000_000), *shape, 6), law, *shape)
  assert p > ALARM
  if isinstance(law, laws.NativeLaw):
    assert p_value(native_op(law, 10**6, *shape, 7), law, *shape) > ALARM


class LinearRatioLaw(laws.FixedLaw):
  """Wrong on purpose: the ratio, not its logarithm, is uniform."""

  def propose(self, u, height, width, xp):
    ratio = self.ratio_min + u[..., 0] * (self.ratio_max - self.ratio_min)
    log = np.log(ratio / self.ratio_min) / np.log(
      self.ratio_max / self.ratio_min
    )
    return super().propose(np.stack([log, u[..., 1]], -1), height, width, xp)


@pytest.mark.parametrize(
  ("wrong", "right"),
  [
    (laws.FixedLaw(area_min=0.051), laws.FixedLaw()),
    (laws.BetaLaw(alpha=2, area_min=0.051), laws.BetaLaw(alpha=2)),
    (laws.NativeLaw(area_min=0.051), laws.NativeLaw()),
    (LinearRatioLaw(), laws.FixedLaw()),
  ],
  ids=str,
)
@pytest.mark.first(1)
def test_a_wrong_law_fails(wrong, right):
  """The smallest area off by 2% of its value, or a linear ratio."""
  num = 10_000_000 if isinstance(wrong, laws.BetaLaw) else 2_000_000
  sizes = sample_numpy(wrong, num, 256, 512, 8)
  assert p_value(sizes, right, 256, 512) < 1e-9


def test_known_values():
  """256x512: acceptance and fallback by integration, by hand."""
  d = exact.size_distribution(laws.FixedLaw(), 256, 512)
  np.testing.assert_allclose(d.acceptance, 0.48306, atol=5e-6)
  np.testing.assert_allclose(d.fallback, 1.3627e-3, atol=5e-8)
  assert d.cdf(0.0499) < 1e-3 and d.cdf(1.0) == pytest.approx(1)
  assert d.percentile(5) == min(
    s for s in d.scale[0] if d.cdf(s) >= 0.05 - 1e-12
  )


@pytest.mark.long
def test_the_papers_port():
  """Appendix E: TensorFlow's law, but for two details of its kernel."""
  port, native, shape = laws.PortLaw(), laws.NativeLaw(), (160, 240)
  for sample in (sample_numpy, sample_tf):
    assert p_value(sample(port, 200_000, *shape, 13), port, *shape) > ALARM
  # The port's ratio of 4/3 allows windows a pixel wider than the kernel's 1.33.
  mine, kernels = (exact.size_distribution(x, *shape) for x in (port, native))
  h, w = np.nonzero((mine.prob > 0) & (kernels.prob == 0))
  assert len(h) and np.all(np.round(h * 4 / 3) == w)
  assert mine.percentile(5) == pytest.approx(kernels.percentile(5), rel=0.01)
  # Of the offsets 0 to 3 the kernel never draws 3.
  v = np.random.default_rng(14).random((10_000, 2))
  for law, chance in ((port, [1 / 4] * 4), (native, [*[1 / 3] * 3, 0])):
    for offset in law.place(v, 61.0, 61.0, 64.0, 64.0, np):
      found = np.bincount(offset.astype(int), minlength=4) / len(v)
      # Five standard errors.
      np.testing.assert_allclose(found, chance, atol=5 * 0.5 / 100)


def test_beta_one_one_is_the_fixed_law():
  for height, width in [(375, 500), (64, 64), (300, 400)]:
    fixed, beta = (
      exact.size_distribution(law, height, width).prob
      for law in (laws.FixedLaw(max_attempts=100), laws.BetaLaw())
    )
    np.testing.assert_allclose(beta, fixed, atol=1e-12)


def test_a_part_of_the_distribution_is_the_same_as_in_the_whole():
  narrow = laws.NativeLaw(0.3, 0.35), laws.FixedLaw(0.3, 0.35)
  square = (type(law)(ratio_min=1, ratio_max=1) for law in narrow)
  shapes = (60, 80), (80, 50), (3, 3), (1, 50), (200, 10)
  for law, shape in itertools.product([*LAWS, *narrow, *square], shapes):
    d = exact.size_distribution(law, *shape)
    for low, high in ((0, 1), (0.1, 0.1), (0.25, 0.32), (0.34, 0.34), (0.7, 1)):
      below, scale, prob = exact.scale_window(law, *shape, low, high)
      points = np.linspace(low, high, 5)
      found = [below + prob[scale <= p * (1 + 1e-12)].sum() for p in points]
      np.testing.assert_allclose(
        found, d.cdf(points), atol=1e-9, err_msg=f"{law} {shape}"
      )


class _OtherBeta(laws.BetaLaw):
  def area_quantile(self, u, xp):
    return u**3


def test_the_cdf_of_the_area_inverts_its_quantiles():
  """Also where a subclass changes only the quantiles."""
  u = np.linspace(0, 1, 101)
  areas = [x for x in LAWS if isinstance(x, laws.FixedLaw)]
  for law in [*areas, _OtherBeta(alpha=2), laws.PowerLaw(0, p=0.3)]:
    found = law.area_cdf(law.area_quantile(u, np))
    np.testing.assert_allclose(found, u, atol=1e-6, err_msg=str(law))


def test_transposing_the_image_transposes_all_laws_but_the_native():
  distances = {}
  for law in LAWS:
    a, b = (
      exact.Mixture([(1.0, exact.size_distribution(law, *shape))])
      for shape in [(256, 512), (512, 256)]
    )
    distances[law] = a.tv_distance(b.transposed())
  assert distances.pop(LAWS[0]) > 0.1
  assert max(distances.values()) < 1e-9


@pytest.mark.parametrize("shape", HARD, ids=str)
@pytest.mark.parametrize(
  "law",
  [
    *LAWS,
    laws.FixedLaw(0.3, 0.3),
    laws.FixedLaw(0.1, 0.5),
    laws.FixedLaw(ratio_min=1, ratio_max=1),
    laws.NativeLaw(0.3, 0.3),
    laws.NativeLaw(ratio_min=1, ratio_max=1),
    laws.BetaLaw(0.4, 0.4, alpha=3),
    laws.BetaLaw(0.9, 1.0, alpha=3, beta=2),
  ],
  ids=str,
)
def test_hard_shapes(law, shape):
  y, x, h, w, fell_back = laws.sample(
    law, 2_000, *shape, np.random.default_rng(9)
  )
  assert h.min() >= 1 and w.min() >= 1
  assert y.min() >= 0 and x.min() >= 0
  assert (y + h).max() <= shape[0] and (x + w).max() <= shape[1]
  d = exact.size_distribution(law, *shape)
  assert p_value((h, w), law, *shape) > ALARM
  assert stats.binomtest(int(fell_back.sum()), 2_000, d.fallback).pvalue > 1e-4


def test_window_is_the_same_in_every_namespace():
  rng = np.random.default_rng(10)
  for law in LAWS:
    u = rng.random((500, law.max_attempts, law.draws))
    v = rng.random((500, 2))
    size = np.float64(375), np.float64(500)
    mine = law.window(u, v, *size, np)
    other = law.window(
      tf.constant(u), tf.constant(v), *map(tf.constant, size), tf
    )
    for a, b in zip(mine, other, strict=True):
      np.testing.assert_array_equal(a, b)
    # Float32 rarely rounds a window's edge differently.
    other = law.window(jnp.array(u), jnp.array(v), *map(float, size), jnp)
    for a, b in zip(mine, other, strict=True):
      assert np.mean(np.asarray(a) != np.asarray(b)) < 0.01
