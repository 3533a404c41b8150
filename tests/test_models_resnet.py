"""The ResNet against torchvision, and what can be checked without it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.sharding import NamedSharding, PartitionSpec

from big_crop import models, weights
from big_crop.models import common, convolution, cpu, resnet

TINY = dict(variant=18, width=8, small_stem=True)


def _images(shape=(8, 16, 16, 3), seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape, loc=0.5).astype(np.float32)


def _variables(model, image):
  """Like the model's initial ones; compiling its `init` takes seconds."""
  rng = np.random.default_rng(1)
  values = dict(scale=1, var=1, bias=0, mean=0)

  def value(path, s):
    if path[-1].key == "kernel":
      fan_out = np.prod(s.shape) / s.shape[-2]
      return rng.normal(size=s.shape, scale=(2 / fan_out) ** 0.5).astype("f4")
    return np.full(s.shape, values[path[-1].key], np.float32)

  shapes = jax.eval_shape(model.init, jax.random.key(0), image)
  return jax.tree_util.tree_map_with_path(value, shapes)


@functools.partial(jax.jit, static_argnums=0)
def _train(model, variables, image):
  """Logits and activations of a training batch, and the new statistics."""
  rngs = {"dropout": jax.random.key(0)}
  return model.apply(
    variables, image, train=True, rngs=rngs, mutable=["batch_stats"]
  )


@pytest.mark.parametrize("variant", [18, 50])
@pytest.mark.first(1)
def test_torchvision(variant):
  """With torchvision's weights, its logits and, in training, its statistics."""
  torch = pytest.importorskip("torch")
  torchvision = pytest.importorskip("torchvision")
  torch.manual_seed(0)
  reference = getattr(torchvision.models, f"resnet{variant}")(num_classes=10)
  with torch.no_grad():
    for p in reference.parameters():
      if p.ndim == 1:  # batch norms and biases, which start at 0 or 1
        p.add_(0.2 * torch.randn_like(p))
  state = lambda: weights.from_torchvision(
    {k: v.numpy().copy() for k, v in reference.state_dict().items()}
  )

  model = resnet.Model(10, variant=variant)
  variables = state()
  batches = [_images((4, 80, 64, 3), seed) for seed in range(4)]
  to_torch = lambda x: torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
  shapes = jax.eval_shape(model.init, jax.random.key(0), batches[0])
  jax.tree.map(lambda s, x: np.testing.assert_equal(s.shape, x.shape),
               shapes, variables)  # fmt: skip

  def close(a, b, rtol):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())

  with torch.no_grad():
    for batch in batches[:3]:
      expected = reference.train()(to_torch(batch)).numpy()
      (logits, _), stats = _train(model, variables, batch)
      close(logits, expected, 1e-4)
      variables = {**variables, **stats}
    for (path, expected), value in zip(
      jax.tree.leaves_with_path(state()["batch_stats"]),
      jax.tree.leaves(variables["batch_stats"]),
      strict=True,
    ):
      assert np.abs(value - expected).max() <= 1e-4 * (
        np.abs(expected).max()
      ), path
    expected = reference.eval()(to_torch(batches[3])).numpy()
  logits, _ = jax.jit(model.apply)(variables, batches[3])
  close(logits, expected, 1e-4)


