"""Checkpoints: the same bits back, on any devices, and of no other model."""

import resource

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from objective_helpers import classify, specs

from big_crop import step
from big_crop.runtime import checkpoint, sharding


class Tiny(nn.Module):
  width: int = 64

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.Dense(self.width)(x.reshape(len(x), -1))
    x = nn.BatchNorm(use_running_average=not train)(x)
    return nn.Dense(8)(x), {}


def state_args(devices, strategy, width=64):
  mesh = sharding.make_mesh([("data", -1)], jax.devices()[:devices])
  rules = [(".*", strategy)]
  objective = classify(Tiny(width), 8)
  return objective, optax.scale_by_adam(), mesh, rules, specs(4, 4, 3)


FSDP = "fsdp(axis='data', min_size_to_shard_mb=0)"


@pytest.mark.parametrize(
  ("first", "second"),
  [((8, "replicate"), (8, FSDP)), ((8, FSDP), (2, "replicate"))],
)
def test_restores_onto_other_devices(tmp_path, first, second):
  state = step.init_state(*state_args(*first), seed=3, ema=True)
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(7, state, {"positions": [5], "elapsed_s": 0.5})
  saved.close()
  target = step.abstract_state(*state_args(*second), ema=True)
  opened = checkpoint.Checkpoints(tmp_path)
  restored, host = opened.restore(opened.latest(), target)
  opened.close()
  assert host == {"positions": [5], "elapsed_s": 0.5}
  same = jax.tree.map(
    lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), state, restored
  )
  assert all(jax.tree.leaves(same))
  wanted = jax.tree.map(lambda x: x.sharding, target)
  assert jax.tree.map(lambda x: x.sharding, restored) == wanted
  loaded = checkpoint.load_variables(str(tmp_path))
  np.testing.assert_array_equal(
    loaded["params"]["Dense_0"]["kernel"],
    state.ema["params"]["Dense_0"]["kernel"],
  )
  assert "batch_stats" in loaded


def test_another_model_is_named(tmp_path):
  state = step.init_state(*state_args(1, "replicate"), seed=0)
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(1, state, {})
  saved.wait()
  target = step.abstract_state(*state_args(1, "replicate", width=32))
  with pytest.raises(ValueError, match=r"another model: .*64.* there .*32"):
    saved.restore(1, target)
  saved.close()


def test_keeps_the_last_two_and_every_nth(tmp_path):
  state = {"a": jnp.zeros(3)}
  saved = checkpoint.Checkpoints(tmp_path, keep_every=4)
  for i in range(1, 8):
    saved.save(i, state, {})
  saved.close()
  kept = {p.name for p in (tmp_path / "checkpoints").iterdir()}
  assert kept == {"4", "6", "7"}


def test_a_torn_checkpoint_is_not_seen(tmp_path):
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(1, {"a": jnp.zeros(3)}, {})
  saved.close()
  torn = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp-123"
  (torn / "state").mkdir(parents=True)
  opened = checkpoint.Checkpoints(tmp_path)
  assert opened.latest() == 1
  opened.close()


def test_no_checkpoint(tmp_path):
  with pytest.raises(ValueError, match="no checkpoint in"):
    checkpoint.load_variables(str(tmp_path))


def test_a_save_that_fails_names_the_last_good_checkpoint(tmp_path):
  state = step.init_state(*state_args(1, "replicate", width=4000), seed=0)
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(1, state, {})
  saved.wait()
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  # Like a full disk: the system refuses to write more than that to a file.
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
  try:
    with pytest.raises(ValueError, match=r"last good checkpoint: .*/1:"):
      saved.save(2, state, {})
      saved.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert checkpoint.latest_step(tmp_path) == 1
  again = checkpoint.Checkpoints(tmp_path)
  restored, _ = again.restore(
    1, step.abstract_state(*state_args(1, "replicate", 4000))
  )
  np.testing.assert_array_equal(
    restored.params["Dense_0"]["kernel"], state.params["Dense_0"]["kernel"]
  )
  again.save(2, state, {})
  again.close()
  assert checkpoint.latest_step(tmp_path) == 2
