"""CropMix's CNNs for CIFAR, against PyTorch's operations and torchvision.

The PyTorch code that CropMix used is transcribed here with torch's functions
and the names that its weights have.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_crop import models, weights
from big_crop.models import common, convolution

CIFAR = {
  "preact_resnet": dict(variant="18"),
  "wide_resnet": dict(variant="28-10"),
  "xception": dict(variant="cifar"),
  "densenet": dict(variant="121", small_stem=True),
  "resnet": dict(variant="x50_32x4d", small_stem=True, grouped_reduce=True),
}
# The same with few blocks and channels. The ResNeXt's blocks are tested in
# test_models_resnet.py.
TINY = {
  "preact_resnet": dict(depths=(2, 1), stem=6, width=6),
  "wide_resnet": dict(depths=(1, 2), stem=4, width=6),
  "xception": dict(widths=(3, 4, 5, 6, 7, 8, 9, 10), depth=1, dropout=0.2),
  "densenet": dict(depths=(2, 2), growth=3, small_stem=True, dropout=0.1),
}


class Torch:
  """PyTorch's layers, from a state dict whose running statistics change."""

  def __init__(self, state, train):
    self.f = pytest.importorskip("torch").nn.functional
    self.state, self.train = state, train

  def conv(self, name, x, stride=1, groups=1):
    weight = self.state[f"{name}.weight"]
    bias, pad = self.state.get(f"{name}.bias"), weight.shape[-1] // 2
    return self.f.conv2d(x, weight, bias, stride, pad, 1, groups)

  def norm(self, name, x):
    leaves = ("running_mean", "running_var", "weight", "bias")
    values = [self.state[f"{name}.{leaf}"] for leaf in leaves]
    return self.f.batch_norm(x, *values, training=self.train)

  def norm_relu(self, name, x):
    return self.f.relu(self.norm(name, x))

  def dropout(self, x, rate):
    return x * (1 - rate) if self.train else x  # its mean, as in _mean_dropout

  def head(self, name, x, rate=0.0):
    x = self.dropout(x.mean((2, 3)), rate)
    return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]


def _stages(depths):
  """(stage from 0, block from 0, its stride) of each block."""
  for i, depth in enumerate(depths):
    for j in range(depth):
      yield i, j, 2 if i and not j else 1


def _pre_activation(t, x, name, stride, rate, last, shortcut):
  y = t.norm_relu(f"{name}.residual.0", x)
  y = t.conv(f"{name}.residual.2", y, stride)
  y = t.dropout(t.norm_relu(f"{name}.residual.3", y), rate)
  y = t.conv(f"{name}.residual.{last}", y)
  if f"{name}.{shortcut}.weight" in t.state:
    x = t.conv(f"{name}.{shortcut}", x, stride)
  return x + y


def _preact_resnet(t, x, model):
  x = t.norm_relu("pre.1", t.conv("pre.0", x))
  for i, j, stride in _stages(model.depths):
    name = f"stage{i + 1}.{j}"
    x = _pre_activation(t, x, name, stride, 0.0, 5, "shortcut")
  return t.head("linear", x)


def _wide_resnet(t, x, model):
  x = t.conv("init_conv", x)
  for i, j, stride in _stages(model.depths):
    x = _pre_activation(t, x, f"conv{i + 2}.{j}", stride, 0.5, 6, "shortcut.0")
  return t.head("linear", t.norm_relu("bn", x))


def _xception(t, x, model):
  relu, pool = t.f.relu, functools.partial(t.f.max_pool2d, kernel_size=3)

  def separable(name, place, x):
    x = t.conv(f"{name}.{place}.depthwise", x, groups=x.shape[1])
    x = t.conv(f"{name}.{place}.pointwise", x)
    return t.norm(f"{name}.{place + 1}", x)

  def pooled(name, first, x, shortcut, stride):
    y = separable(f"{name}residual", first, x)
    y = separable(f"{name}residual", first + 3, relu(y))
    x = t.conv(f"{name}shortcut.0", shortcut, stride)
    x = t.norm(f"{name}shortcut.1", x)
    return x + pool(y, stride=stride, padding=1)

  for i in (1, 2):
    x = t.norm_relu(f"entry_flow.conv{i}.1", t.conv(f"entry_flow.conv{i}.0", x))
  for i, stride in zip((3, 4, 5), (2, 2, 1), strict=True):
    x = relu(x)  # in-place there, so that it also changes the shortcut
    x = pooled(f"entry_flow.conv{i}_", int(i > 3), x, x, stride)
  for i in range(model.depth):
    x = y = relu(x)
    for j in (1, 2, 3):
      y = separable(f"middel_flow.middel_block.{i}.conv{j}", 1, relu(y))
    x = x + y
  x = pooled("exit_flow.", 1, relu(x), x, 2)
  for place in (0, 3):
    x = relu(separable("exit_flow.conv", place, x))
  return t.head("fc", x, model.dropout)


