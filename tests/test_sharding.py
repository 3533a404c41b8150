"""Meshes, rules, batches, and trees with names, on eight CPU devices."""

import hashlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from big_crop import trees
from big_crop.runtime import sharding

FSDP = [(".*", "fsdp(axis='data')")]


def specs(tree, mesh, strategy, known=None):
  found = sharding.infer_sharding(tree, mesh, strategy, known)
  return {name: s.spec for name, s in trees.named_leaves(found)}


@pytest.fixture
def mesh():
  return sharding.make_mesh([("data", -1)])


@pytest.mark.parametrize(
  ("axes", "shape"),
  [
    ([("data", -1)], {"data": 8}),
    ([("data", 2), ("fsdp", 4)], {"data": 2, "fsdp": 4}),
    ([("data", -1), ("fsdp", 4)], {"data": 2, "fsdp": 4}),
  ],
)
def test_make_mesh(axes, shape):
  assert dict(sharding.make_mesh(axes).shape) == shape


@pytest.mark.parametrize(
  "axes",
  [
    [("data", 3)],
    [("data", -1), ("fsdp", 3)],
    [("data", -1), ("fsdp", -1)],
    [("data", 16)],
    [("data", 0)],
    [("data", -1), ("fsdp", 16)],
    [("data", -2), ("fsdp", -4)],
  ],
)
def test_bad_mesh_says_how_many_devices(axes):
  with pytest.raises(ValueError, match="does not arrange 8 devices") as e:
    sharding.make_mesh(axes)
  assert "\n" not in str(e.value)


def test_fsdp_takes_the_largest_divisible_dimension(mesh):
  shapes = {"a": (40, 64, 128), "b": (64, 100, 64), "c": (99, 999), "d": (32,)}
  tree = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
  assert specs(tree, mesh, FSDP) == {
    "a": P(None, None, ("data",)),
    "b": P(("data",)),
    "c": P(),
    "d": P(),
  }
  strategy = [("a", "replicate"), ("d", "fsdp(min_size_to_shard_mb=0)")]
  assert specs(tree, mesh, strategy) == {
    "a": P(),
    "b": P(),
    "c": P(),
    "d": P(("data",)),
  }


def test_fsdp_over_one_or_two_axes():
  mesh = sharding.make_mesh([("data", 2), ("fsdp", 4)])
  tree = {"a": jax.ShapeDtypeStruct((1000, 999), jnp.float32)}
  one = [(".*", "fsdp('fsdp')")]
  assert specs(tree, mesh, one) == {"a": P(("fsdp",))}
  both = [(".*", "fsdp(axis=('data', 'fsdp'))")]
  assert specs(tree, mesh, both) == {"a": P(("data", "fsdp"))}


def test_optimiser_state_follows_its_parameter(mesh):
  big = jax.ShapeDtypeStruct((64, 512), jnp.float32)
  params = {"head": {"kernel": big}, "body": {"head": {"kernel": big}}}
  tx = optax.chain(
    optax.masked(optax.scale_by_adam(), {"head": True, "body": True}),
    optax.scale_by_schedule(lambda step: 1.0),
  )
  state = {"params": params, "opt": jax.eval_shape(tx.init, params)}
  known = [name for name, _ in trees.named_leaves(params)]
  got = specs(state, mesh, [("head/kernel", "fsdp()")], known)
  sharded = {name for name, spec in got.items() if spec != P()}
  assert sharded == {
    "params/head/kernel",
    "opt/0/inner_state/mu/head/kernel",
    "opt/0/inner_state/nu/head/kernel",
  }


