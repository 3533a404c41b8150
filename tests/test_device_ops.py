"""The device's ops against tf.data's, and its laws against the exact ones."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from device_helpers import both, on_device, pack, photographs
from op_helpers import first_quick
from PIL import Image
from test_exact import ALARM, p_value

from big_crop.device_ops import crops, philox, random_resized_crop
from big_crop.device_ops import registry as device
from big_crop.device_ops.canvas import Canvas, unpack
from pp_ops import laws, registry, seeds
from pp_ops.checks import METHODS
from pp_ops.random import Rng, example_seed


@pytest.mark.parametrize("position", [0, 3])
@pytest.mark.long
def test_random_numbers_are_tensorflows(position):
  place = (7, 3, 12345)
  seed = example_seed(place[0], *(tf.constant(n, tf.int64) for n in place[1:]))
  words = philox.seed_words(*seeds.pack(*map(np.int64, place), np.int64(2)))
  seed += tf.constant([0, 2 << (37 + 18)], tf.int64)
  theirs = Rng(seed, position)
  ours = philox.Rng(jnp.asarray(words), position)
  np.testing.assert_array_equal(theirs.uniform([9]), ours.uniform([9]))
  double = theirs.uniform([1000, 3], dtype=tf.float64)
  single = ours.uniform([1000, 3], "float64")
  np.testing.assert_allclose(single, double, rtol=0, atol=2**-24)
  assert 0 < single.min() and single.max() < 1
  for low, high in ((0, 7), (-3, 100), (24, 41)):
    whole = theirs.uniform([], low, high, tf.int32)
    assert int(whole) == int(ours.integers(low, high))
  close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
  close(theirs.normal([1001]), ours.normal([1001]))
  close(theirs.normal([7, 3], tf.float64), ours.normal([7, 3], "float64"))


def test_an_op_may_not_draw_without_end():
  rng = philox.Rng(jnp.zeros(4, jnp.uint32))
  with pytest.raises(ValueError, match="256 times"):
    for _ in range(257):
      rng.next_bits()


@pytest.mark.parametrize("num", [0, 1, 2, 5, 1000])
def test_permutation_is_tensorflows(num):
  seed = np.array([-5 << 40, 2**62 + 12345], np.int64)
  theirs = tf.random.experimental.stateless_shuffle(tf.range(num), seed)
  np.testing.assert_array_equal(theirs, philox.permutation(num, seed))


def resizes():
  for method in METHODS:
    for antialias in (True, False):
      for size in ("(40, 31)", "(140, 101)"):
        yield f'decode|resize({size}, "{method}", antialias={antialias})'


# "nearest" is exact. With other methods, less than 1% of the values may differ
# by a grey level.
@pytest.mark.parametrize("spec", first_quick([*resizes()], 4, pytest.mark.slow))
@pytest.mark.first(2)
def test_resize(spec):
  host, ours = both(spec, photographs(num=24))
  difference = np.abs(host - ours)
  assert difference.max() <= ("nearest" not in spec)
  assert (difference > 0).mean() < 0.01


CROPS = [
  "decode|inception_crop_fixed(32)",
  'decode_jpeg_and_beta_crop((32, 40), alpha=2, beta=3, method="random", '
  "antialias=True)|flip_lr",
  "inception_crop_coupled(32, area_min=20)|flip_lr|vgg_value_range",
  'decode|resize_small(28, "bicubic", antialias=True, rounding="torchvision")'
  '|central_crop(24, rounding="torchvision")|value_range(-1, 1)',
  'central_crop|random_apply(0.6, "flip_lr|channel_permute")|flip_ud'
  '|resize_small(28)|random_crop(24)|keep("image")',
  'power_crop(20, p=2, method="random")',
  "inception_crop_port((20, 24), antialias=True)|clip_value_range",
  "random_resize_small(24, 40)|random_crop(22)",
  "flip_lr|resize(20)",
  'random_apply(0.5, "central_crop|flip_ud")|resize(20)',
  "random_crop(30)|flip_lr|value_range(0, 1, clip_values=True)",
  "inception_crop_fixed|flip_lr|resize(20)",
  "resize(64)|inception_crop_fixed(20)|central_crop(10)",
  'copy("image", "x")|resize(20)|drop("x")',
]


@pytest.mark.parametrize("spec", first_quick(CROPS, 4, pytest.mark.slow))
@pytest.mark.first(1)
def test_strings_of_crops(spec):
  """Windows are equal but for one image in a hundred, whose side may round."""
  host, ours = both(spec, photographs(num=96), least=(33, 33))
  grey_level = 1 / 127.5 if "(-1" in spec or "vgg" in spec else 1
  grey_level = 4 * grey_level if "range" in spec else grey_level
  off = np.abs(host - ours).reshape(len(host), -1).max(1) > grey_level * 1.001
  assert off.sum() <= 1, np.flatnonzero(off)


def test_labels():
  out = on_device("resize(8)|onehot(10, on=0.9, off=0.1)", photographs())
  expected = np.where(np.eye(10)[:6] > 0, np.float32(0.9), np.float32(0.1))
  np.testing.assert_array_equal(out["labels"], expected)


LAWS = [
  laws.FixedLaw(),
  laws.NativeLaw(max_attempts=20),
  laws.BetaLaw(alpha=2.5, beta=3, area_min=0, max_attempts=20),
  laws.PowerLaw(p=3),
  laws.PortLaw(max_attempts=20),
]
SHAPES = [(64, 64), (375, 500), (1, 300), (7, 90), (3000, 4000)]


@functools.partial(jax.jit, static_argnums=0)
def _windows(law, words, height, width):
  def one(words):
    rng = philox.Rng(words)
    u = rng.uniform([law.max_attempts, law.draws], "float64")
    zero = jnp.int32(0)
    canvas = Canvas(jnp.zeros((1, 1, 3)), zero, zero, height, width)
    out = crops.cut(law, canvas, u, rng.uniform([2], "float64"))
    return jnp.stack([out.y, out.x, out.height, out.width])

  return jax.vmap(one)(words)


def windows(law, num, height, width, seed):
  """[4, num] windows of the device's crop ops, drawn from example seeds."""
  parts = []
  for start in range(0, num, 20_000):
    index = np.arange(start, start + 20_000)
    words = philox.seed_words(*seeds.pack(seed, np.int64(0), index, 0 * index))
    parts.append(_windows(law, words, np.int32(height), np.int32(width)))
  return np.concatenate(parts).T[:, :num]