def _densenet(t, x, model):
  x = t.conv("conv1", x)
  last = len(model.depths) - 1
  for i, depth in enumerate(model.depths):
    block = f"dense_block{i}" if i == last else f"dense_block_layer_{i}"
    for j in range(depth):
      name = f"features.{block}.bottle_neck_layer_{j}.bottle_neck"
      y = t.conv(f"{name}.2", t.norm_relu(f"{name}.0", x))
      y = t.conv(f"{name}.5", t.norm_relu(f"{name}.3", y))
      x = t.f.pad(x, (0, 0, 0, 0, 0, y.shape[1]))
      x[:, -y.shape[1] :] += t.dropout(y, model.dropout)
    if i < last:
      name = f"features.transition_layer_{i}.down_sample"
      x = t.conv(f"{name}.1", t.norm(f"{name}.0", x))
      x = t.f.avg_pool2d(x, 2)
  return t.head("linear", t.norm_relu("features.bn", x))


def _resnet(t, x, model):
  x = t.norm_relu("bn1", t.conv("conv1", x))
  for i, j, stride in _stages((3, 4, 6, 3)):
    name = f"layer{i + 1}.{j}"
    y = t.norm_relu(f"{name}.bn1", t.conv(f"{name}.conv1", x, 1, 32))
    y = t.norm_relu(f"{name}.bn2", t.conv(f"{name}.conv2", y, stride, 32))
    y = t.norm(f"{name}.bn3", t.conv(f"{name}.conv3", y))
    if not j:
      x = t.conv(f"{name}.downsample.0", x, stride)
      x = t.norm(f"{name}.downsample.1", x)
    x = t.f.relu(x + y)
  return t.head("fc", x)


FORWARD = {
  "preact_resnet": _preact_resnet,
  "wide_resnet": _wide_resnet,
  "xception": _xception,
  "densenet": _densenet,
  "resnet": _resnet,
}


def _images(size=16, batch=4, seed=0):
  rng = np.random.default_rng(seed)
  shape = (batch, size, size, 3)
  return rng.normal(size=shape, loc=0.3).astype(np.float32)


def _to_torch(image):
  torch = pytest.importorskip("torch")
  return torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


def _shapes(model, size=32):
  image = jnp.zeros((1, size, size, 3))
  return jax.eval_shape(model.init, jax.random.key(0), image)


def _randomised(model):
  """Variables of which none is at its initial value."""
  rng = np.random.default_rng(1)

  def draw(path, s):
    x, leaf = rng.normal(size=s.shape), path[-1].key
    if leaf == "kernel":
      x *= (1.5 / np.prod(s.shape[:-1])) ** 0.5
    else:
      x = {"scale": 1, "var": 1.5}.get(leaf, 0) + 0.2 * x.clip(-3, 3)
    return x.astype(np.float32)

  return jax.tree.map_with_path(draw, _shapes(model))


def _mean_dropout(call, args, kwargs, context):
  """Replaces dropout by a factor of 1 - rate, which shows where it acts."""
  if not isinstance(context.module, nn.Dropout):
    return call(*args, **kwargs)
  return args[0] * (1 - context.module.rate)


@functools.partial(jax.jit, static_argnums=0)
def _train(model, variables, image):
  """The logits and the variables after a training batch."""
  with nn.intercept_methods(_mean_dropout):
    (logits, _), stats = model.apply(
      variables, image, train=True, mutable=["batch_stats"]
    )
  return logits, {**variables, **stats}


