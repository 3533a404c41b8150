"""Weights of torchvision and timm give their logits; without them, NumPy's.

The peers' tests are skipped where torch, torchvision or timm is missing.
"""

import argparse
import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_helpers import (
  check_size,
  check_training,
  close,
  images,
  randomise,
  shapes,
  state_dict,
  to_torch,
)

from big_crop import models, weights
from big_crop.models import resnet
from big_crop.weights import torch_files


def _timm(name, **kw):
  return pytest.importorskip("timm").create_model(name, num_classes=10, **kw)


def _torchvision(name, layers=None):
  models = pytest.importorskip("torchvision").models
  if not layers:
    return getattr(models, name)(num_classes=10)
  block = "BasicBlock" if name == "resnet18" else "Bottleneck"
  block = getattr(models.resnet, block)
  return models.resnet.ResNet(block, layers, num_classes=10)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("variant", "count"),  # timm's
  [
    ("DeiT-Ti/16", 5_717_416),
    ("DeiT-S/16", 22_050_664),
    ("DeiT-B/16", 86_567_656),
  ],
)
def test_deits_sizes(variant, count):
  check_size("vit", 224, count, variant=variant)


RESNETS = [
  (_torchvision, "resnet18", "18", 64),
  (_torchvision, "resnet50", "50", 64),
  (_timm, "seresnet50", "se50", 64),
  (_timm, "resnet50d", "50d", 72),  # odd sizes before the pooling
  (_timm, "resnext50_32x4d", "x50_32x4d", 64),
]
DEEPER = [  # the blocks of 50, more of them
  (_torchvision, "resnet152", "152", 64),
  (_timm, "resnet200", "200", 64),
]
DEEP = [
  *(pytest.param(*args, None, marks=pytest.mark.slow) for args in RESNETS),
  *(pytest.param(*args, None, marks=pytest.mark.slow) for args in DEEPER),
]


def _loaded(create, reference, variant, size):
  """The model and the reference's weights in it."""
  convert = weights.from_timm
  if create is _torchvision:
    convert = weights.from_torchvision
  model = models.get_model("resnet", 10, variant=variant)
  variables = convert(state_dict(reference))
  init = jax.eval_shape(model.init, jax.random.key(0), images(size))
  assert shapes(variables) == jax.tree.map(lambda x: x.shape, init)
  return model, variables


@pytest.mark.parametrize("args", RESNETS, ids=lambda args: args[1])
@pytest.mark.first(2)
def test_resnets_have_the_names_and_shapes_of_their_peers(args):
  create, name, variant, size = args
  _loaded(create, create(name), variant, size)


@pytest.mark.parametrize(
  ("create", "name", "variant", "size", "layers"),
  # Few blocks, but a second one in a stage, because its shortcut differs.
  [*((*args, (1, 2, 1, 1)) for args in RESNETS), *DEEP],
)
@pytest.mark.first(1)
def test_resnet_logits_and_running_statistics(
  create, name, variant, size, layers, monkeypatch
):
  torch = pytest.importorskip("torch")
  if layers:
    plain = models.get_model("resnet", 1, variant=variant).variant
    own = layers, resnet.VARIANTS[str(plain)][1]
    monkeypatch.setitem(resnet.VARIANTS, str(plain), own)
  reference = create(name, **({"layers": layers} if layers else {}))
  reference = randomise(reference)
  model, variables = _loaded(create, reference, variant, size)
  batches = [images(size, seed=seed) for seed in range(3)]

  with torch.no_grad():
    expected = reference.eval()(to_torch(batches[0])).numpy()
  close(jax.jit(model.apply)(variables, batches[0])[0], expected, 1e-4)

  # The deepest models amplify rounding the most.
  deep = 10 if name in ("resnet152", "resnet200") else 1
  check_training(reference, model, variables, batches, deep)


