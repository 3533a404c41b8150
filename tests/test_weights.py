"""Loading, saving and adapting of parameters."""

import jax
import numpy as np
import pytest
import scipy.interpolate
from flax import struct, traverse_util

from big_crop import models, weights
from big_crop.models import vit


def _params(res=16, num_classes=5, **kw):
  kw = dict(width=16, depth=2, num_heads=2, patch_size=4, **kw)
  image = np.zeros((1, res, res, 3), np.float32)
  init = vit.Model(num_classes, **kw).init
  shapes = jax.eval_shape(init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(res)
  return jax.tree.map(
    lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes
  )


def _flat(tree):
  return traverse_util.flatten_dict(tree, sep="/")


def _assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_npz_round_trip(tmp_path):
  params = _params(pool_type="tok")
  stats = {"bn1": {"mean": np.arange(3.0)}}
  half = jax.tree.map(lambda x: jax.numpy.asarray(x, "bfloat16"), params)
  for i, (tree, batch_stats) in enumerate(
    [(params, None), (params, stats), (half, None)]
  ):
    path = tmp_path / f"{i}.npz"
    weights.save_npz(path, tree, batch_stats)
    loaded = weights.load_npz(path)
    _assert_equal(loaded, jax.device_get(tree))
    assert loaded["cls"].dtype == tree["cls"].dtype
    _assert_equal(
      weights.adapt(loaded, params),
      jax.tree.map(lambda x: np.asarray(x, np.float32), tree),
    )
  _assert_equal(weights.load_npz(tmp_path / "1.npz", "batch_stats"), stats)
  with pytest.raises(ValueError, match=r"0\.npz holds no batch_stats/"):
    weights.load_npz(tmp_path / "0.npz", "batch_stats")


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
def test_old_names(tmp_path, prefix):
  """The names in AugReg's files, see google-research/vision_transformer."""
  params = _params(pool_type="tok")
  old = {}
  renamed = {
    "/MultiHeadDotProductAttention_0/": "/MultiHeadDotProductAttention_1/",
    "/LayerNorm_1/": "/LayerNorm_2/",
    "/MlpBlock_0/": "/MlpBlock_3/",
  }
  for name, value in _flat(params).items():
    for new_name, old_name in renamed.items():
      name = name.replace(new_name, old_name)
    old[prefix + name] = value
  # The class token had a position, so the sum of both becomes the token.
  positions = old.pop(f"{prefix}pos_embedding")
  first = np.full_like(positions[:, :1], 0.25)
  name = f"{prefix}Transformer/posembed_input/pos_embedding"
  old[name] = np.concatenate([first, positions], 1)
  old[f"{prefix}cls"] = params["cls"] - first
  if prefix:
    old["opt/state/step"] = np.int32(7)
  np.savez(tmp_path / "old.npz", **old)

  loaded = weights.load_npz(tmp_path / "old.npz")
  assert loaded["pos_embedding"].shape == (1, 17, 16)
  adapted = weights.adapt(loaded, params)
  np.testing.assert_allclose(adapted["cls"], params["cls"], atol=1e-6)
  adapted["cls"] = params["cls"]
  _assert_equal(adapted, params)


def test_layer_numbers_of_other_models_are_left_alone(tmp_path):
  tree = {"block": {f"LayerNorm_{i}": {"scale": np.ones(i)} for i in (0, 1, 2)}}
  weights.save_npz(tmp_path / "x.npz", tree)
  _assert_equal(weights.load_npz(tmp_path / "x.npz"), tree)


def test_scanned_blocks(tmp_path):
  params = _params()
  blocks = params["Transformer"]
  stacked = jax.tree.map(
    lambda *x: np.stack(x), blocks["encoderblock_0"], blocks["encoderblock_1"]
  )
  scanned = {
    **params,
    "Transformer": {
      "encoderblock": stacked,
      "encoder_norm": blocks["encoder_norm"],
    },
  }
  weights.save_npz(tmp_path / "scan.npz", scanned)
  _assert_equal(weights.load_npz(tmp_path / "scan.npz"), params)


def test_a_part_of_a_tree_and_an_inlined_map_head(tmp_path):
  params = _params(pool_type="map")
  inlined = {**params, **params["MAPHead_0"]}
  del inlined["MAPHead_0"]
  towers = {"img": inlined, "txt": _params(), "t": np.ones(1, np.float32)}
  weights.save_npz(tmp_path / "two.npz", towers)
  _assert_equal(weights.load_npz(f"{tmp_path}/two.npz:img"), params)
  _assert_equal(weights.load_npz(f"{tmp_path}/two.npz:txt"), towers["txt"])
  with pytest.raises(
    ValueError, match=r"two\.npz holds no params/image/\.\.\. "
  ):
    weights.load_npz(f"{tmp_path}/two.npz:image")


def test_big_visions_folders(tmp_path):
  """Folders written by the manager to which big_vision gives its arrays."""
  from jax.experimental.array_serialization import serialization

  params = _params()
  half = jax.tree.map(lambda x: jax.numpy.asarray(x, "bfloat16"), params)
  manager = serialization.GlobalAsyncCheckpointManager()
  for step, tree in ((3, params), (12, half)):
    state = {"params": {"img": tree}, "opt": {"count": np.ones(2)}}
    arrays = {k.replace("/", "~"): v for k, v in _flat(state).items()}
    folder = tmp_path / f"checkpoint.bv-{step:09d}"
    manager.serialize_with_paths(
      [jax.numpy.asarray(v) for v in arrays.values()],
      [str(folder / name) for name in arrays],
      on_commit_callback=lambda: None,
    )
    manager.wait_until_finished()
  path = tmp_path / "checkpoint.bv"
  path.with_name("checkpoint.bv-LAST").write_text("000000012")
  _assert_equal(weights.load_npz(f"{path}-000000003:img"), params)
  _assert_equal(weights.load_npz(f"{path}:img"), jax.device_get(half))
  next((tmp_path / "checkpoint.bv-000000003").glob("params*/.zarray")).unlink()
  with pytest.raises(ValueError, match="can't be read as an array") as e:
    weights.load_npz(f"{path}-000000003:img")
  assert "\n" not in str(e.value)


@pytest.mark.parametrize(("before", "after"), [(4, 6), (4, 9), (8, 3)])
def test_position_embeddings_are_resampled(before, after):
  old, new = _params(res=4 * before), _params(res=4 * after)
  adapted = weights.adapt(old, new)
  grid = old["pos_embedding"].reshape(before, before, 16)
  axis = np.linspace(0, 1, before)
  fine = np.stack(
    np.meshgrid(*[np.linspace(0, 1, after)] * 2, indexing="ij"), -1
  )
  expected = scipy.interpolate.RegularGridInterpolator((axis, axis), grid)(fine)
  assert adapted["pos_embedding"].dtype == np.float32
  np.testing.assert_allclose(
    adapted["pos_embedding"], expected.reshape(1, -1, 16), atol=1e-5
  )
  del adapted["pos_embedding"], old["pos_embedding"]
  _assert_equal(adapted, old)


def test_positions_of_the_class_token():
  """Kept, added to the token, or zero, so that the function stays the same."""
  with_token = dict(pool_type="tok", posemb_cls=True)
  both, folded = _params(**with_token), _params(pool_type="tok")
  adapted = weights.adapt(both, folded)
  positions = both["pos_embedding"]
  np.testing.assert_array_equal(adapted["cls"], both["cls"] + positions[:, :1])
  np.testing.assert_array_equal(adapted["pos_embedding"], positions[:, 1:])

  unfolded = weights.adapt(folded, both)
  np.testing.assert_array_equal(unfolded["cls"], folded["cls"])
  assert not unfolded["pos_embedding"][:, 0].any()
  np.testing.assert_array_equal(
    unfolded["pos_embedding"][:, 1:], folded["pos_embedding"]
  )

  larger = weights.adapt(both, _params(res=28, **with_token))
  np.testing.assert_array_equal(larger["cls"], both["cls"])
  np.testing.assert_array_equal(larger["pos_embedding"][:, 0], positions[:, 0])
  plain = weights.adapt(both, _params(res=28, pool_type="tok"))
  np.testing.assert_array_equal(
    larger["pos_embedding"][:, 1:], plain["pos_embedding"]
  )


def test_dont_load():
  old, new = _params(num_classes=5), _params(num_classes=7, res=20)
  adapted = weights.adapt(old, new, ["head/.*", "pos_embedding"])
  _assert_equal(adapted["head"], new["head"])
  np.testing.assert_array_equal(adapted["pos_embedding"], new["pos_embedding"])
  _assert_equal(adapted["Transformer"], old["Transformer"])
  # Shapes suffice for parameters that are loaded.
  shapes = jax.eval_shape(lambda x: x, old)
  _assert_equal(weights.adapt(old, shapes, dont_load=()), old)
  # Patterns match whole names.
  with pytest.raises(ValueError, match="head/bias"):
    weights.adapt(old, new, "head")


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    (
      dict(num_classes=5),
      dict(num_classes=7),
      r"'head/bias' has shape \(5,\) in the checkpoint but \(7,\) in the model "
      r"\(and 1 more like it\).* add 'head/\.\*' to dont_load",
    ),
    (
      dict(),
      dict(rep_size=8, num_classes=5),
      r"'head/kernel' has shape \(16, 5\) in the checkpoint but \(8, 5\)",
    ),
    (
      dict(),
      dict(rep_size=16),
      r"'pre_logits/bias' \(16,\) of the model is not in the checkpoint",
    ),
    (
      dict(pool_type="tok"),
      dict(pool_type="gap"),
      r"'cls' \(1, 1, 16\) of the checkpoint is not in the model; .*'cls'",
    ),
    (
      dict(),
      dict(posemb="sincos2d"),
      "'pos_embedding' .* not in the model",
    ),
  ],
)
def test_mismatches_get_one_line(old, new, message):
  with pytest.raises(ValueError, match=message) as e:
    weights.adapt(_params(**old), _params(**new))
  assert "\n" not in str(e.value)