def _gradients(model, variables, image, label):
  def loss(params):
    logits, _ = _train(model, {**variables, "params": params}, image)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)
    return -chosen.mean()

  return jax.jit(jax.grad(loss))(variables["params"])


def _close(a, b, rtol):
  np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


def _compare(model, name, size, rtol, evaluate=True):
  """Logits and running statistics are PyTorch's.

  Returns:
    The model's variables, and the state dict of the same tensors.
  """
  torch = pytest.importorskip("torch")
  variables = _randomised(model)
  state = {
    k: torch.from_numpy(v.copy())
    for k, v in weights.to_torch(model, variables).items()
  }
  with torch.no_grad():
    for seed in range(2):
      image = _images(size, seed=seed)
      expected = FORWARD[name](Torch(state, True), _to_torch(image), model)
      logits, variables = _train(model, variables, image)
      _close(logits, expected.numpy(), rtol)
    expected = FORWARD[name](Torch(state, False), _to_torch(image), model)
  if evaluate:
    logits = jax.jit(model.apply)(variables, image)[0]
    _close(logits, expected.numpy(), 1e-4)
  back = weights.to_torch(model, variables)
  assert back.keys() == state.keys()
  for key, value in state.items():
    _close(back[key], value.numpy(), 1e-4 if "running" in key else 0)
  return variables, state


@pytest.mark.parametrize("name", TINY)
def test_small_ones_are_pytorchs(name):
  # To save time, only two models are also compiled for evaluation.
  evaluate = name in ("wide_resnet", "densenet")
  model = models.get_model(name, 5, **TINY[name])
  _compare(model, name, 16, 1e-3, evaluate)


@pytest.mark.slow
@pytest.mark.parametrize("name", CIFAR)
def test_whole_ones_and_their_gradients_are_pytorchs(name):
  model = models.get_model(name, 10, **CIFAR[name])
  variables, state = _compare(model, name, 32, 1e-2)
  torch = pytest.importorskip("torch")
  for key, value in state.items():
    value.requires_grad_("running" not in key)
  image, label = _images(32), np.arange(4)
  logits = FORWARD[name](Torch(state, True), _to_torch(image), model)
  torch.nn.functional.cross_entropy(logits, torch.from_numpy(label)).backward()
  expected = weights.from_torch(
    model, {k: v.grad.numpy() for k, v in state.items() if v.requires_grad}
  )
  grads, expected = (
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
    for tree in (_gradients(model, variables, image, label), expected["params"])
  )
  # Batch norm of four examples amplifies rounding: in float64 the gradients
  # agree to 1e-12, in float32 to a percent.
  error = np.linalg.norm(grads - expected)
  assert error <= 3e-2 * np.linalg.norm(expected)


