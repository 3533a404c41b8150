"""The ResNet against torchvision, and what can be checked without it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec

from big_crop import model_init, models
from big_crop.models import resnet

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


@pytest.mark.parametrize(
  ("variant", "count"),
  [
    (18, 11_689_512),
    ("34", 21_797_672),
    (50, 25_557_032),
    ("101", 44_549_160),
    ("152", 60_192_808),
  ],
)
def test_parameter_counts_are_torchvisions(variant, count):
  model = models.get_model("resnet", 1000, variant=variant)
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3))
  )
  assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count
  flat = traverse_util.flatten_dict(shapes["params"], sep="/")
  assert flat["conv1/kernel"].shape == (7, 7, 3, 64)
  assert {"head", "conv1", "bn1"} < set(shapes["params"])


@pytest.mark.parametrize("variant", [18, 50])
def test_torchvision(variant):
  """Its weights give its logits and, trained on, its running statistics."""
  torch = pytest.importorskip("torch")
  torchvision = pytest.importorskip("torchvision")
  torch.manual_seed(0)
  reference = getattr(torchvision.models, f"resnet{variant}")(num_classes=10)
  with torch.no_grad():
    for p in reference.parameters():
      if p.ndim == 1:  # batch norms and biases: away from 0 and 1
        p.add_(0.2 * torch.randn_like(p))
  state = lambda: model_init.from_torchvision(
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


def test_batch_norm_statistics_are_pytorchs():
  x = _images((6, 3, 2, 4)) * [1, 2, 3, 4] + [0, 100, -5, 1000]
  norm = resnet.BatchNorm("float32")
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
  # Dropout before the head, by contrast, tells equal examples apart.
  assert len(np.unique(out["pre_logits"].round(3), axis=0)) == 2
  assert len(np.unique(logits.round(3), axis=0)) > 100


@pytest.mark.parametrize(
  ("kw", "message"),
  [
    (dict(variant=51), "ResNet variant '51': did you mean '50'"),
    (dict(small_stm=True), "'small_stm': did you mean 'small_stem'"),
    (dict(dtype_mm="float16"), "dtype_mm 'float16'"),
    (dict(drop_path=-0.1), r"drop_path must be in \[0, 1\)"),
  ],
)
def test_bad_arguments_get_one_line(kw, message):
  with pytest.raises(ValueError, match=message) as e:
    models.get_model("resnet", 10, **kw)
  assert "\n" not in str(e.value)


def test_from_torchvision_refuses_other_models():
  with pytest.raises(ValueError, match=r"'features\.0\.weight' is not"):
    model_init.from_torchvision({"features.0.weight": np.ones((1, 1, 1, 1))})