def test_grids_that_are_not_square_are_not_resampled():
  old, new = _params(), _params()
  old["pos_embedding"] = np.zeros((1, 15, 16), np.float32)
  with pytest.raises(
    ValueError, match=r"'pos_embedding' has shape \(1, 15, 16"
  ):
    weights.adapt(old, new)


def test_bad_files_and_patterns_get_one_line(tmp_path):
  with pytest.raises(ValueError, match=r"No file .*nothing\.npz"):
    weights.load_npz(tmp_path / "nothing.npz")
  (tmp_path / "text.npz").write_text("no archive")
  np.save(tmp_path / "array.npy", np.ones(3))
  for name in ("text.npz", "array.npy", "."):
    with pytest.raises(ValueError, match=r"can't be read as an \.npz") as e:
      weights.load_npz(tmp_path / name)
    assert "\n" not in str(e.value)
  with pytest.raises(ValueError, match=r"'head/\(' is not a regular"):
    weights.adapt({}, {}, ["head/("])


class _State(struct.PyTreeNode):
  params: dict
  model_state: dict
  ema: dict | None


@pytest.mark.parametrize("averages", [False, True])
@pytest.mark.long
def test_a_run_starts_from_a_torch_file(tmp_path, averages):
  """By the names and heads of its own model: 3 heads of 4, not of 64."""
  safetensors = pytest.importorskip("safetensors.numpy")
  model = vit.Model(3, width=12, depth=1, num_heads=3, patch_size=4)
  image = np.zeros((1, 8, 8, 3), np.float32)
  draw = lambda seed: model.init(jax.random.key(seed), image)["params"]
  there, params = draw(0), draw(1)
  path = tmp_path / "x.safetensors"
  safetensors.save_file(weights.to_torch(model, {"params": there}), path)
  ema = {"params": draw(2)} if averages else None
  state = weights.initialise(_State(params, {}, ema), path, model, ["head/.*"])
  expected = {**there, "head": params["head"]}
  _assert_equal(state.params, expected)
  if averages:
    _assert_equal(state.ema["params"], {**there, "head": ema["params"]["head"]})
  with pytest.raises(ValueError, match=r"'cls_token' is not .* this ResNet"):
    safetensors.save_file({"cls_token": np.ones((1, 1, 12))}, path)
    weights.initialise(state, path, models.get_model("resnet", 3))