@pytest.mark.parametrize("depth", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_deit_logits(depth):
  torch = pytest.importorskip("torch")
  reference = randomise(_timm("deit_small_patch16_224", depth=depth)).eval()
  small = functools.partial(models.get_model, "vit", 10, variant="DeiT-S/16")
  model = small(depth=depth)
  variables = weights.from_timm(state_dict(reference))
  image = images(224, batch=2)
  init = jax.eval_shape(model.init, jax.random.key(0), image)
  assert shapes(variables) == jax.tree.map(lambda x: x.shape, init)
  with torch.no_grad():
    expected = reference(to_torch(image)).numpy()
  apply = jax.jit(model.apply)
  close(apply(variables, image)[0], expected, 1e-4)

  # To a model whose class token has no position of its own, and back.
  plain = small(depth=depth, posemb_cls=False)
  of_plain = jax.eval_shape(plain.init, jax.random.key(0), image)["params"]
  folded = weights.adapt(variables["params"], of_plain)
  logits = jax.jit(plain.apply)({"params": folded}, image)[0]
  close(logits, expected, 1e-4)
  unfolded = weights.adapt(folded, init["params"])
  assert not unfolded["pos_embedding"][:, 0].any()
  close(apply({"params": unfolded}, image)[0], expected, 1e-4)


def test_other_deits_heads():
  """The other sizes differ in the number of heads; on a small image."""
  torch = pytest.importorskip("torch")
  for size in ("tiny", "base"):
    reference = randomise(
      _timm(f"deit_{size}_patch16_224", img_size=32, depth=1)
    ).eval()
    variant = {"tiny": "DeiT-Ti/16", "base": "DeiT-B/16"}[size]
    model = models.get_model("vit", 10, variant=variant, depth=1)
    variables = weights.from_timm(state_dict(reference))
    image = images(32)
    with torch.no_grad():
      expected = reference(to_torch(image)).numpy()
    close(jax.jit(model.apply)(variables, image)[0], expected, 1e-4)


@pytest.mark.parametrize(
  ("name", "timms", "kw"),
  [
    (
      "vit",
      "deit_tiny_patch16_224",
      dict(variant="DeiT-Ti/16", img_size=32, depth=1),
    ),
    *(
      pytest.param(name, timms, dict(variant=variant), marks=pytest.mark.slow)
      for name, timms, variant in (
        ("repvgg", "repvgg_a2", "A2"),
        ("convnext", "convnext_tiny", "T"),
        ("swin", "swin_tiny_patch4_window7_224", "T"),
        ("efficientnet", "efficientnet_b0", "B0"),
      )
    ),
    pytest.param(
      "regnet",
      "regnety_040",
      dict(variant="Y-4GF", zero_init_last=True),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_timms_initial_distributions(name, timms, kw):
  variant, size = kw.pop("variant"), kw.get("img_size", 224)
  theirs = weights.from_timm(state_dict(_timm(timms, **kw)))["params"]
  kw.pop("img_size", None)
  model = models.get_model(name, 10, variant=variant, **kw)
  init = jax.jit(model.init)(jax.random.key(0), images(size, 1))["params"]
  for (path, a), b in zip(
    jax.tree.leaves_with_path(init), jax.tree.leaves(theirs), strict=True
  ):
    if path[0].key == "embedding" and path[1].key == "bias":
      assert not a.any()  # PyTorch's small uniform ones
      continue
    if np.ptp(b) == 0:
      np.testing.assert_array_equal(a, b, err_msg=path)
      continue
    # One in 2^24 of PyTorch's truncated normals is at the limit, 2, which is a
    # hundred standard deviations: erfinv(1) is infinite and then clipped.
    b = b[np.abs(b) < 2]
    # Six standard errors of the difference of two means.
    atol = 6 * b.std() * (2 / b.size) ** 0.5
    np.testing.assert_allclose(a.mean(), b.mean(), atol=atol, err_msg=path)
    rtol = max(0.03, 6 * b.size**-0.5)
    np.testing.assert_allclose(a.std(), b.std(), rtol=rtol, err_msg=path)


def _torch_names(seed=0):
  """A state dict like that of a ResNet-D with SE blocks, and its tree."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  norm = ("weight", "bias", "running_mean", "running_var")
  return {
    "conv1.0.weight": draw(4, 3, 3, 3),
    **{f"conv1.1.{name}": draw(4) for name in norm},
    "conv1.1.num_batches_tracked": np.int64(3),
    "conv1.6.weight": draw(8, 4, 3, 3),
    "layer1.10.conv2.weight": draw(8, 2, 3, 3),
    "layer2.0.se.fc1.weight": draw(2, 8, 1, 1),
    "layer2.0.se.fc1.bias": draw(2),
    "layer2.0.downsample.1.weight": draw(16, 8, 1, 1),
    "layer2.0.downsample.2.weight": draw(16),
    "fc.weight": draw(5, 16),
    "fc.bias": draw(5),
  }


def test_names_and_layouts():
  state = _torch_names()
  loaded = weights.from_timm(state)
  params, stats = loaded["params"], loaded["batch_stats"]
  assert set(params) == {
    "stem_conv1", "stem_bn1", "conv1", "layer1_10", "layer2_0", "head"
  }  # fmt: skip
  assert set(stats) == {"stem_bn1"}
  kernel = params["layer1_10"]["conv2"]["kernel"]
  assert kernel.shape == (3, 3, 2, 8)
  assert kernel[2, 1, 0, 5] == state["layer1.10.conv2.weight"][5, 0, 2, 1]
  np.testing.assert_array_equal(
    params["layer2_0"]["se"]["fc1"]["kernel"],
    state["layer2.0.se.fc1.weight"][:, :, 0, 0].T,
  )
  assert params["layer2_0"]["downsample_conv"]["kernel"].shape == (1, 1, 8, 16)
  assert params["layer2_0"]["downsample_bn"]["scale"].shape == (16,)
  np.testing.assert_array_equal(
    stats["stem_bn1"]["var"], state["conv1.1.running_var"]
  )


def test_qkv_is_taken_apart():
  width, heads = 6, 3
  rng = np.random.default_rng(0)
  weight, bias = rng.normal(size=(3 * width, width)), rng.normal(size=18)
  loaded = weights.from_timm(
    {
      "patch_embed.proj.weight": np.ones((width, 3, 4, 4)),
      "blocks.11.attn.qkv.weight": weight,
      "blocks.11.attn.qkv.bias": bias,
      "blocks.11.attn.proj.weight": weight[:width],
    },
    head_dim=2,
  )["params"]["Transformer"]["encoderblock_11"][
    "MultiHeadDotProductAttention_0"
  ]
  x = rng.normal(size=(5, width))
  # timm's order: query, key and value, then heads, then a head's channels.
  q, k, v = (x @ weight.T + bias).reshape(5, 3, heads, 2).transpose(1, 0, 2, 3)
  for name, expected in dict(query=q, key=k, value=v).items():
    y = np.einsum("td,dnh->tnh", x, loaded[name]["kernel"])
    np.testing.assert_allclose(y + loaded[name]["bias"], expected, atol=1e-12)
  joined = np.einsum("tnh,nhd->td", v, loaded["out"]["kernel"])
  np.testing.assert_allclose(joined, v.reshape(5, -1) @ weight[:width].T)


@pytest.mark.parametrize("heads", [1, 3])
def test_to_torch_is_the_inverse(heads):
  """The model, not the file, determines the number of heads."""
  rng = np.random.default_rng(0)
  vit = models.get_model("vit", 5, width=6, num_heads=heads, patch_size=4)
  state = {
    "cls_token": rng.normal(size=(1, 1, 6)),
    "pos_embed": rng.normal(size=(1, 3, 6)),
    "patch_embed.proj.weight": rng.normal(size=(6, 3, 4, 4)),
    "patch_embed.proj.bias": rng.normal(size=6),
    "blocks.10.norm1.weight": rng.normal(size=6),
    "blocks.10.attn.qkv.weight": rng.normal(size=(18, 6)),
    "blocks.10.attn.qkv.bias": rng.normal(size=18),
    "blocks.10.attn.proj.weight": rng.normal(size=(6, 6)),
    "blocks.10.attn.proj.bias": rng.normal(size=6),
    "blocks.2.mlp.fc1.weight": rng.normal(size=(8, 6)),
    "head.bias": rng.normal(size=5),
  }
  loaded = weights.from_torch(vit, state)
  attention = loaded["params"]["Transformer"]["encoderblock_10"][
    "MultiHeadDotProductAttention_0"
  ]
  assert attention["value"]["kernel"].shape == (6, heads, 6 // heads)
  assert attention["out"]["kernel"].shape == (heads, 6 // heads, 6)
  resnet = models.get_model("resnet", 5, deep_stem=True, avg_down=True)
  for model, expected in ((vit, state), (resnet, _torch_names())):
    expected.pop("conv1.1.num_batches_tracked", None)
    got = weights.to_torch(model, weights.from_torch(model, expected))
    assert set(got) == set(expected)
    for name, value in expected.items():
      np.testing.assert_array_equal(got[name], value, err_msg=name)
  with pytest.raises(ValueError, match="'params/cls' has no name in PyTorch"):
    weights.to_torch(resnet, {"params": {"cls": np.ones(1)}})


def test_the_model_says_which_names_it_has():
  """A ResNet rejects a ResNet-D's weights, and a ViT wrong numbers of heads."""
  plain = models.get_model("resnet", 5)
  with pytest.raises(
    ValueError, match=r"'conv1\.0\.weight' is not .* this ResNet"
  ):
    weights.from_torch(plain, _torch_names())
  vit = models.get_model("vit", 5, width=8, num_heads=4)
  state = {"blocks.0.attn.qkv.bias": np.ones(18)}
  with pytest.raises(ValueError, match=r"\(18,\) .* among 3 x 4 heads") as e:
    weights.from_torch(vit, state)
  assert "\n" not in str(e.value)
  with pytest.raises(ValueError, match=r"Dense .* torch_layers\(\)"):
    weights.from_torch(nn.Dense(3), state)


@pytest.mark.parametrize("kind", ["npz", "safetensors", "pth"])
def test_files(tmp_path, kind):
  state, path = _torch_names(), tmp_path / f"weights.{kind}"
  if kind == "npz":
    np.savez(path, **state)
  elif kind == "safetensors":
    pytest.importorskip("safetensors.numpy").save_file(
      {k: np.asarray(v) for k, v in state.items()}, path
    )
  else:
    torch = pytest.importorskip("torch")
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
    torch.save({"state_dict": tensors, "epoch": 3}, path)
  jax.tree.map(
    np.testing.assert_array_equal,
    weights.from_timm(str(path)),
    weights.from_timm(state),
  )


@pytest.mark.parametrize(
  ("state", "message"),
  [
    ({"features.0.weight": np.ones(1)}, "'features.0.weight' is not a param"),
    ({"layer1.0.conv4.weight": np.ones(1)}, "'layer1.0.conv4.weight' is not"),
    ({"conv1.bias": np.ones(1)}, "'conv1.bias' is not a parameter of a timm R"),
    (
      {"patch_embed.proj.weight": np.ones((4, 3, 2, 2)), "dist_token": 1},
      "'dist_token' is not a parameter of a timm ViT",
    ),
    (
      {
        "patch_embed.proj.weight": np.ones((4, 3, 2, 2)),
        "blocks.0.attn.qkv.weight": np.ones((12, 4)),
      },
      "'blocks.0.attn.qkv.weight' has 4 outputs .* set head_dim",
    ),
    ("nothing.pth", "No file nothing.pth"),
    ("weights.h5", r"weights.h5: weights are in .npz, .safetensors"),
  ],
)
def test_mistakes_get_one_line(state, message):
  with pytest.raises(ValueError, match=message) as e:
    weights.from_timm(state)
  assert "\n" not in str(e.value)


def test_broken_files_get_one_line(tmp_path):
  for name in ("x.pth", "x.npz"):
    if name == "x.pth":
      pytest.importorskip("torch")
    (tmp_path / name).write_text("no weights")
    with pytest.raises(ValueError, match=rf"{name} can't be read") as e:
      torch_files.load(tmp_path / name)
    assert "\n" not in str(e.value)


def test_timms_training_checkpoints(tmp_path):
  """Files by timm's own saver, with the arguments of its train.py inside."""
  torch = pytest.importorskip("torch")
  timm_utils = pytest.importorskip("timm.utils")
  model = torch.nn.Sequential(torch.nn.Linear(3, 4))
  randomise(model, 0)
  ema = timm_utils.ModelEmaV2(model, decay=0.9)
  saved = state_dict(model)
  averages = state_dict(ema.module)
  randomise(model, 1)
  for average in (None, ema):
    saver = timm_utils.CheckpointSaver(
      model, torch.optim.SGD(model.parameters(), 0.1), model_ema=average,
      args=argparse.Namespace(model="x", lr=0.1, mean=(0.5, 0.5)),
      checkpoint_dir=tmp_path, recovery_dir=tmp_path,
    )  # fmt: skip
    saver.save_checkpoint(epoch=0, metric=1.0)
    loaded = torch_files.load(tmp_path / "last.pth.tar")
    expected = averages if average else state_dict(model)
    assert loaded.keys() == saved.keys()
    for key, value in loaded.items():
      np.testing.assert_array_equal(value, expected[key])
  torch.save({"state_dict": {}, "args": pathlib.Path("x")}, tmp_path / "y.pth")
  with pytest.raises(ValueError, match=r"holds other Python objects"):
    torch_files.load(tmp_path / "y.pth")


def test_another_model_gets_one_line():
  """`adapt` finds the weights that do not fit."""
  state = _torch_names()
  loaded = weights.from_timm(state)
  model = models.get_model("resnet", 5, variant=18, width=8)
  image = jnp.zeros((1, 32, 32, 3))
  init = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  with pytest.raises(ValueError, match=r"'.*' has shape .* more like it") as e:
    weights.adapt(loaded["params"], init)
  assert "\n" not in str(e.value)


def test_averages_are_timms():
  """The rule of `step.make_train_step`, parameters and statistics alike."""
  torch = pytest.importorskip("torch")
  ema = pytest.importorskip("timm.utils.model_ema")
  model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
  theirs = ema.ModelEmaV2(model, decay=0.9)
  ours = state_dict(model)
  for seed in range(5):
    randomise(model, seed)
    theirs.update(model)
    ours = optax.incremental_update(state_dict(model), ours, 1 - 0.9)
  for name, x in state_dict(theirs.module).items():
    np.testing.assert_allclose(ours[name], x, rtol=1e-6, atol=1e-7)
