"""AugReg's models: hybrids beside timm and the authors' code, memory saved.

With VISION_TRANSFORMER_PATH set, to a clone of google-research's
vision_transformer, all nine models are compared with that code.
"""

import functools
import os
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from model_helpers import check_logits, check_size, close, images

from big_crop import models, weights
from big_crop.models import hybrid, vit
from big_crop.study import augreg

PATH = os.environ.get("VISION_TRANSFORMER_PATH")
# models_test.py of vision_transformer.
SIZES = {
  "Ti/16": 5_717_416,
  "S/32": 22_878_952,
  "S/16": 22_050_664,
  "B/32": 88_224_232,
  "B/16": 86_567_656,
  "L/16": 304_326_632,
  "R+Ti/16": 6_337_704,
  "R26+S/32": 36_431_912,
  "R50+L/32": 328_994_856,
}
SMALL = dict(width=32, mlp_dim=48, num_heads=2)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(m, marks=[] if m == "R+Ti/16" else pytest.mark.slow)
    for m in augreg.MODELS
  ],
)
def test_parameters_are_as_many_as_published(name):
  check_size("vit", 224, SIZES[name], variant=f"AugReg-{name}")


@pytest.mark.parametrize(
  ("timms", "variant", "size"),
  [
    ("vit_tiny_r_s16_p8_224", "R+Ti/16", 64),
    *(
      pytest.param(*row, marks=pytest.mark.slow)
      for row in (
        ("vit_small_r26_s32_224", "R26+S/32", 96),
        ("vit_tiny_patch16_224", "Ti/16", 32),
        ("vit_small_patch32_224", "S/32", 64),
        ("vit_small_patch16_224", "S/16", 32),
        ("vit_base_patch32_224", "B/32", 64),
        ("vit_base_patch16_224", "B/16", 32),
        ("vit_large_patch16_224", "L/16", 32),
      )
    ),
  ],
)
def test_logits_are_timms(timms, variant, size):
  timm = pytest.importorskip("timm")
  reference = timm.create_model(timms, num_classes=7, img_size=size, depth=2)
  # timm has the exact GELU, the published models its approximation by tanh.
  kw = dict(variant=f"AugReg-{variant}", depth=2, act="gelu_exact")
  check_logits(reference, models.get_model("vit", 7, **kw), images(size, 2))


def _published(params, old):
  """Flat, with the names and shapes of the published files."""
  flat = traverse_util.flatten_dict(jax.device_get(params), sep="/")
  flat["Transformer/posembed_input/pos_embedding"] = flat.pop("pos_embedding")
  if not old:
    return flat
  new = {}
  for name, x in flat.items():
    for ours, theirs in [
      ("/MultiHeadDotProductAttention_0/", "/MultiHeadDotProductAttention_1/"),
      ("/LayerNorm_1/", "/LayerNorm_2/"),
      ("/MlpBlock_0/", "/MlpBlock_3/"),
    ]:
      name = name.replace(ours, theirs)
    group_norm = "/gn" in f"/{name}"
    new[name] = x.reshape(1, 1, 1, -1) if group_norm else x
  return new


def _init(variant, size):
  """The shapes of a narrow model's parameters."""
  model = vit.Model(5, variant=f"AugReg-{variant}", depth=1, **SMALL)
  image = jnp.zeros((1, size, size, 3))
  return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def test_a_hybrid_is_read_under_the_published_names(tmp_path):
  shapes = _init("R26+S/32", 64)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape)), shapes)
  for old in (False, True):
    published = _published(params, old)
    for name in ("block4/unit2/gn3/scale", "gn_root/bias"):
      assert published[name].ndim == (4 if old else 1)
    assert "block1/unit1/conv_proj/kernel" in published
    np.savez(tmp_path / "x.npz", **published)
    loaded = weights.load_npz(tmp_path / "x.npz")
    fitted = weights.adapt(loaded, shapes)
    jax.tree.map(np.testing.assert_array_equal, fitted, params)
  # At another resolution, where the grid has four times as many places.
  grid = jax.ShapeDtypeStruct((1, 17, 32), np.float32)
  found = weights.adapt(loaded, {**shapes, "pos_embedding": grid})
  np.testing.assert_array_equal(
    found["pos_embedding"][:, [0, 1, 4, 13, 16]], params["pos_embedding"]
  )
  for other in ("R+Ti/16", "S/32"):
    with pytest.raises(ValueError, match=r"^[^\n]*checkpoint[^\n]*$"):
      weights.adapt(loaded, _init(other, 64))


@pytest.mark.skipif(not PATH, reason="VISION_TRANSFORMER_PATH is not set")
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", augreg.MODELS)
@pytest.mark.slow
def test_logits_are_the_authors(tmp_path, monkeypatch, name, old):
  """All nine, of full width and four blocks, from a published file."""
  monkeypatch.syspath_prepend(PATH)
  # vit_jax imports pandas for its reader of index.csv, which is not called.
  monkeypatch.setitem(sys.modules, "pandas", types.ModuleType("pandas"))
  from vit_jax import checkpoint, models_vit
  from vit_jax.configs import models as configs

  config = configs.AUGREG_CONFIGS[name.replace("+", "_").replace("/", "_")]
  config = config.copy_and_resolve_references().unlock()
  config.transformer.num_layers = 4
  theirs = models_vit.VisionTransformer(num_classes=11, **config)
  image = images(64, 2)
  init = jax.jit(theirs.init, static_argnames="train")
  params = init(jax.random.key(0), image, train=False)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: x + np.float32(0.05 * rng.normal(size=x.shape)), params
  )
  expected = theirs.apply({"params": params}, image, train=False)
  flat = traverse_util.flatten_dict(jax.device_get(params), sep="/")
  flat["pos_embedding"] = flat.pop("Transformer/posembed_input/pos_embedding")
  tree = traverse_util.unflatten_dict(flat, sep="/")
  np.savez(tmp_path / "x.npz", **_published(tree, old))
  # The authors' reader also reads the file that we have written.
  again = checkpoint.load(str(tmp_path / "x.npz"))
  jax.tree.map(np.testing.assert_array_equal, again, jax.device_get(params))
  ours = vit.Model(11, variant=f"AugReg-{name}", depth=4)
  loaded = weights.load_npz(tmp_path / "x.npz")
  logits, _ = ours.apply({"params": loaded}, image)
  close(np.asarray(logits), np.asarray(expected), 1e-5)