class Wide(nn.Module):
  """The parameter shapes of a ViT-S block, embedding and head."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(384, (16, 16), strides=16)(x).reshape(len(x), -1, 384)
    x = x + self.param("pos_embedding", nn.initializers.normal(), (1, 196, 384))
    y = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(6)(y, y)
    x = x + nn.Dense(384)(nn.Dense(1536)(nn.LayerNorm()(x)))
    return nn.Dense(1000)(x.mean(1))


def test_fully_sharded_memory(mesh):
  init = lambda: Wide().init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
  shapes = jax.eval_shape(init)
  total = sum(x.size * 4 for x in jax.tree.leaves(shapes))
  shardings = sharding.infer_sharding(shapes, mesh, FSDP)
  variables = jax.jit(init, out_shardings=shardings)()
  assert sharding.bytes_per_device(variables) <= 1.3 / 8 * total
  whole = jax.device_put(jnp.zeros((3, 5)), sharding.replicated(mesh))
  assert sharding.bytes_per_device(whole) == 60


@pytest.mark.parametrize(
  ("strategy", "match"),
  [
    ([("kernal", "replicate")], "'kernal' matches no parameter"),
    ([(".*", "fspd()")], "'fspd': did you mean 'fsdp'"),
    ([(".*", "fsdp(axis='dat')")], "'dat': did you mean 'data'"),
    ([(".*", "fsdp(min_size=3)")], "unexpected keyword argument 'min_size'"),
    ([(".*", "fsdp(min_size_to_shard_mb='1')")], "min_size_to_shard_mb"),
    ([(".*", "fsdp(open('x'))")], "is not a rule such as"),
    ([(".*", "replicate; import os")], "is not a rule such as"),
    ([(".*", "os.system('x')")], "is not a rule such as"),
    ([(".*", None)], "is not a rule such as"),
  ],
)
def test_bad_strategy(strategy, match, mesh):
  tree = {"kernel": jax.ShapeDtypeStruct((8, 8), jnp.float32)}
  with pytest.raises(ValueError, match=match) as e:
    sharding.infer_sharding(tree, mesh, strategy)
  assert "\n" not in str(e.value)


def test_global_batch_is_split_over_all_axes():
  mesh = sharding.make_mesh([("data", 2), ("fsdp", 4)])
  local = {
    "image": np.arange(16 * 12, dtype=np.float32).reshape(16, 2, 2, 3),
    "label": np.arange(16, dtype=np.int32),
  }
  batch = sharding.make_global_batch(local, mesh)
  assert {s.data.shape for s in batch["image"].addressable_shards} == {
    (2, 2, 2, 3)
  }
  for key, value in local.items():
    np.testing.assert_array_equal(batch[key], value)


def test_batch_that_the_devices_do_not_divide(mesh):
  sharding.check_batch_size(96, mesh)
  sharding.check_batch_size(48, mesh, 3)
  with pytest.raises(ValueError) as e:
    sharding.check_batch_size(100, mesh)
  assert str(e.value) == (
    "batch size 100 is not divisible by 8 devices; nearest are 96 and 104"
  )
  with pytest.raises(ValueError, match=r"8 devices x 3 acc.* are 96 and 120"):
    sharding.check_batch_size(104, mesh, 3)
  with pytest.raises(ValueError, match=r"nearest is 8$"):
    sharding.check_batch_size(5, mesh)


def test_params_sha256(mesh):
  tree = {
    "b": jnp.arange(64.0).reshape(8, 8),
    "a": {"c": jnp.ones(3, jnp.bfloat16)},
  }
  expected = hashlib.sha256(
    b"a/c bfloat16 (3,)\n"
    + np.asarray(tree["a"]["c"]).tobytes()
    + b"b float32 (8, 8)\n"
    + np.arange(64, dtype=np.float32).tobytes()
  ).hexdigest()
  assert trees.params_sha256(tree) == expected
  always = [(".*", "fsdp(min_size_to_shard_mb=0)")]
  sharded = jax.device_put(tree, sharding.infer_sharding(tree, mesh, always))
  assert not sharded["b"].is_fully_replicated
  assert trees.params_sha256(sharded) == expected
  changed = tree | {"b": tree["b"].at[7, 7].set(0.5)}
  assert trees.params_sha256(changed) != expected
