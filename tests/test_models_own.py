"""An architecture of the user's own is one file, whatever the trainer does.

The file below defines the model, the names of its PyTorch weights, the place of
its saliency maps, and the layout of its kernels.
"""

import sys

import jax
import numpy as np
import pytest

from big_crop import config as configs
from big_crop import models, optim, parts, weights
from big_crop.optim import scion
from big_crop.saliency import maps as saliency

FILE = '''
"""One joint projection to query, key and value, and their sum."""

import flax.linen as nn

from big_crop.models import common


class Mixer(nn.Module):
  num_classes: int
  width: int = 6
  module: str = "body/block_0"

  # [d, 3, heads, head_dim], without a bias.
  split_outputs = (".*/joint/kernel",)

  def last_layer(self):
    return common.LastLayer(self.module, pooled="tokens", patch_size=(4, 8))

  def torch_layers(self):
    return [
      ("stem", "stem", "dense"),
      ("classifier", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    x = nn.Conv(self.width, (4, 8), (4, 8), "VALID", name="stem")(image)
    x = x.reshape(len(x), -1, self.width)
    x = Body(name="body")(x)
    out = {"tokens": nn.tanh(x)}
    logits = nn.Dense(self.num_classes, name="head")(out["tokens"].mean(1))
    return logits, out


class Body(nn.Module):
  @nn.compact
  def __call__(self, x):
    return Block(name="block_0")(x)[0]


class Block(nn.Module):
  @nn.compact
  def __call__(self, x):
    heads = (3, 2, x.shape[-1] // 2)
    y = nn.DenseGeneral(heads, use_bias=False, name="joint")(x)
    return x + y.sum(-3).reshape(x.shape), "something else"


def Model(num_classes, **kw):
  return Mixer(num_classes, **kw)
'''


@pytest.fixture
def make(tmp_path, monkeypatch):
  """(**kw) -> (model, variables, image, label)."""
  (tmp_path / "users").mkdir()
  (tmp_path / "users" / "own.py").write_text(FILE)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, "users.own", raising=False)

  def make(**kw):
    model = models.get_model("users.own", 5, **kw)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(3, 8, 16, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), image)
    return model, variables, image, np.array([4, 0, 2])

  return make


def test_saliency(make):
  model, variables, image, label = make()
  assert saliency.choose_kinds(model, None) == saliency.KINDS
  maps, logits = jax.jit(saliency.make_maps(model, saliency.KINDS))(
    variables, image, label
  )
  assert maps["gradcam"].shape == maps["relevance"].shape == (3, 2, 2)
  np.testing.assert_allclose(
    maps["relevance"].sum((1, 2)), logits[np.arange(3), label], rtol=1e-4
  )
  # After the last layer come a tanh, a mean and the head.
  _, seen = model.apply(variables, image, capture_intermediates=True)
  ((layer, _),) = seen["intermediates"]["body"]["block_0"]["__call__"]
  layer = np.float64(layer)
  tokens = np.tanh(layer)
  w = np.asarray(variables["params"]["head"]["kernel"])[:, label].T
  alpha = (w[:, None] * (1 - tokens**2) / 4).mean(1)
  expected = np.maximum((alpha[:, None] * layer).sum(-1), 0)
  assert (expected > 0).any()
  np.testing.assert_allclose(
    maps["gradcam"].reshape(3, 4), expected, rtol=1e-3, atol=1e-6
  )


def test_a_last_layer_that_is_not_there_gets_one_line(make):
  model, *inputs = make(module="block_0")
  with pytest.raises(ValueError, match=r"Mixer.* 'block_0', .* 0 times") as e:
    saliency.make_maps(model, ["gradcam"])(*inputs)
  assert "\n" not in str(e.value)


def test_the_optimisers_know_its_units(make):
  model, variables, *_ = make()
  params = variables["params"]
  kernel = np.float64(params["body"]["block_0"]["joint"]["kernel"])
  rng = np.random.default_rng(0)
  grads = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
  grad = grads["body"]["block_0"]["joint"]["kernel"]

  def update(config, **kw):
    config = {"lr": 1.0, **config}
    sizes = {"total_steps": 1, "batch_size": 1, "data_size": 1}
    tx, _ = optim.make(config, params, **sizes, **kw)
    updates, _ = tx.update(grads, tx.init(params), params)
    return np.asarray(updates["body"]["block_0"]["joint"]["kernel"])

  clipped = {"optax_name": "identity", "agc": 0.1}
  norm = lambda x: np.sqrt((x**2).sum(0))
  shrunk = -grad * np.minimum(1, 0.1 * norm(kernel) / norm(grad))
  by_scion = {"optax_name": "scale_by_scion"}
  factor = scion.newton_schulz(grad.reshape(6, 18))
  orthogonal = -(3**0.5) * np.reshape(factor, grad.shape)
  for config, expected in ((clipped, shrunk), (by_scion, orthogonal)):
    got = update(config, split_outputs=model.split_outputs)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    assert np.abs(update(config) - expected).max() > 0.01


def test_torch_names(make):
  model, variables, *_ = make()
  kernel = variables["params"]["stem"]["kernel"]
  del variables["params"]["body"]  # has no counterpart in PyTorch
  state = weights.to_torch(model, variables)
  assert {k: v.shape for k, v in state.items()} == {
    "stem.weight": (6, 3, 4, 8),
    "stem.bias": (6,),
    "classifier.weight": (5, 6),
    "classifier.bias": (5,),
  }
  assert state["stem.weight"][5, 2, 3, 1] == kernel[3, 1, 2, 5]
  loaded = weights.from_torch(model, state)
  jax.tree.map(np.testing.assert_array_equal, loaded, dict(variables))
  with pytest.raises(ValueError, match=r"'fc\.bias' is not .* of this Mixer"):
    weights.from_torch(model, {"fc.bias": np.ones(5)})


def test_a_run_passes_its_units_on(make, monkeypatch):
  make()
  config = configs.default_config()
  config.model_name, config.total_steps = "users.own", 1
  config.input.data = {"name": "critters", "split": "train[:16]"}
  config.input.pp = "decode|resize(16)|value_range(-1, 1)"
  config.input.batch_size = 8
  seen, original = {}, optim.make

  def spy(*args, **kw):
    seen.update(kw)
    return original(*args, **kw)

  monkeypatch.setattr(optim, "make", spy)
  built = parts.build(config)
  assert seen["split_outputs"] == built.objective.model.split_outputs
