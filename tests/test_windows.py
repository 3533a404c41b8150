"""Crop laws against independent transcriptions, in distribution.

Every comparison is a family of two-sample tests (Kolmogorov-Smirnov on each
number, chi-square on binned numbers and pairs, Fisher on the fallbacks) whose
smallest p-value, Bonferroni-corrected, must exceed `ALARM`: a right law fails
one case with a probability below 1e-4. Seeds are fixed.
"""

import dataclasses
import functools
import math
import random
import subprocess
import sys

import numpy as np
import pytest
from op_helpers import first_quick
from scipy import stats

from pp_ops import laws

ALARM = 1e-4
SHAPES = [(256, 512), (512, 256), (375, 500), (500, 500), (64, 64)]
HARD_SHAPES = [(1, 1), (1, 500), (500, 1), (3, 3), (20000, 10), (2, 3)]
FULL = 1_000_000
# The reference is slow, plain Python. We draw more samples than the reference,
# because ours are cheap and sharpen the test.
OURS, THEIRS = 400_000, 200_000


# Plain Python, after the paper's listings. `h`, `w` are rounded as torchvision
# does; area and ratio are what each algorithm draws.
def algorithm_2_or_3(rand, draw_area, attempts, h_o, w_o, r_min, r_max):
  for _ in range(attempts):
    area = draw_area()
    r = math.exp(rand.uniform(math.log(r_min), math.log(r_max)))
    w = round(math.sqrt(area * r))
    h = round(math.sqrt(area / r))
    if 0 < h <= h_o and 0 < w <= w_o:
      return rand.randint(0, h_o - h), rand.randint(0, w_o - w), h, w, 0
  r_o = w_o / h_o
  if r_o < r_min:
    w = w_o
    h = round(w / r_min)
  elif r_o > r_max:
    h = h_o
    w = round(h * r_max)
  else:
    w, h = w_o, h_o
  return (h_o - h) // 2, (w_o - w) // 2, h, w, 1


@functools.cache
def reference(law, num, h_o, w_o, seed):
  """[5, num]: y, x, h, w, fell_back of Algorithm 2 or 3, from `random`."""
  rand = random.Random(seed)
  low, high = law.area_min * h_o * w_o, law.area_max * h_o * w_o
  if isinstance(law, laws.BetaLaw):
    attempts = 100
    if w_o / h_o > law.ratio_max:
      high = min(high, law.ratio_max * h_o**2)
    elif w_o / h_o < law.ratio_min:
      high = min(high, w_o**2 / law.ratio_min)
    beta = lambda: rand.betavariate(law.alpha, law.beta)
    draw_area = lambda: low + beta() * (high - low)
  else:
    attempts = 10
    draw_area = lambda: rand.uniform(low, high)
  args = draw_area, attempts, h_o, w_o, law.ratio_min, law.ratio_max
  return np.array([algorithm_2_or_3(rand, *args) for _ in range(num)]).T


def sampled(law, num, h_o, w_o, seed):
  return np.stack(laws.sample(law, num, h_o, w_o, np.random.default_rng(seed)))


def chi_square(a, b):
  """Two-sample chi-square of codes, rare ones pooled."""
  codes, inverse = np.unique(np.concatenate([a, b]), return_inverse=True)
  table = np.stack(
    [
      np.bincount(part, minlength=len(codes))
      for part in (inverse[: len(a)], inverse[len(a) :])
    ]
  )
  # The smaller sample has to expect at least ten in each cell.
  rare = table.sum(0) * min(len(a), len(b)) < 10 * (len(a) + len(b))
  table = np.concatenate(
    [table[:, ~rare], table[:, rare].sum(1, keepdims=True)], 1
  )
  table = table[:, table.sum(0) > 0]
  return stats.chi2_contingency(table).pvalue if table.shape[1] > 1 else 1.0


