"""Averaged weights: EMA is in test_step.py, SWA against PyTorch's here."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from objective_helpers import classify, specs

from big_crop import averages, step
from big_crop import config as configs
from big_crop.models.convolution import BatchNorm
from big_crop.runtime import sharding

SIZES = dict(batch_size=16, data_size=64, total_steps=7)


class Net(nn.Module):
  @nn.compact
  def __call__(self, image, *, train=False):
    x = nn.Dense(8, name="first")(image.reshape(len(image), -1))
    x = nn.relu(BatchNorm("float32", name="norm")(x, train=train))
    return nn.Dense(5, name="head")(x), {}


def to_torch(variables):
  torch = pytest.importorskip("torch")
  params, statistics = variables["params"], variables["batch_stats"]["norm"]
  found = {
    **{f"1.{k}": params["first"][v] for k, v in DENSE.items()},
    "2.weight": params["norm"]["scale"],
    "2.bias": params["norm"]["bias"],
    "2.running_mean": statistics["mean"],
    "2.running_var": statistics["var"],
    **{f"4.{k}": params["head"][v] for k, v in DENSE.items()},
  }
  model = torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(48, 8), torch.nn.BatchNorm1d(8),
    torch.nn.ReLU(), torch.nn.Linear(8, 5),
  )  # fmt: skip
  model.load_state_dict(
    {k: torch.tensor(np.array(v).T) for k, v in found.items()}, strict=False
  )
  return model


DENSE = {"weight": "kernel", "bias": "bias"}


def test_swa_is_torchs():
  torch = pytest.importorskip("torch")
  swa_utils = pytest.importorskip("torch.optim.swa_utils")
  config = configs.default_config()
  config.swa = dict(start_steps=3, every_epochs=0.5)
  objective = classify(Net(), 5)
  mesh = sharding.make_mesh([("data", 1)], jax.devices()[:1])
  tx, strategy = optax.sgd(0.1), [(".*", "replicate")]
  args = objective, tx, mesh, strategy, specs(4, 4, 3)
  state = step.init_state(*args, seed=0, ema=True)
  train_step = step.make_train_step(
    objective,
    tx,
    mesh=mesh,
    state_sharding=step.shardings_of(state),
    seed=0,
    ema_decay=averages.decay(config, **SIZES),
  )
  rng = np.random.default_rng(0)
  batches = [
    dict(
      image=rng.normal(1.0, 2.0, (16, 4, 4, 3)).astype(np.float32),
      label=rng.integers(5, size=16).astype(np.int32),
    )
    for _ in range(7)
  ]
  theirs = None
  for number, batch in enumerate(batches, 1):
    state, _ = train_step(state, batch)
    current = {"params": state.params, **state.model_state}
    if number in (3, 5, 7):
      model = to_torch(current)
      theirs = theirs or swa_utils.AveragedModel(model)
      theirs.update_parameters(model)
    elif number == 2:  # before the first that counts
      jax.tree.map(np.testing.assert_array_equal, state.ema, current)
  parts = types.SimpleNamespace(
    objective=objective, prepare=jax.jit(step.make_prepare(objective, 0))
  )
  state = averages.estimate_statistics(
    state, parts, ((batch, None) for batch in batches), 5
  )
  seen = [torch.tensor(batch["image"]) for batch in batches[:5]]
  swa_utils.update_bn(seen, theirs)
  ours = to_torch(state.ema).state_dict()
  for name, value in theirs.module.state_dict().items():
    if "num_batches" not in name:
      torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-6)


def test_mistakes_in_swa_get_one_line():
  c = configs.default_config()
  c.swa = dict(start_percent=0.75, every_epochs=1.0)
  assert averages.decay(c, **SIZES | dict(total_steps=0))(jnp.int32(0)) == 0
  for swa, ema, message in [
    (dict(start_steps=8, every_steps=1), None, "a start_ within the run"),
    (dict(start_percent=0.5), None, "and an every_ above 0"),
    (dict(start=3, every_steps=1), None, "unknown key of config.swa 'start'"),
    (dict(start_steps=3, every_steps=1), 0.9, "ema_decay and config.swa"),
  ]:
    c.swa, c.ema_decay = swa, ema
    with pytest.raises(ValueError, match=message) as e:
      averages.decay(c, **SIZES)
    assert "\n" not in str(e.value)