@pytest.mark.parametrize(
  ("name", "kw", "count"),
  [
    # Of the PyTorch code for CIFAR, with 100 classes.
    ("preact_resnet", CIFAR["preact_resnet"], 11_222_244),
    ("wide_resnet", CIFAR["wide_resnet"], 36_546_980),
    ("xception", CIFAR["xception"], 21_013_988),
    ("densenet", CIFAR["densenet"], 7_048_548),
    ("resnet", CIFAR["resnet"], 14_788_772),
    # Of torchvision.models.DenseNet(block_config=(2,), num_classes=100).
    ("densenet", dict(depths=(2,)), 117_732),
  ],
)
def test_what_tracing_tells(name, kw, count):
  """Parameters, initialisers, dtypes, and Grad-CAM's layer, by tracing."""
  model = models.get_model(name, 100, **kw, dtype_mm="bfloat16")
  inits, paths = set(), []

  def record(call, args, kwargs, context):
    paths.append("/".join(context.module.path))
    if isinstance(context.module, convolution.Conv):
      inits.add(context.module.kernel_init)
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    (logits, out), variables = jax.eval_shape(
      model.init_with_output, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
  params = jax.tree.leaves(variables["params"])
  assert sum(x.size for x in params) == count
  if "depths" not in kw:
    assert inits == {common.torch_linear}
  else:  # torchvision's: normal, by the fan-in
    x = inits.pop()(jax.random.key(0), (3, 3, 64, 32))
    assert not inits
    assert x.std() == pytest.approx((2 / 576) ** 0.5, rel=0.03)
    assert np.abs(x).max() > 3 * x.std()
  layer = model.last_layer()
  assert paths.count(layer.module) == 1
  assert out[layer.pooled].dtype == jnp.bfloat16
  assert {x.dtype for x in params} == {logits.dtype} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
  ("package", "kw"),
  [
    ("torchvision", dict(growth=4, depths=(2, 1), dropout=0.2)),
    pytest.param("torchvision", {}, marks=pytest.mark.slow),
    pytest.param("timm", {}, marks=pytest.mark.slow),
  ],
)
def test_densenets_weights_of_peers(package, kw, monkeypatch):
  torch = pytest.importorskip("torch")
  peer = pytest.importorskip(package)
  if kw:
    reference = peer.models.DenseNet(
      growth_rate=4,
      block_config=(2, 1),
      num_init_features=8,
      drop_rate=0.2,
      num_classes=5,
    )
  elif package == "timm":
    reference = peer.create_model("densenet121", num_classes=5)
  else:
    reference = peer.models.densenet121(num_classes=5)
  monkeypatch.setattr(
    torch.nn.functional,
    "dropout",
    lambda x, p, training, inplace=False: x * (1 - p) if training else x,
  )
  state = lambda: {k: v.numpy() for k, v in reference.state_dict().items()}
  model = models.get_model("densenet", 5, **kw)
  variables = _randomised(model)
  random = weights.to_torch(model, variables)
  reference.load_state_dict(
    {k: torch.from_numpy(v.copy()) for k, v in random.items()}
    | {k: v for k, v in reference.state_dict().items() if "num_batc" in k}
  )
  assert random.keys() == {k for k in state() if "num_batches" not in k}

  image = _images(72)  # odd sizes before a pooling
  with torch.no_grad():
    expected = reference.eval()(_to_torch(image)).numpy()
    _close(jax.jit(model.apply)(variables, image)[0], expected, 1e-4)
    for seed in (1, 2):
      image = _images(72, seed=seed)
      expected = reference.train()(_to_torch(image)).numpy()
      logits, variables = _train(model, variables, image)
      _close(logits, expected, 1e-3)
  expected = weights.from_torch(model, state())
  for a, b in zip(*map(jax.tree.leaves, (variables, expected)), strict=True):
    _close(a, b, 1e-4)


class _Layers(nn.Module):
  @nn.compact
  def __call__(self, x):
    init = common.torch_linear
    conv = convolution.Conv(
      64, kernel=3, stride=1, groups=8, use_bias=True, kernel_init=init
    )
    return convolution.classify(conv(x), 64, {})


def test_initial_values_are_pytorchs():
  """A kernel and its bias are uniform up to 1 / sqrt(inputs per output)."""
  image = jnp.zeros((1, 4, 4, 64))
  params = jax.jit(_Layers().init)(jax.random.key(0), image)["params"]
  for name, fan_in in {"Conv_0": 9 * 8, "head": 64}.items():
    for leaf in ("kernel", "bias"):
      x = np.asarray(params[name][leaf]) * fan_in**0.5
      assert 0.9 < x.max() <= 1.0001
      assert -1.0001 <= x.min() < -0.9
      assert x.std() == pytest.approx(3**-0.5, rel=0.15)


@pytest.mark.parametrize(
  ("name", "kw", "message"),
  [
    ("preact_resnet", dict(variant="19"), "PreActResNet variant '19': did you"),
    ("wide_resnet", dict(variant="28-1"), "ResNet variant '28-1': did you mea"),
    ("wide_resnet", dict(dropout=1.0), r"dropout must be in \[0, 1\)"),
    ("xception", dict(variant="41"), "Xception variant '41'"),
    ("xception", dict(widths=(3, 4)), "need 8 numbers of channels"),
    ("densenet", dict(variant=120), "DenseNet variant '120': did you mean"),
    ("densenet", dict(depths=()), "depths is empty"),
    ("densenet", dict(small_stm=True), "did you mean 'small_stem'"),
  ],
)
def test_bad_arguments_get_one_line(name, kw, message):
  with pytest.raises(ValueError, match=message) as e:
    models.get_model(name, 10, **kw)
  assert "\n" not in str(e.value)