@pytest.mark.parametrize(
  ("law", "num"),
  [
    *((law, 20_000) for law in LAWS[:2]),
    *(pytest.param(x, 20_000, marks=pytest.mark.long) for x in LAWS[2:]),
    *(pytest.param(x, 1_000_000, marks=pytest.mark.slow) for x in LAWS),
  ],
  ids=str,
)
@pytest.mark.first(1)
def test_laws(law, num):
  """Sizes by chi-square against the exact law; false alarms: 1e-4 a shape."""
  for shape in SHAPES:
    y, x, h, w = windows(law, num, *shape, 3)
    if shape[0] * shape[1] < 10**6:
      p = p_value((h, w), law, *shape)
    else:  # too many sizes for a table, so compare areas with NumPy's
      other = laws.sample(law, num, *shape, np.random.default_rng(1))
      p = two_samples(h * w, other[2] * other[3])
    print(law, shape, num, f"p = {p:.3g}")
    assert p > ALARM
    assert (y >= 0).all() and (y + h <= shape[0]).all()
    assert (x >= 0).all() and (x + w <= shape[1]).all()


def two_samples(a, b):
  """P-value of chi-square over a hundred bins that hold equal parts of both."""
  from scipy import stats

  edges = np.quantile(np.concatenate([a, b]), np.linspace(0, 1, 101)[1:-1])
  counts = [
    np.bincount(np.searchsorted(edges, x), minlength=100) for x in (a, b)
  ]
  counts = np.array(counts)
  return stats.chi2_contingency(counts[:, counts.sum(0) > 0]).pvalue