def _numpy_conv(x, kernel, stride, groups=1):
  """Convolution [B, H, W, C] * [k, k, C / groups, D], padded by k // 2."""
  k, _, c, d = kernel.shape
  x = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)))
  h, w = ((n - k) // stride + 1 for n in x.shape[1:3])
  y = np.zeros((len(x), h, w, d))
  for i in range(h):
    for j in range(w):
      window = x[:, i * stride :, j * stride :][:, :k, :k]
      for o in range(d):
        g = o // (d // groups)
        part = window[..., g * c : (g + 1) * c]
        y[:, i, j, o] = (part * kernel[..., o]).sum((1, 2, 3))
  return y


def _numpy_norm(x, params, stats):
  x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
  return x * params["scale"] + params["bias"]


def _randomised(module, *args, **kw):
  """Variables of which none is at its initial value."""
  rng = np.random.default_rng(2)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kw))
  draw = lambda s: rng.normal(size=s.shape).astype(np.float32)
  return jax.tree.map_with_path(
    lambda path, s: abs(draw(s)) + 0.5 if path[-1].key == "var" else draw(s),
    shapes,
  )


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_convolution_and_its_gradients(kernel, stride, groups):
  """Against NumPy, and the gradients by adjointness: it is bilinear."""
  rng = np.random.default_rng(0)
  conv = convolution.Conv(12, kernel, stride, groups)
  x, u = rng.normal(size=(2, 2, 9, 6, 8)).astype(np.float32)
  w, z = rng.normal(size=(2, kernel, kernel, 8 // groups, 12)).astype("f4")
  variables = lambda w: {"params": {"kernel": w}}
  apply = lambda w, x: conv.apply(variables(w), x)
  y, vjp = jax.vjp(apply, w, x)
  expected = lambda w, x: _numpy_conv(x, w, stride, groups)
  np.testing.assert_allclose(y, expected(w, x), atol=1e-4)
  g = rng.normal(size=y.shape).astype(np.float32)
  dw, dx = vjp(g)
  assert (dw * z).sum() == pytest.approx((g * expected(z, x)).sum(), rel=1e-4)
  assert (dx * u).sum() == pytest.approx((g * expected(w, u)).sum(), rel=1e-4)


@pytest.mark.parametrize(
  ("kernel", "stride", "channels", "groups"),
  [
    (3, 2, 256, 32),
    (1, 1, 256, 32),
    (3, 1, 258, 3),
    (3, 1, 24, 24),
    (7, 2, 8, 8),
  ],
)
def test_grouped_convolutions_are_xlas(kernel, stride, channels, groups):
  """ResNeXt's and depthwise ones, which have code of their own on CPUs."""
  rng = np.random.default_rng(0)
  shape = (kernel, kernel, channels // groups, channels)
  x = rng.normal(size=(2, 5, 4, channels)).astype(np.float32)
  w = rng.normal(size=shape).astype(np.float32)

  @jax.jit
  def grouped(w, x):
    return jax.lax.conv_general_dilated(
      x, w, (stride,) * 2, [(kernel // 2,) * 2] * 2,
      feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip

  conv = convolution.Conv(channels, kernel, stride, groups)
  ours = jax.jit(lambda w, x: conv.apply({"params": {"kernel": w}}, x))
  (y, vjp), (expected, expected_vjp) = (
    jax.vjp(f, w, x) for f in (ours, grouped)
  )
  g = rng.normal(size=y.shape).astype(np.float32)
  np.testing.assert_allclose(y, expected, atol=1e-4)
  for a, b in zip(vjp(g), expected_vjp(g), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_block_with_everything_against_numpy(stride):
  """Grouped 3x3, squeeze-and-excitation, average-pool shortcut; odd sizes."""
  block = resnet.Block(
    width=16,
    stride=stride,
    bottleneck=True,
    avg_down=True,
    se_ratio=1 / 4,
    groups=4,
    base_width=8,
    drop_path=0.0,
    grouped_reduce=False,
    zero_init_last=False,
    kernel_init=convolution.HE,
    dtype="float32",
  )
  x = _images((2, 7, 5, 12))
  variables = _randomised(block, x, train=False)
  y = block.apply(variables, x, train=False)
  p, s = variables["params"], variables["batch_stats"]
  assert p["conv2"]["kernel"].shape == (3, 3, 2, 8)
  assert p["se"]["fc1"]["kernel"].shape == (64, 16)

  relu = lambda x: np.maximum(x, 0)
  norm = lambda x, name: _numpy_norm(x, p[name], s[name])
  h = relu(norm(_numpy_conv(x, p["conv1"]["kernel"], 1), "bn1"))
  h = relu(norm(_numpy_conv(h, p["conv2"]["kernel"], stride, 4), "bn2"))
  h = norm(_numpy_conv(h, p["conv3"]["kernel"], 1), "bn3")
  fc1, fc2 = p["se"]["fc1"], p["se"]["fc2"]
  z = relu(h.mean((1, 2)) @ fc1["kernel"] + fc1["bias"])
  z = scipy.special.expit(z @ fc2["kernel"] + fc2["bias"])
  h = h * z[:, None, None]
  if stride == 2:
    x = np.array(
      [
        [x[:, i : i + 2, j : j + 2].mean((1, 2)) for j in (0, 2, 4)]
        for i in (0, 2, 4, 6)
      ]
    ).transpose(2, 0, 1, 3)
  x = norm(_numpy_conv(x, p["downsample_conv"]["kernel"], 1), "downsample_bn")
  np.testing.assert_allclose(y, relu(h + x), rtol=1e-4, atol=1e-3)


def test_deep_stem_is_three_convolutions():
  model = resnet.Model(3, variant=18, width=8, deep_stem=True)
  image = _images((2, 16, 16, 3))
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  stem = ("stem_conv1", "stem_conv2", "conv1")
  kernels = [shapes[name]["kernel"].shape for name in stem]
  assert kernels == [(3, 3, 3, 4), (3, 3, 4, 4), (3, 3, 4, 8)]
  variables = _randomised(model, image)
  p, s = variables["params"], variables["batch_stats"]
  x = image
  norms = ("stem_bn1", "stem_bn2", "bn1")
  for conv, norm, stride in zip(stem, norms, (2, 1, 1), strict=True):
    x = _numpy_conv(x, p[conv]["kernel"], stride)
    x = np.maximum(_numpy_norm(x, p[norm], s[norm]), 0)
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # after a ReLU
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
  out = jax.jit(model.apply)(variables, image)[1]
  expected = windows[:, ::2, ::2].max((-1, -2))
  np.testing.assert_allclose(out["stem"], expected, rtol=1e-4, atol=1e-4)


def test_drop_path_is_timms():
  """Drops whole branches of single examples; divides the others by 1 - rate."""
  n, rate = 4096, 0.3
  block = resnet.Block(
    width=4, stride=1, bottleneck=False, avg_down=False, se_ratio=0.0, groups=1,
    base_width=64, grouped_reduce=False, drop_path=rate, zero_init_last=True,
    kernel_init=convolution.HE, dtype="float32",
  )  # fmt: skip
  x = np.ones((n, 2, 2, 4), np.float32)
  variables = block.init(jax.random.key(0), x[:1], train=False)
  bias = variables["params"]["bn2"]
  bias["bias"] = jnp.full_like(bias["bias"], 3.0)  # which the branch adds
  y = jax.jit(functools.partial(block.apply, train=True, mutable=True))(
    variables, x, rngs={"dropout": jax.random.key(0)}
  )[0]
  y = np.asarray(y).reshape(n, -1)
  assert (y == y[:, :1]).all()
  kept = y[:, 0] != 1
  np.testing.assert_allclose(y[kept], 1 + 3 / (1 - rate), rtol=1e-6)
  low, high = scipy.stats.binom.interval(1 - 1e-6, n, rate)
  assert low <= n - kept.sum() <= high
  # timm's rates: 0 at the first block, the full one at the last.
  model = resnet.Model(3, variant=18, drop_path=0.7)
  assert common.drop_path_rates(model.drop_path, 8) == pytest.approx(
    np.linspace(0, 0.7, 8)
  )


def test_named_variants_are_options():
  d = resnet.Model(3, variant="50d")
  assert d == resnet.Model(3, variant="50", deep_stem=True, avg_down=True)
  assert resnet.Model(3, variant="se50", se_ratio=1 / 8).se_ratio == 1 / 8
  x = resnet.Model(3, variant="x50_32x4d", drop_path=0.1)
  assert (x.groups, x.base_width, x.variant) == (32, 4, "50")


def test_batch_norm_statistics_are_pytorchs():
  x = _images((6, 3, 2, 4)) * [1, 2, 3, 4] + [0, 100, -5, 1000]
  norm = convolution.BatchNorm("float32")
  variables = norm.init(jax.random.key(0), x, train=False)
  mean, var = np.zeros(4), np.ones(4)
  for _ in range(60):
    y, stats = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    variables = {**variables, **stats}
    mean = 0.9 * mean + 0.1 * x.mean((0, 1, 2))
    var = 0.9 * var + 0.1 * x.var((0, 1, 2), ddof=1)
  stats = variables["batch_stats"]
  np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5)
  np.testing.assert_allclose(stats["var"], var, rtol=2e-2)
  expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
  np.testing.assert_allclose(y, expected, atol=1e-3)
  y = norm.apply(variables, x, train=False)
  expected = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
  np.testing.assert_allclose(y, expected, atol=1e-3)


def test_sharded_batch_has_global_statistics():
  model = resnet.Model(3, **TINY)
  image = _images() + np.arange(8.0)[:, None, None, None].astype(np.float32)
  variables = _variables(model, image)
  (logits, _), stats = _train(model, variables, image)
  mesh = jax.make_mesh((8,), ("data",))
  sharded = jax.device_put(image, NamedSharding(mesh, PartitionSpec("data")))
  replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
  (logits_8, _), stats_8 = _train(model, replicated, sharded)
  np.testing.assert_allclose(logits_8, logits, rtol=1e-4, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    stats_8,
    stats,
  )


def test_bfloat16_is_close_with_float32_statistics():
  image = _images()
  model = resnet.Model(3, **TINY)
  variables = _variables(model, image)
  (exact, _), exact_stats = _train(model, variables, image)
  half = resnet.Model(3, **TINY, dtype_mm="bfloat16")
  (logits, out), stats = _train(half, variables, image)
  assert logits.dtype == out["pre_logits"].dtype == jnp.float32
  assert out["layer4"].dtype == jnp.bfloat16
  assert 0 < np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()
  for a, b in zip(*map(jax.tree.leaves, (stats, exact_stats)), strict=True):
    assert a.dtype == jnp.float32
    np.testing.assert_allclose(a, b, rtol=0.05, atol=0.05)


@pytest.mark.slow
def test_initialisers_drop_path_and_dropout():
  image = np.broadcast_to(_images((1, 8, 8, 3)), (256, 8, 8, 3))
  model = resnet.Model(3, **TINY, zero_init_last=True)
  variables = jax.jit(model.init)(jax.random.key(0), image[:1])
  for block, params in variables["params"].items():
    if block.startswith("layer"):
      assert not params["bn2"]["scale"].any()
      assert (params["bn1"]["scale"] == 1).all()
      # He's, by the fan-out; PyTorch's for the dense layer.
      std = (
        params["conv2"]["kernel"].std() * (params["bn2"]["bias"].size) ** 0.5
      )
      assert std == pytest.approx((2 / 9) ** 0.5, rel=0.15)
  assert np.abs(variables["params"]["head"]["kernel"]).max() <= 64**-0.5

  # Only the last block's branch differs from zero: it adds 3.
  last = variables["params"]["layer4_1"]["bn2"]
  last["bias"] = jnp.full_like(last["bias"], 3.0)
  model = resnet.Model(3, **TINY, drop_path=0.4, dropout=0.5)
  (logits, out), _ = _train(model, variables, image)
  value = np.asarray(out["layer4"])[:, 0, 0]
  added = value - value.min(0)
  dropped = np.isclose(added, 0, atol=1e-3).all(-1)
  assert dropped.mean() == pytest.approx(0.4, abs=0.1)
  np.testing.assert_allclose(added[~dropped], 3 / 0.6, rtol=1e-3)
  # Dropout before the head, by contrast, differs between equal examples.
  assert len(np.unique(out["pre_logits"].round(3), axis=0)) == 2
  assert len(np.unique(logits.round(3), axis=0)) > 100


@pytest.mark.parametrize(
  ("kw", "message"),
  [
    (dict(variant=51), "ResNet variant '51': did you mean '50'"),
    (dict(small_stm=True), "'small_stm': did you mean 'small_stem'"),
    (dict(dtype_mm="float16"), "dtype_mm 'float16'"),
    (dict(drop_path=-0.1), r"drop_path must be in \[0, 1\)"),
    (dict(variant="se51"), "ResNet variant 'se51': did you mean 'se50'"),
    (dict(small_stem=True, deep_stem=True), "small_stem and deep_stem excl"),
    (dict(stem_widths=(8, 8, 8)), r"\(8, 8, 8\): need deep_stem and 3"),
    (dict(variant="se50", eca=True), "se_ratio and eca exclude each other"),
    (dict(variant=18, groups=2), "variant 50 or deeper, not 18"),
    (dict(grouped_reduce=True), "grouped_reduce: groups=1 must be above 1"),
    (dict(groups=32, base_width=4, width=8), "no channels at width=8"),
  ],
)
def test_bad_arguments_get_one_line(kw, message):
  with pytest.raises(ValueError, match=message) as e:
    models.get_model("resnet", 10, **kw)
  assert "\n" not in str(e.value)


def test_from_torchvision_refuses_other_models():
  with pytest.raises(ValueError, match=r"'features\.0\.weight' is not"):
    weights.from_torchvision({"features.0.weight": np.ones((1, 1, 1, 1))})


@pytest.mark.parametrize(
  ("size", "stride"), [((8, 12), 2), ((7, 9), 2), ((7, 8), 1)]
)
def test_the_cpus_max_pool_is_xlas(size, stride):
  rng = np.random.default_rng(0)
  # Few values, so that many maxima are ties.
  x = rng.integers(0, 3, (2, *size, 5)).astype(np.float32)
  plain = lambda x: nn.max_pool(x, (3, 3), (stride,) * 2, [(1, 1), (1, 1)])
  expected, pull_back = jax.vjp(plain, x)
  got, pull_back_too = jax.vjp(lambda x: cpu.max_pool(x, stride), x)
  np.testing.assert_array_equal(got, expected)
  dy = rng.normal(size=got.shape).astype(np.float32)
  np.testing.assert_allclose(
    pull_back_too(dy)[0], pull_back(dy)[0], rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_the_cpus_pointwise_convolution_and_its_gradients(shape):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 3, shape[0])).astype(np.float32)
  kernel = rng.normal(size=shape).astype(np.float32)
  expected, pull_back = jax.vjp(jnp.matmul, x, kernel)
  got, pull_back_too = jax.vjp(cpu.pointwise, x, kernel)
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
  for a, b in zip(pull_back_too(got), pull_back(got), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_pointwise_gradient_transposes_the_narrower_matrix():
  x, kernel, dy = jnp.ones((64, 40)), jnp.ones((40, 24)), jnp.ones((64, 24))
  gradient = lambda *args: jax.vjp(cpu.pointwise, x, args[0])[1](args[1])[1]
  program = jax.jit(gradient).lower(kernel, dy).compile().as_text()
  # In memory the product is [24, 40], rather than [40, 24].
  products = "f32[24,40]{1,0} dot(", "f32[40,24]{0,1} dot("
  assert any(product in program for product in products), program


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_cpus_convolution_of_small_images(size, stride):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *size, 4)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 4, 6)).astype(np.float32)
  expected = jax.lax.conv_general_dilated(
    *(x, kernel, (stride, stride), [(1, 1), (1, 1)]),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  got = cpu.by_patches(x, kernel, stride)
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_train_steps_keep_their_convolutions_from_ynnpack():
  x, kernel = jnp.ones((16, 56, 56, 64)), jnp.ones((3, 3, 64, 64))

  def convolve(x, kernel):
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "SAME", dimension_numbers=names
    )

  compiled = jax.jit(convolve, compiler_options=cpu.compiler_options())
  assert "ynn_fusion" not in compiled.lower(x, kernel).compile().as_text()