def p_values(a, b):
  """Two-sample tests of [4 or 5, n] against [4 or 5, m] windows."""
  out = {}
  a, b = np.asarray(a), np.asarray(b)
  numbers = [
    {"y": s[0], "x": s[1], "h": s[2], "w": s[3], "area": s[2] * s[3]}
    for s in (a, b)
  ]
  for name, left in numbers[0].items():
    right = numbers[1][name]
    out[f"ks {name}"] = stats.ks_2samp(left, right, method="asymp").pvalue
    if name != "area":
      out[f"chi2 {name}"] = chi_square(left, right)
  for first, second in (("h", "w"), ("h", "y"), ("w", "x"), ("y", "x")):
    pairs = []
    step = [max(1, numbers[1][n].max() // 16) for n in (first, second)]
    for s in numbers:
      pairs.append(s[first] // step[0] * 1000 + s[second] // step[1])
    out[f"chi2 {first},{second}"] = chi_square(*pairs)
  if len(a) == 5 and len(b) == 5:
    counts = [[s[4].sum(), (1 - s[4]).sum()] for s in (a, b)]
    out["fallback"] = stats.fisher_exact(counts).pvalue
  return out


def smallest(p):
  """Bonferroni-corrected smallest p-value, and its name."""
  name = min(p, key=p.get)
  return min(1.0, p[name] * len(p)), name


def assert_same(a, b):
  p, name = smallest(p_values(a, b))
  assert p > ALARM, f"{name}: p = {p:.2g}"


LAWS = [
  laws.FixedLaw(),
  laws.BetaLaw(alpha=2),
  laws.BetaLaw(beta=3, area_min=0.25),
  laws.BetaLaw(alpha=2, beta=3, area_min=0),
]
_ids = lambda x: f"{x[0]}x{x[1]}" if isinstance(x, tuple) else type(x).__name__


@pytest.mark.parametrize("shape", first_quick(SHAPES, 3), ids=_ids)
@pytest.mark.parametrize("law", LAWS[:2], ids=_ids)
@pytest.mark.first(2)
def test_law_equals_the_papers_algorithm(law, shape):
  a, b = sampled(law, OURS, *shape, 1), reference(law, THEIRS, *shape, 2)
  assert_same(a, b)


@pytest.mark.parametrize("law", LAWS[2:], ids=["positive_skew", "general"])
def test_other_betas_equal_algorithm_3(law):
  for shape in SHAPES[:1] + SHAPES[2:3]:
    a, b = sampled(law, 50_000, *shape, 3), reference(law, 50_000, *shape, 4)
    assert_same(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=_ids)
@pytest.mark.parametrize("law", LAWS, ids=_ids)
def test_law_equals_the_papers_algorithm_at_a_million(law, shape):
  a, b = sampled(law, FULL, *shape, 5), reference(law, FULL, *shape, 6)
  p = p_values(a, b)
  print(
    f"\n{law} {shape}: fallbacks {a[4].sum()} and {b[4].sum()};",
    ", ".join(f"{k} {v:.3g}" for k, v in p.items()),
  )
  assert smallest(p)[0] > ALARM


@dataclasses.dataclass(frozen=True)
class LinearRatioLaw(laws.FixedLaw):
  def propose(self, u, height, width, xp):
    r = self.ratio_min + u[..., 0] * (self.ratio_max - self.ratio_min)
    logs = math.log(self.ratio_min), math.log(self.ratio_max)
    u0 = (np.log(r) - logs[0]) / (logs[1] - logs[0])
    return super().propose(np.stack([u0, u[..., 1]], -1), height, width, xp)


class FloorLaw(laws.FixedLaw):
  def propose(self, u, height, width, xp):
    floor = lambda v: np.round(v - 0.5 + 1e-9)
    xp = type("xp", (), {"exp": np.exp, "sqrt": np.sqrt, "round": floor})
    return super().propose(u, height, width, xp)


class LastOffsetLeftOut(laws.FixedLaw):
  place = laws.NativeLaw.place


class UnclippedLaw(laws.BetaLaw):
  area_range = laws.FixedLaw.area_range


@pytest.mark.parametrize(
  "wrong, right, shape",
  [
    (laws.FixedLaw(area_min=0.055), LAWS[0], (375, 500)),
    (laws.FixedLaw(ratio_max=1.33), LAWS[0], (256, 512)),
    (laws.FixedLaw(max_attempts=3), LAWS[0], (256, 512)),
    (LinearRatioLaw(), LAWS[0], (500, 500)),
    (FloorLaw(), LAWS[0], (64, 64)),
    (LastOffsetLeftOut(), LAWS[0], (500, 500)),
    (laws.NativeLaw(ratio_max=4 / 3), LAWS[0], (512, 256)),
    (laws.BetaLaw(alpha=2.05), LAWS[1], (375, 500)),
    (UnclippedLaw(beta=3), laws.BetaLaw(beta=3), (256, 512)),
  ],
  ids=_ids,
)
@pytest.mark.first(3)
def test_a_wrong_law_fails_the_same_test(wrong, right, shape):
  a, b = sampled(wrong, OURS, *shape, 1), reference(right, THEIRS, *shape, 2)
  assert smallest(p_values(a, b))[0] < ALARM


def test_area_follows_its_analytic_distribution():
  # At this size pixels are fine, and no window below half the area is rejected.
  side, num = 20_000, 100_000
  cases = [
    (laws.FixedLaw(area_max=0.5), stats.uniform()),
    (laws.BetaLaw(alpha=3, area_max=0.5), stats.beta(3, 1)),
    (laws.BetaLaw(beta=5, area_max=0.5), stats.beta(1, 5)),
    (laws.BetaLaw(alpha=2, beta=3, area_max=0.5), stats.beta(2, 3)),
    (laws.BetaLaw(alpha=0.1, beta=0.3, area_max=0.5), stats.beta(0.1, 0.3)),
    (laws.BetaLaw(alpha=50, beta=20, area_max=0.5), stats.beta(50, 20)),
  ]
  for law, analytic in cases:
    _, _, h, w, fell_back = sampled(law, num, side, side, 7)
    assert not fell_back.any()
    area = h.astype(float) * w / side**2
    x = (area - law.area_min) / (law.area_max - law.area_min)
    # Rounding to whole pixels moves x by up to 1e-4. Leave out the ends of the
    # interval, because the density may be infinite there.
    inside = (x > 0.01) & (x < 0.99)
    low, high = analytic.cdf(0.01), analytic.cdf(0.99)
    cdf = lambda v, low=low, high=high, a=analytic: (
      (a.cdf(v) - low) / (high - low)
    )
    assert stats.kstest(x[inside], cdf).pvalue > ALARM, law
    assert stats.binomtest(int(inside.sum()), num, high - low).pvalue > ALARM
    log_ratio = np.log(w / h) / math.log(4 / 3) / 2 + 0.5
    assert stats.kstest(log_ratio, "uniform").pvalue > ALARM


def windows_of(law, xp, to, u, v, height, width):
  """Runs a law in `xp` on u [n, attempts, 2] and v [n, 2], cast by `to`."""
  u, v, height, width = map(to, (u, v, height, width))
  h, w, ok = law.propose(u, height, width, xp)
  h, w, ok = np.asarray(h), np.asarray(w), np.asarray(ok)
  row, first = np.arange(len(ok)), ok.argmax(1)
  h, w, ok = (s[row, first] for s in (h, w, ok))
  y, x = law.place(v, to(h), to(w), height, width, xp)
  central = law.fallback(height, width, xp)
  out = np.stack([np.asarray(y), np.asarray(x), h, w])
  return np.where(ok, out, np.reshape([float(c) for c in central], (4, 1)))


NAMESPACE_LAWS = LAWS + [laws.NativeLaw()]


@pytest.mark.parametrize("law", NAMESPACE_LAWS, ids=_ids)
@pytest.mark.first(2)
def test_numpy_tensorflow_and_jax_agree(law):
  import jax.numpy as jnp
  import tensorflow as tf

  num = 3000
  for shape in SHAPES[:3]:
    rng = np.random.default_rng(11)
    u, v = rng.random((num, law.max_attempts, 2)), rng.random((num, 2))
    expected = windows_of(law, np, np.float64, u, v, *shape)
    in_tf = windows_of(
      law, tf, lambda a: tf.constant(a, tf.float64), u, v, *shape
    )
    # exp and sqrt may round differently in the last bit, next to a half.
    assert (in_tf != expected).any(0).sum() <= 1
    expected = windows_of(law, np, np.float32, u, v, *shape)
    in_jax = windows_of(law, jnp, jnp.float32, u, v, *shape)
    assert (in_jax != expected).any(0).mean() < 2e-3
    assert_same(in_jax[:, : num // 2], expected[:, num // 2 :])


def op_windows(sampler, num, h_o, w_o, seed):
  """[4, num] windows of a `pp_ops.crops` sampler, run by tf.data."""
  import tensorflow as tf

  from pp_ops.random import Rng, example_seed

  def one(i):
    return sampler(
      tf.constant(h_o), tf.constant(w_o), Rng(example_seed(seed, 0, i))
    )

  data = tf.data.Dataset.range(num).map(one, 4).batch(num)
  return np.stack([t.numpy() for t in data.get_single_element()])


@pytest.mark.parametrize("law", LAWS[:2], ids=_ids)
@pytest.mark.first(1)
@pytest.mark.long
def test_the_op_samples_the_law(law):
  from pp_ops import crops

  for shape in ((256, 512), (375, 500)):
    a = op_windows(crops.law_sampler(law), 10_000, *shape, 1)
    # `test_law_equals_the_papers_algorithm` has drawn these already.
    assert_same(a, reference(law, THEIRS, *shape, 2)[:4])


@pytest.mark.parametrize("shape", SHAPES, ids=_ids)
@pytest.mark.parametrize("law", [laws.NativeLaw(), laws.NativeLaw(
  area_min=0.2, area_max=0.7, ratio_min=0.5, ratio_max=2)],
  ids=["default", "other"])  # fmt: skip
@pytest.mark.first(4)
def test_native_law_equals_tensorflows_op(law, shape):
  from pp_ops import crops

  a = op_windows(crops.native_sampler(law), 10_000, *shape, 3)
  assert_same(a, sampled(law, 200_000, *shape, 4)[:4])


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES + [(64, 48), (9, 30)], ids=_ids)
def test_native_law_equals_tensorflows_op_at_a_million(shape):
  from pp_ops import crops

  law = laws.NativeLaw()
  a = op_windows(crops.native_sampler(law), FULL, *shape, 3)
  p = p_values(a, sampled(law, FULL, *shape, 4)[:4])
  print(f"\n{law} {shape}:", ", ".join(f"{k} {v:.3g}" for k, v in p.items()))
  assert smallest(p)[0] > ALARM


@pytest.mark.parametrize("shape", [(256, 512), (375, 500)], ids=_ids)
@pytest.mark.first(1)
def test_fixed_law_equals_torchvision(shape):
  torch = pytest.importorskip("torch")
  transforms = pytest.importorskip("torchvision.transforms")
  torch.manual_seed(0)
  image = torch.empty(3, *shape)
  num = 20_000
  get = transforms.RandomResizedCrop.get_params
  a = np.array([get(image, [0.05, 1], [3 / 4, 4 / 3]) for _ in range(num)]).T
  assert_same(a, sampled(laws.FixedLaw(), 200_000, *shape, 1)[:4])


def _law_variants():
  for cls in laws.LAWS.values():
    yield cls()
    yield cls(area_min=1.0, area_max=1.0)
    yield cls(area_min=0.01, area_max=0.01)
    yield cls(area_min=0.2, area_max=0.3)
    yield cls(ratio_min=1, ratio_max=1)
    yield cls(ratio_min=3, ratio_max=3, area_min=0.5)
    yield cls(ratio_min=0.01, ratio_max=100, max_attempts=1)
  yield laws.FixedLaw(area_min=0)
  yield laws.BetaLaw(alpha=0.01, beta=0.01, area_min=0)
  yield laws.BetaLaw(alpha=900, beta=2)


@pytest.mark.parametrize("shape", HARD_SHAPES, ids=_ids)
def test_windows_stay_inside_and_are_never_empty(shape):
  rng = np.random.default_rng(0)
  height, width = shape
  for law in _law_variants():
    y, x, h, w, _ = laws.sample(law, 500, height, width, rng)
    # float32 with the largest and smallest uniforms there are.
    ends = np.float32([0, 1e-30, 0.5, 1 - 2**-24])
    grid = np.stack(np.meshgrid(ends, ends), -1).reshape(-1, 1, 2)
    grid = np.broadcast_to(grid, (len(grid), law.max_attempts, 2))
    corner = windows_of(law, np, np.float32, grid, grid[:, 0, ::-1], *shape)
    y, x, h, w = np.concatenate([[y, x, h, w], corner], 1)
    assert h.min() >= 1 and w.min() >= 1, law
    assert y.min() >= 0 and x.min() >= 0, law
    assert (y + h).max() <= height and (x + w).max() <= width, law
    assert (corner == np.floor(corner)).all()


def test_windows_reach_every_offset():
  law = laws.FixedLaw(area_min=0.25, area_max=0.25, ratio_min=1, ratio_max=1)
  y, x, h, w, _ = laws.sample(law, 2000, 8, 8, np.random.default_rng(0))
  assert set(h) == set(w) == {4}
  assert set(y) == set(x) == {0, 1, 2, 3, 4}
  native = laws.NativeLaw(
    area_min=0.25, area_max=0.25, ratio_min=1, ratio_max=1
  )
  y, *_ = laws.sample(native, 2000, 8, 8, np.random.default_rng(0))
  assert set(y) == {0, 1, 2, 3}


def test_sample_does_not_depend_on_the_chunk_for_its_law():
  law = laws.FixedLaw()
  a = laws.sample(law, 20_000, 256, 512, np.random.default_rng(0), 999)
  b = laws.sample(law, 20_000, 256, 512, np.random.default_rng(1))
  assert [s.dtype for s in a] == [np.int32] * 4 + [bool]
  assert_same(np.stack(a), np.stack(b))


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(area_min=0.6, area_max=0.5), "area_min=0.6, area_max=0.5"),
    (dict(area_max=1.5), "area_max <= 1"),
    (dict(area_min=-0.1), "0 <= area_min"),
    (dict(area_min=math.nan), "area_min=nan"),
    (dict(ratio_min=2), "ratio_min=2"),
    (dict(ratio_min=0), "ratio_min=0"),
    (dict(ratio_max=math.inf), "ratio_max=inf"),
    (dict(max_attempts=0), "max_attempts=0"),
  ],
)
@pytest.mark.parametrize("cls", laws.LAWS.values())
def test_bad_ranges_raise_one_line(cls, kwargs, message):
  with pytest.raises(ValueError, match=message) as e:
    cls(**kwargs)
  assert "\n" not in str(e.value)


@pytest.mark.parametrize("kwargs", [dict(alpha=0), dict(beta=-1)])
def test_bad_beta_parameters_raise(kwargs):
  with pytest.raises(ValueError, match="above 0"):
    laws.BetaLaw(**kwargs)
  with pytest.raises(ValueError, match="alpha=inf"):
    laws.BetaLaw(alpha=math.inf)


def test_native_law_refuses_what_tensorflows_op_refuses():
  with pytest.raises(ValueError, match="area_min=0"):
    laws.NativeLaw(area_min=0)


def test_windows_loads_neither_tensorflow_nor_jax():
  code = (
    "import sys, numpy as np; from pp_ops import laws;"
    "law = laws.BetaLaw(alpha=2, beta=3);"
    "laws.sample(law, 9, 3, 4, np.random.default_rng());"
    "assert not {'tensorflow', 'jax'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