@functools.partial(tf.function, autograph=False)
def _doubles(indices, attempts, draws):
  """The float64 uniforms of tf.data's crop ops for some example indices."""

  def one(index):
    rng = Rng(example_seed(3, tf.constant(0, tf.int64), index))
    shapes = [attempts, draws], [2]
    return tuple(rng.uniform(s, dtype=tf.float64) for s in shapes)

  return tf.map_fn(one, indices, fn_output_signature=(tf.float64, tf.float64))


@pytest.mark.parametrize("law", LAWS[:2], ids=str)
@pytest.mark.first(1)
def test_windows_are_those_of_tf_data(law):
  """Equal to float64's, but for two in a thousand, whose side may round.

  The device makes as many attempts as the law, and so has the same fallbacks.
  """
  law = dataclasses.replace(law, max_attempts=3)
  num, fell = 4000, 0
  u, v = _doubles(tf.range(num, dtype=tf.int64), law.max_attempts, law.draws)
  for shape in [(375, 500), (64, 64), (7, 90)]:
    size = map(np.float64, shape)
    *expected, fell_back = law.window(u.numpy(), v.numpy(), *size, np)
    found = windows(law, num, *shape, 3)
    off = np.abs(found - np.stack(expected)).max(0)
    assert (off > 0).mean() <= 2e-3
    fell += fell_back.sum()
  assert fell > 100 or isinstance(law, laws.NativeLaw)  # falls back rarely


def test_random_resized_crop_alone():
  """In anyone's code: batched, jitted, with its own key."""
  images, sizes = pack(photographs())
  pixels = unpack(images, sizes).pixels
  key = jax.random.key(0)
  with pytest.raises(ValueError, match="size=-1"):
    random_resized_crop(key, pixels, sizes, size=-1)
  out = jax.jit(
    lambda key, x, s: random_resized_crop(
      key, x, s, law="beta_crop(alpha=2, beta=1)", size=(16, 20)
    )
  )(key, pixels, sizes)
  assert out.shape == (6, 16, 20, 3) and out.dtype == jnp.uint8
  # No proposal of this law fits, and its fallback is the whole image.
  law = laws.FixedLaw(1, 1, ratio_min=0.01, ratio_max=100, max_attempts=1)
  whole = random_resized_crop(key, pixels, sizes, law, 16)
  for image, found in zip(photographs(), whole, strict=True):
    pillow = np.asarray(Image.fromarray(image).resize((16, 16), 2), int)
    assert np.abs(pillow - np.asarray(found, int)).max() <= 1


BAD = {
  "lookup('x.txt')": "no form that runs on the device",
  "flip_rl": "did you mean 'flip_lr'",
  "corrupt('fog')": "on the device: set engine='tf.data'",
  "decode(channels=1)|resize(8)": "packed images have 3",
  "resize_small(8)": "different sizes",
  "decode|flip_lr": "different sizes",
  "value_range|resize(8)": "needs images of one size",
  "resize_small(8)|inception_crop_fixed(4)": "after a resize by one side",
  "resize(0)": "size=0",
  "resize(8, antialias='no')": "True or False",
  "central_crop(48)": "smaller than the crop",
  "resize_small(20)|central_crop(21)": "smaller than the crop",
  "resize(8)|keep('x')": "no feature 'x'",
  "random_apply(0.5, 'resize(8)')": "without uint8 (96, 96, 3) of different",
  "random_apply(0.5, 'resize_small(8)')": "with 'resize_small(8)' feature",
  "resize(8)|random_apply(0.5, 'resize(9)')": "without uint8 (8, 8, 3)",
  "random_apply(0.5, \"lookup('x')\")": "op 'lookup' has no form that runs",
  "inception_crop_fixed(8, area_min=200)": "percent",
}


@pytest.mark.parametrize("spec", BAD)
def test_bad_strings(spec):
  with pytest.raises(ValueError, match=r".") as e:
    on_device(spec, photographs())
  assert BAD[spec] in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", device.names())
def test_device_ops_have_the_arguments_of_tf_datas(name):
  ours, theirs = (
    [
      (p.name, p.kind, p.default)
      for p in inspect.signature(
        engine.lookup(name).factory
      ).parameters.values()
    ]
    for engine in (device, registry)
  )
  assert ours == theirs
