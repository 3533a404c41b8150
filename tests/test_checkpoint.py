"""Checkpoints: the same bits back, on any devices, and of no other model."""

import json
import re
import resource

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from damage_helpers import UNUSED, WAYS, damage, files
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


def save(workdir, *steps):
  """Saves checkpoints full of their step's number; returns their folder."""
  saved = checkpoint.Checkpoints(workdir, keep_every=1)
  for i in steps:
    state = {"params": {"w": jnp.full(1000, i)}, "model_state": {}}
    saved.save(i, state, {"step": i})
  saved.close()
  return workdir / "checkpoints"


def content(workdir, step):
  """Restores a checkpoint; the number that it is full of."""
  opened = checkpoint.Checkpoints(workdir)
  w = jax.ShapeDtypeStruct((1000,), jnp.int32)
  state, host = opened.restore(step, {"params": {"w": w}, "model_state": {}})
  opened.close()
  assert set(state["params"]["w"].tolist()) == {host["step"]}
  return host["step"]


def test_damage_to_any_file_is_seen(tmp_path, capfd):
  folder = save(tmp_path, 1, 2)
  rng = np.random.default_rng(0)
  reasons = set()
  for path in files(folder / "2"):
    name, whole = str(path.relative_to(folder / "2")), path.read_bytes()
    for way in WAYS:
      damage(path, way, rng)
      step = checkpoint.latest_step(tmp_path)
      path.write_bytes(whole)
      said = capfd.readouterr().err
      if name in UNUSED:
        assert (step, said) == (2, "")
        continue
      assert step == 1, (name, way)
      (reason,) = re.findall(
        f"^checkpoint {folder}/2 is damaged: (.*); going on from {folder}/1$",
        said.rstrip("\n"),
      )
      if name != "checksums.json":
        reasons.add(re.sub(r"\d+ b", "N b", reason.replace(name, "FILE")))
  assert {re.sub(r"\d+$", "N", x) for x in reasons} == {
    "FILE is missing",
    "FILE has N bytes and was saved with N",
    "FILE has other bytes than were saved",
  }
  for name in UNUSED:
    (folder / "2" / name).unlink(missing_ok=True)
  assert content(tmp_path, 2) == 2


def test_a_damaged_step_is_set_aside_and_saved_again(tmp_path, capfd):
  folder = save(tmp_path, 1, 2, 3)
  (folder / "2" / "state" / "_METADATA").unlink()
  (folder / "3" / "checksums.json").unlink()
  (folder / "4").mkdir()
  (folder / "5").write_text("a stray file")
  (folder / "notes").write_text("of no step")
  (folder / "6.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
  (folder / "3.damaged").mkdir()  # from an earlier time
  (folder / "5.damaged").write_text("")
  # Who only reads renames nothing.
  assert checkpoint.load_variables(str(tmp_path))["params"]["w"][0] == 1
  with pytest.raises(ValueError, match="2 is damaged: state/_METADATA is"):
    checkpoint.load_variables(str(folder / "2"))
  capfd.readouterr()
  assert checkpoint.latest_step(tmp_path, tidy=True) == 1
  said = capfd.readouterr().err
  for i, what in {
    2: "state/_METADATA is missing",
    3: "checksums.json is missing",
    4: "neither checksums.json nor host/metadata can be read",
    5: "it is not a folder",
  }.items():
    assert re.search(
      f"{folder}/{i} is damaged: {what}; going on from {folder}/1 .it is kept "
      f"as {i}.damaged.$",
      said,
      re.MULTILINE,
    )
  save(tmp_path, 2, 3, 4, 5)
  assert [content(tmp_path, i) for i in (2, 5)] == [2, 5]
  aside = {f"{i}.damaged" for i in (2, 3, 4, 5)}
  names = {path.name for path in folder.iterdir()}
  assert names == {"1", "2", "3", "4", "5", "notes", *aside}
  assert list((folder / "3.damaged").iterdir())


def test_no_checkpoint_is_whole(tmp_path):
  folder = save(tmp_path, 1)
  (folder / "1" / "state" / "manifest.ocdbt").write_bytes(b"")
  (folder / "2").mkdir()
  for read in (checkpoint.latest_step, checkpoint.load_variables):
    with pytest.raises(
      ValueError,
      match=r"no checkpoint in .* is whole .*/2: .*/1: .*remove that folder",
    ):
      read(str(tmp_path))


def test_runs_together_take_a_step_that_is_whole_in_each(tmp_path):
  one, other = tmp_path / "one", tmp_path / "other"
  a, b = save(one, 1, 2, 3, 4), save(other, 1, 2, 3)
  (a / "3" / "host" / "metadata").unlink()
  assert checkpoint.latest_step(one, other) == 2
  assert (a / "4").exists() and (b / "3").exists()
  # Later ones go, because Orbax would not save their steps again.
  assert checkpoint.latest_step(one, other, tidy=True) == 2
  assert sorted(p.name for p in a.iterdir()) == ["1", "2", "3.damaged"]
  assert sorted(p.name for p in b.iterdir()) == ["1", "2"]
  (b / "2" / "host" / "metadata").unlink()
  (b / "1" / "host" / "metadata").unlink()
  with pytest.raises(ValueError, match="train them apart"):
    checkpoint.latest_step(one, other)
  with pytest.raises(ValueError, match="train them apart"):
    checkpoint.latest_step(one, tmp_path / "new")


def test_a_checkpoint_of_an_earlier_version_is_read_unchecked(tmp_path, capfd):
  folder = save(tmp_path, 1)
  (folder / "1" / "checksums.json").unlink()
  host = folder / "1" / "host" / "metadata"
  kept = json.loads(host.read_text())
  del kept["checksums.json"]
  host.write_text(json.dumps(kept))
  assert checkpoint.latest_step(tmp_path) == 1
  assert content(tmp_path, 1) == 1
  said = capfd.readouterr().err
  assert f"checkpoint {folder}/1 is read unchecked: an earlier" in said
  (folder / "1" / "state" / "manifest.ocdbt").unlink()
  with pytest.raises(ValueError, match=r"/1 cannot be read: .*; remove it"):
    content(tmp_path, 1)
  with pytest.raises(ValueError, match=r"/1 cannot be read: .*; remove it"):
    checkpoint.load_variables(str(tmp_path))


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
    with pytest.raises(ValueError, match=r"last good checkpoint: .*/1$"):
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