@functools.cache
def _losses(rates, **kw):
  """The loss, gradients, and bytes that XLA needs for both."""
  model = vit.Model(
    5,
    variant="AugReg-Ti/16",
    depth=3,
    patch_size=4,
    **SMALL,
    **dict.fromkeys(("dropout", "drop_path"), rates),
    **kw,
  )
  image = images(32, 8)
  params = _random(model, image)["params"]

  def loss(params):
    logits, _ = model.apply(
      {"params": params}, image, train=True, rngs={"dropout": jax.random.key(1)}
    )
    return jnp.square(logits).sum()

  compiled = jax.jit(jax.value_and_grad(loss)).lower(params).compile()
  memory = compiled.memory_analysis().temp_size_in_bytes
  return *compiled(params), memory


def _random(model, image):
  """Variables of which none is at its init, the same for `scan` and without."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda s: np.float32(rng.normal(size=s.shape, scale=0.2)), shapes
  )


@pytest.mark.parametrize(
  ("remat", "scan", "rate"),
  [
    pytest.param(True, True, 0.3, marks=pytest.mark.long),
    pytest.param(True, True, 0.0, marks=pytest.mark.slow),
    pytest.param(True, False, 0.3, marks=pytest.mark.slow),
    pytest.param(False, True, 0.3, marks=pytest.mark.slow),
  ],
)
def test_remat_and_scan_have_the_same_numbers(remat, scan, rate):
  value, grads, memory = _losses(rate)
  other, other_grads, needed = _losses(rate, remat=remat, scan=scan)
  assert float(other) == pytest.approx(float(value), rel=1e-6)
  assert jax.tree.structure(other_grads) == jax.tree.structure(grads)
  flat = lambda tree: np.concatenate([x.ravel() for x in tree])
  a, b = map(flat, map(jax.tree.leaves, (other_grads, grads)))
  assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b)
  if remat and scan:  # outside of a loop XLA undoes remat on CPUs
    assert needed < 0.5 * memory


@pytest.mark.parametrize("scan", [False, True])
def test_a_block_drops_what_another_keeps(scan):
  """If blocks shared a key, a higher rate would repeat a lower rate's drops."""
  kw = dict(patch_size=8, depth=3, dropout=0.3, drop_path=0.6)
  model = vit.Model(5, **SMALL, **kw, scan=scan)
  image = images(8, 64)
  apply = jax.jit(functools.partial(model.apply, train=True))
  rngs = {"dropout": jax.random.key(0)}
  found = apply(_random(model, image), image, rngs=rngs)[1]["encoder"]
  blocks = [found[name] for name in ("block01", "block02")]
  dropped = np.stack([b["+mlp"] == b["+sa"] for b in blocks])
  one, other = branches = dropped.all((2, 3))  # [block, example]
  assert (one & ~other).any() and (other & ~one).any()
  one, other = dropped[:, ~branches.any(0)]  # units, where no branch is dropped
  assert (one & ~other).any() and (other & ~one).any()


def test_scan_gives_the_activations_and_needs_no_other_parameters():
  image = images(16, 2)
  kw = dict(patch_size=8, depth=2, **SMALL)
  model = vit.Model(5, **kw)
  scanned = vit.Model(5, **kw, scan=True, remat=True)
  variables = _random(scanned, image)
  jax.tree.map(np.testing.assert_array_equal, variables, _random(model, image))
  _, out = jax.jit(model.apply)(variables, image)
  _, found = jax.jit(scanned.apply)(variables, image)
  assert jax.tree.structure(out) == jax.tree.structure(found)
  for a, b in zip(*map(jax.tree.leaves, (out, found)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  assert "gradcam" in scanned.last_layer().missing


def test_variants_of_hybrids():
  kw = vit.decode_variant("AugReg-R+Ti/16")
  assert (kw["stem"], kw["patch_size"], kw["width"]) == ("R", 8, 192)
  assert vit.decode_variant("R50+L/64")["patch_size"] == 2
  # A token covers 32 pixels of the image, although the names say /16 and /32.
  assert vit.Model(3, variant="R+Ti/16").last_layer().patch_size == (32, 32)
  assert vit.Model(3, variant="R26+S/32").last_layer().patch_size == (32, 32)
  assert {k: hybrid.shrinks(k) for k in hybrid.STEMS} == {
    "R": 4, "R26": 32, "R50": 32,
  }  # fmt: skip
  for variant, message in [
    ("R25+S/32", "stem of ViT variant 'R25.S/32' 'R25': did you mean 'R50'"),
    ("R26+S/16", "multiple of 32, as in 'R26.S/32'"),
    ("R+Ti/15", "multiple of 2, as in 'R.Ti/16'"),
  ]:
    with pytest.raises(ValueError, match=message):
      vit.Model(3, variant=variant)
  with pytest.raises(ValueError, match=r"40x40 pixels .* 32x32"):
    model = vit.Model(3, variant="R+Ti/16", depth=1)
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 40, 40, 3)))
