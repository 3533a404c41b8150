"""The ViT against a float64 NumPy transcription, and its parameter tree."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from flax import traverse_util

from big_crop import models
from big_crop.models import common, transformer, vit

SMALL = dict(width=32, depth=2, mlp_dim=48, num_heads=4, patch_size=(8, 4))


def _image(shape=(3, 16, 16, 3), seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape).astype(np.float32)


def _randomised(model, image, scale=0.3):
  """Variables of which none, head and biases included, is at its init."""
  rng = np.random.default_rng(1)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)
  return jax.tree.map(
    lambda s: rng.normal(size=s.shape, scale=scale).astype(s.dtype), shapes
  )


def _shapes(tree):
  flat = traverse_util.flatten_dict(tree["params"], sep="/")
  return {k: v.shape for k, v in flat.items()}


# The independent transcription: loops and float64.


def _norm(x, p):
  if "bias" in p:  # RMSNorm has none, and does not centre
    x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  return x * p["scale"] + p.get("bias", 0)


def _attention(x_q, x_kv, p):
  num_heads, head_dim = p["query"]["bias"].shape
  result = p["out"]["bias"]
  for n in range(num_heads):
    q, k, v = (
      x @ p[name]["kernel"][:, n] + p[name]["bias"][n]
      for name, x in (("query", x_q), ("key", x_kv), ("value", x_kv))
    )
    logits = q @ k.transpose(0, 2, 1) / np.sqrt(head_dim)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    result = result + weights @ v @ p["out"]["kernel"][n]
  return result


def _mlp(x, p, gain):
  x = x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
  if gain == "exact":
    x = x * scipy.special.ndtr(x)
  else:
    x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    x = gain * x
  return x @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]


def _numpy_vit(params, image, pool_type, norm="LayerNorm", gain=1.0):
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  ph, pw, _, width = p["embedding"]["kernel"].shape
  h, w = image.shape[1] // ph, image.shape[2] // pw
  tokens = []
  for i in range(h):
    for j in range(w):
      patch = image[:, i * ph : (i + 1) * ph, j * pw : (j + 1) * pw]
      token = np.einsum("bhwc,hwcd->bd", patch, p["embedding"]["kernel"])
      token = token + p["embedding"]["bias"]
      if "pos_embedding" in p:
        first = p["pos_embedding"].shape[1] - h * w
        token = token + p["pos_embedding"][0, first + i * w + j]
      else:
        freqs = [1e4 ** -(d / (width // 4 - 1)) for d in range(width // 4)]
        token = token + np.array(
          [f(a * o) for a in (j, i) for f in (np.sin, np.cos) for o in freqs]
        )
      tokens.append(token)
  x = np.stack(tokens, 1)
  if pool_type == "tok":
    cls = p["cls"]
    if p["pos_embedding"].shape[1] > h * w:
      cls = cls + p["pos_embedding"][:, :1]
    x = np.concatenate([np.repeat(cls, len(x), 0), x], 1)
  blocks = p["Transformer"]
  for i in range(len(blocks) - 1):
    b = blocks[f"encoderblock_{i}"]
    y = _norm(x, b[f"{norm}_0"])
    x = x + _attention(y, y, b["MultiHeadDotProductAttention_0"])
    x = x + _mlp(_norm(x, b[f"{norm}_1"]), b["MlpBlock_0"], gain)
  x = _norm(x, blocks["encoder_norm"])
  if pool_type == "gap":
    x = x.mean(1)
  elif pool_type == "tok":
    x = x[:, 0]
  else:
    m = p["MAPHead_0"]
    probe = np.repeat(m["probe"], len(x), 0)
    x = _attention(probe, x, m["MultiHeadDotProductAttention_0"])
    x = x + _mlp(_norm(x, m[f"{norm}_0"]), m["MlpBlock_0"], gain)
    x = x[:, 0]
  if "pre_logits" in p:
    x = np.tanh(x @ p["pre_logits"]["kernel"] + p["pre_logits"]["bias"])
  return x @ p["head"]["kernel"] + p["head"]["bias"]


@pytest.mark.parametrize(
  "kw",
  [
    dict(pool_type="gap", posemb="sincos2d", rep_size=24),
    dict(pool_type="tok", posemb="learn"),
    dict(pool_type="map", posemb="learn", rep_size=True),
  ],
  ids=lambda kw: kw["pool_type"],
)
def test_logits_are_those_of_the_transcription(kw):
  image = _image()
  model = vit.Model(7, **SMALL, **kw)
  variables = _randomised(model, image)
  logits, out = jax.jit(model.apply)(variables, image)
  expected = _numpy_vit(variables["params"], image, kw["pool_type"])
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, expected, rtol=5e-6, atol=5e-6)
  np.testing.assert_array_equal(out["logits"], logits)
  tokens = 8 + (kw["pool_type"] == "tok")
  assert out["encoded"].shape == (3, tokens, 32)
  assert out["encoder"]["block01"]["+mlp"].shape == (3, tokens, 32)


@pytest.mark.parametrize("pool_type", ["gap", "map"])
def test_rms_norm_and_scaled_gelu(pool_type):
  image = _image()
  kw = dict(**SMALL, pool_type=pool_type, norm="rmsnorm", act="sqrt2_gelu")
  model = vit.Model(7, **kw)
  variables = _randomised(model, image)
  logits, _ = jax.jit(model.apply)(variables, image)
  expected = _numpy_vit(
    variables["params"], image, pool_type, norm="RMSNorm", gain=np.sqrt(2)
  )
  np.testing.assert_allclose(logits, expected, rtol=5e-6, atol=5e-6)


def test_deit_has_a_position_for_its_token_and_the_exact_gelu():
  image = _image()
  model = vit.Model(7, **{**vit.DEIT, **SMALL})
  variables = _randomised(model, image)
  assert variables["params"]["pos_embedding"].shape == (1, 9, 32)
  logits, out = jax.jit(model.apply)(variables, image)
  expected = _numpy_vit(variables["params"], image, "tok", gain="exact")
  np.testing.assert_allclose(logits, expected, rtol=5e-6, atol=5e-6)
  assert out["with_posemb"].shape == (3, 8, 32)


def test_scaled_gelu_preserves_the_second_moment():
  x = np.random.default_rng(0).normal(size=10**6)
  moment = np.square(transformer.ACTIVATIONS["sqrt2_gelu"](x)).mean()
  assert 0.8 < moment < 0.9  # GELU's alone is 0.425
  assert moment == pytest.approx(2 * np.square(jax.nn.gelu(x)).mean())
  found = transformer.ACTIVATIONS["sqrt2_gelu_exact"](x)
  exact = 2**0.5 * jax.nn.gelu(x, approximate=False)
  np.testing.assert_allclose(found, exact, rtol=1e-6)
  assert np.abs(found - transformer.ACTIVATIONS["sqrt2_gelu"](x)).max() > 1e-4


@pytest.mark.parametrize(
  "kw",
  [
    dict(variant="S/16", pool_type="gap", posemb="sincos2d", rep_size=True),
    dict(variant="B/32", pool_type="tok", posemb="learn"),
  ],
  ids=["S/16", "B/32"],
)
@pytest.mark.slow  # smaller models are tested above, this one's tree below
def test_logits_of_the_papers_sizes(kw):
  image = _image((1, 224, 224, 3))
  model = vit.Model(1000, **kw, head_zeroinit=False)
  params = jax.jit(model.init)(jax.random.key(0), image)["params"]
  # Biases and positions that have an effect.
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: x + rng.normal(size=x.shape, scale=0.02).astype(np.float32),
    params,
  )
  logits, _ = jax.jit(model.apply)({"params": params}, image)
  expected = _numpy_vit(params, image, kw["pool_type"])
  error = np.linalg.norm(logits - expected) / np.linalg.norm(expected)
  assert error < 1e-5
  np.testing.assert_allclose(
    logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
  )


@pytest.mark.parametrize("pool_type", ["gap", "tok", "map"])
def test_float64_all_the_way(pool_type):
  kw = dict(**SMALL, pool_type=pool_type, rep_size=24)
  image = _image().astype(np.float64)
  with jax.enable_x64(True):
    model = vit.Model(7, **kw, dtype_mm="float64")
    variables = jax.tree.map(
      np.float64, _randomised(vit.Model(7, **kw), np.float32(image))
    )
    logits, _ = jax.jit(model.apply)(variables, image)
    assert logits.dtype == np.float64
  expected = _numpy_vit(variables["params"], image, pool_type)
  np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9)


def test_bfloat16_is_close_and_keeps_parameters_in_float32():
  image = _image()
  kw = dict(**SMALL, pool_type="map")
  variables = _randomised(vit.Model(7, **kw), image, scale=0.1)
  results = []
  for dtype in ("bfloat16", "float32"):
    model = vit.Model(7, **kw, dtype_mm=dtype)

    def loss(v, model=model):
      logits, out = model.apply(v, image)
      return logits[:, 0].sum(), (logits, out["with_posemb"], out["encoded"])

    results.append(jax.jit(jax.grad(loss, has_aux=True))(variables))
    init = jax.eval_shape(model.init, jax.random.key(0), image)
    assert {x.dtype.name for x in jax.tree.leaves(init)} == {"float32"}
  (grads, (logits, embedded, encoded)), (exact_grads, (exact, *_)) = results
  assert logits.dtype == encoded.dtype == jnp.float32
  assert embedded.dtype == jnp.bfloat16
  assert 0 < np.abs(logits - exact).max() < 0.02 * np.abs(exact).max()
  assert {x.dtype.name for x in jax.tree.leaves(grads)} == {"float32"}
  flat = lambda tree: np.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
  error = np.linalg.norm(flat(grads) - flat(exact_grads))
  assert error < 0.03 * np.linalg.norm(flat(exact_grads))


def test_parameter_tree_of_s16():
  init = lambda **kw: jax.eval_shape(
    vit.Model(1000, variant="S/16", **kw).init,
    jax.random.key(0),
    jnp.zeros((1, 224, 224, 3)),
  )
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  tok = init(pool_type="tok")
  # timm's vit_small_patch16_224, without the class token's position; then also
  # without the class token and all positions.
  assert count(tok) == 22_050_664 - 384
  assert count(init(posemb="sincos2d")) == 22_050_664 - 384 * (1 + 197)

  shapes = _shapes(init(pool_type="map", rep_size=True))
  attention = {
    **{f"{n}/kernel": (384, 6, 64) for n in ("query", "key", "value")},
    **{f"{n}/bias": (6, 64) for n in ("query", "key", "value")},
    "out/kernel": (6, 64, 384),
    "out/bias": (384,),
  }
  attention = {
    f"MultiHeadDotProductAttention_0/{k}": v for k, v in attention.items()
  }
  mlp = {
    "MlpBlock_0/Dense_0/kernel": (384, 1536),
    "MlpBlock_0/Dense_0/bias": (1536,),
    "MlpBlock_0/Dense_1/kernel": (1536, 384),
    "MlpBlock_0/Dense_1/bias": (384,),
  }
  norm = lambda n: {f"{n}/scale": (384,), f"{n}/bias": (384,)}
  block = {**attention, **mlp, **norm("LayerNorm_0"), **norm("LayerNorm_1")}
  maphead = {**attention, **mlp, **norm("LayerNorm_0"), "probe": (1, 1, 384)}
  assert shapes == {
    "embedding/kernel": (16, 16, 3, 384),
    "embedding/bias": (384,),
    "pos_embedding": (1, 196, 384),
    **norm("Transformer/encoder_norm"),
    **{
      f"Transformer/encoderblock_{i}/{k}": v
      for i in range(12)
      for k, v in block.items()
    },
    **{f"MAPHead_0/{k}": v for k, v in maphead.items()},
    "pre_logits/kernel": (384, 384),
    "pre_logits/bias": (384,),
    "head/kernel": (384, 1000),
    "head/bias": (1000,),
  }
  assert _shapes(tok)["cls"] == (1, 1, 384)


def test_initialisers():
  model = vit.Model(50, width=128, depth=1, num_heads=2, pool_type="tok",
                    head_zeroinit=False, rep_size=64)  # fmt: skip
  init = jax.jit(model.init)
  params = init(jax.random.key(0), jnp.zeros((1, 256, 256, 3)))["params"]
  flat = traverse_util.flatten_dict(params, sep="/")
  block = "Transformer/encoderblock_0/"
  std = {
    "embedding/kernel": (3 * 16 * 16) ** -0.5,  # LeCun, truncated normal
    "pos_embedding": 128**-0.5,
    # Xavier, uniform, as matrices
    f"{block}MultiHeadDotProductAttention_0/query/kernel": 128**-0.5,
    f"{block}MultiHeadDotProductAttention_0/out/kernel": 128**-0.5,
    f"{block}MlpBlock_0/Dense_0/kernel": (2 / 640) ** 0.5,
    f"{block}MlpBlock_0/Dense_0/bias": 1e-6,
    "pre_logits/kernel": 128**-0.5,
    "head/kernel": 64**-0.5,
  }
  for name, expected in std.items():
    assert flat[name].std() == pytest.approx(expected, rel=0.1), name
  query = flat[f"{block}MultiHeadDotProductAttention_0/query/kernel"]
  assert np.abs(query).max() <= (6 / 256) ** 0.5
  for name in ("cls", "embedding/bias", "head/bias", "pre_logits/bias"):
    assert not flat[name].any()
  assert (flat[f"{block}LayerNorm_0/scale"] == 1).all()


def test_timms_initialisers():
  model = vit.Model(50, variant="DeiT-Ti/16", depth=1)
  image = jnp.zeros((1, 64, 64, 3))
  params = jax.jit(model.init)(jax.random.key(0), image)["params"]
  flat = traverse_util.flatten_dict(params, sep="/")
  for name, x in flat.items():
    std = 0.0
    if name == "cls":
      std = 1e-6
    elif name == "embedding/kernel":  # PyTorch's, uniform
      std = (3 * 3 * 16 * 16) ** -0.5
    elif name.endswith(("kernel", "embedding")):
      std = 0.02
    assert x.std() == pytest.approx(std, rel=0.15), name


def test_drop_path_drops_whole_branches_and_keeps_the_mean():
  assert common.drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
  image = np.broadcast_to(_image((1, 8, 8, 3)), (512, 8, 8, 3))
  model = vit.Model(
    5, **{**SMALL, "patch_size": 4}, drop_path=0.4, pool_type="gap"
  )
  variables = _randomised(model, image)

  @jax.jit
  def branches(key):
    out = model.apply(variables, image, train=True, rngs={"dropout": key})[1]
    first, last = (out["encoder"][f"block0{i}"] for i in (0, 1))
    return first["+mlp"], last

  first, last = jax.tree.map(np.asarray, branches(jax.random.key(0)))
  # The first block is never dropped, so copies of an image agree after it.
  np.testing.assert_allclose(first, first[:1].repeat(512, 0), atol=1e-5)
  added = last["+sa"] - first
  dropped = np.abs(added).max((1, 2)) == 0
  low, high = scipy.stats.binom.interval(1 - 1e-6, 512, 0.4)
  assert low <= dropped.sum() <= high
  np.testing.assert_allclose(
    added[~dropped], last["sa"][~dropped] / 0.6, rtol=1e-3, atol=1e-4
  )
  mlp_dropped = np.abs(last["+mlp"] - last["+sa"]).max((1, 2)) == 0
  assert (mlp_dropped != dropped).any()


def test_train_without_dropout_needs_no_key_and_dropout_draws():
  image = _image((2, 8, 8, 3))
  small = {**SMALL, "patch_size": 4}
  model = vit.Model(5, **small)
  variables = _randomised(model, image)
  apply = lambda model, **kw: jax.jit(functools.partial(model.apply, **kw))
  a, _ = apply(model, train=True)(variables, image)
  b, _ = apply(model)(variables, image)
  np.testing.assert_array_equal(a, b)
  dropout = apply(vit.Model(5, **small, dropout=0.5), train=True)
  c, d = (
    dropout(variables, image, rngs={"dropout": key})[0]
    for key in jax.random.split(jax.random.key(0))
  )
  assert np.abs(c - d).max() > 1e-3


def test_variants():
  assert vit.decode_variant("mu/8") == dict(
    width=32, depth=1, mlp_dim=128, num_heads=2, patch_size=8
  )
  assert vit.decode_variant("L")["depth"] == 24
  assert "patch_size" not in vit.decode_variant("L")
  assert vit.decode_variant(None) == {}
  deit = vit.decode_variant("DeiT-S/16")
  assert deit == {**vit.decode_variant("S/16"), **vit.DEIT}
  model = vit.Model(3, variant="B/32", depth=4)
  assert (model.width, model.depth, model.patch_size) == (768, 4, (32, 32))
  # Lists, as JSON has them, would make a module that jit can't hash.
  assert hash(vit.Model(3, patch_size=[8, 4])) == hash(
    vit.Model(3, patch_size=(8, 4))
  )


@pytest.mark.parametrize(
  ("kw", "message"),
  [
    (dict(variant="s/16"), "variant 's': did you mean"),
    (dict(variant="S/x"), "'S/x': the patch size .*'S/16'"),
    (dict(variant="S/0"), "'S/0': the patch size"),
    (dict(pool_typ="gap"), "'pool_typ': did you mean 'pool_type'"),
    (dict(pool_type="mean"), "pool_type 'mean'.*gap, map, tok"),
    (dict(posemb="sincos"), "'sincos': did you mean 'sincos2d'"),
    (dict(dtype_mm="bf16"), "dtype_mm 'bf16'.*bfloat16"),
    (dict(width=100, num_heads=3), "width=100 .* num_heads=3"),
    (dict(posemb_cls=True), "posemb_cls=True .* not .* pool_type='gap'"),
    (dict(weight_init="tim"), "weight_init 'tim': did you mean 'timm'"),
    (dict(dropout=1.0), r"dropout must be in \[0, 1\)"),
  ],
)
def test_bad_arguments_get_one_line(kw, message):
  with pytest.raises(ValueError, match=message) as e:
    models.get_model("vit", 10, **kw)
  assert "\n" not in str(e.value)


def test_bad_image_or_width_gets_one_line():
  with pytest.raises(ValueError, match=r"20x16 pixels .* 8x4"):
    vit.Model(3, **SMALL).init(jax.random.key(0), jnp.zeros((1, 20, 16, 3)))
  with pytest.raises(ValueError, match=r"multiple of 4 .* not 6"):
    vit.sincos2d(2, 2, 6)


def test_get_model(tmp_path, monkeypatch):
  (tmp_path / "my_models_x.py").write_text(
    "def Model(num_classes, *, depth=3):\n  return num_classes, depth\n"
  )
  (tmp_path / "my_broken_y.py").write_text("import not_installed_z\n")
  (tmp_path / "pkg_w").mkdir()
  (tmp_path / "pkg_w" / "net.py").write_text("from my_models_x import Model\n")
  (tmp_path / "pkg_w" / "broken.py").write_text("import my_broken_y\n")
  (tmp_path / "pkg_w" / "empty.py").write_text("")
  monkeypatch.syspath_prepend(tmp_path)

  assert models.get_model("vit", 10, variant="Ti/16").depth == 12
  assert models.get_model("pkg_w.net", 10, depth=5) == (10, 5)
  with pytest.raises(ValueError, match="'vitt': did you mean 'vit'"):
    models.get_model("vitt", 10)
  with pytest.raises(ValueError, match="'dept': did you mean 'depth'"):
    models.get_model("pkg_w.net", 10, dept=5)
  with pytest.raises(ValueError, match=r"no module 'pkg_w.nett'"):
    models.get_model("pkg_w.nett", 10)
  with pytest.raises(ValueError, match=r"'pkg_w.empty' has no Model"):
    models.get_model("pkg_w.empty", 10)
  with pytest.raises(ModuleNotFoundError, match="not_installed_z"):
    models.get_model("pkg_w.broken", 10)


@pytest.mark.long
def test_fused_attention_is_the_same_function(monkeypatch):
  """The path that GPUs take, with XLA's kernel in place of cuDNN's."""
  model = vit.Model(10, variant="mu/16", dtype_mm="bfloat16")
  image = jax.random.normal(jax.random.key(0), (4, 64, 64, 3))
  variables = model.init(jax.random.key(1), image)
  asked = []

  def attention(q, k, v, implementation):
    asked.append(implementation)
    return own(q, k, v)

  def loss(variables):
    _, out = model.apply(variables, image)
    return out["encoded"].sum(), out["encoded"]

  def run():
    again = lambda variables: loss(variables)  # new, so traced again
    return jax.jit(jax.value_and_grad(again, has_aux=True))(variables)

  (_, expected), gradient = run()
  own = jax.nn.dot_product_attention
  monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  again = model.init(jax.random.key(1), image)
  (_, found), other = run()
  assert set(asked) == {"cudnn"}
  trees = lambda *x: jax.tree.map(np.testing.assert_array_equal, *x)
  trees(variables, again)
  # bfloat16 has three digits.
  close = functools.partial(np.testing.assert_allclose, rtol=0.05, atol=0.05)
  close(expected, found)
  for one, two in zip(*map(jax.tree.leaves, (gradient, other)), strict=True):
    close(one, two, atol=0.05 * max(1.0, float(jnp.abs(one).max())))
