"""Swin against timm and torchvision; CIFAR's ViTs against transcriptions."""

import jax
import numpy as np
import pytest
from model_helpers import (
  apply,
  check_interface,
  check_logits,
  check_size,
  close,
  images,
)

from big_crop import models, weights


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "variant", "size", "count"),
  [
    ("swin", "T", 224, 28_288_354),
    ("swin", "cifar", 32, 27_359_956),
    ("small_vit", None, 32, 10_130_382),
  ],
)
def test_the_size_is_the_originals(name, variant, size, count):
  kw = {"variant": variant} if variant else {}
  check_size(name, size, count, **kw)


def test_timm_and_torchvision():
  """Shifted windows in the first stage, a single one in the second."""
  timm = pytest.importorskip("timm.models.swin_transformer")
  torchvision = pytest.importorskip("torchvision.models.swin_transformer")
  kw = dict(depths=(2, 2), num_heads=(1, 2))
  model = models.get_model("swin", 10, width=8, patch_size=2, window=4, **kw)
  check_interface(model, 16, 4)
  image = images(16, batch=3)
  reference = timm.SwinTransformer(
    img_size=16, patch_size=2, window_size=4, embed_dim=8, num_classes=10, **kw
  )
  check_logits(reference, model, image)
  reference = torchvision.SwinTransformer(
    [2, 2], 8, kw["depths"], kw["num_heads"], [4, 4], num_classes=10
  )
  check_logits(reference, model, image, weights.from_torchvision)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["timm", "torchvision", "timm, 32 pixels"])
def test_swin_tiny(library):
  library, _, small = library.partition(",")
  module = pytest.importorskip(f"{library}.models.swin_transformer")
  kw, size = {"variant": "T"}, 224
  if small:
    kw, size = kw | dict(patch_size=2, window=4), 32
    reference = module.SwinTransformer(32, 2, num_classes=10, window_size=4)
  elif library == "timm":
    reference = module.swin_tiny_patch4_window7_224(num_classes=10)
  else:
    reference = module.swin_t(num_classes=10)
  model = models.get_model("swin", 10, **kw)
  convert = getattr(weights, f"from_{library}")
  check_logits(reference, model, images(size, batch=2), convert)


def _random(model, image):
  """Variables of which none is at its initial value."""
  rng = np.random.default_rng(1)

  def draw(path, s):
    scale = 0.3
    if path[-1].key == "kernel":
      scale = s.shape[0] ** -0.5
    mean = 1.0 if path[-1].key == "scale" else 0.0
    return rng.normal(mean, scale, s.shape).astype(np.float32)

  init = jax.eval_shape(model.init, jax.random.key(0), image)
  return jax.tree_util.tree_map_with_path(draw, init)


def _layers(params):
  """torch's linear, layer norm and MLP with the parameters at a path."""
  torch = pytest.importorskip("torch")
  f = torch.nn.functional

  def get(path):
    x = params
    for key in path.split("/"):
      x = x.get(key)
      if x is None:
        return None
    return torch.from_numpy(np.array(x))

  linear = lambda x, path: f.linear(
    x, get(f"{path}/kernel").T, get(f"{path}/bias")
  )
  norm = lambda x, path: f.layer_norm(
    x, x.shape[-1:], get(f"{path}/scale"), get(f"{path}/bias")
  )
  mlp = lambda x, path: linear(
    f.gelu(linear(x, f"{path}/Dense_0")), f"{path}/Dense_1"
  )
  return torch, get, linear, norm, mlp


@pytest.mark.parametrize(
  "shifts", ["one_pixel", pytest.param("half_patch", marks=pytest.mark.slow)]
)
def test_small_vit(shifts):
  """Against a transcription of Lee et al.'s and lucidrains' modules."""
  model = models.get_model(
    "small_vit", 7, width=12, depth=2, num_heads=2, head_dim=5, mlp_dim=9,
    shifts=shifts,
  )  # fmt: skip
  check_interface(model, 12, None)
  image = images(12, batch=3)
  variables = _random(model, image)
  logits = apply(model, variables, image)[0][0]

  torch, get, linear, norm, mlp = _layers(variables["params"])
  pad = torch.nn.functional.pad
  x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
  if shifts == "one_pixel":
    by = ((1, -1, 0, 0), (-1, 1, 0, 0), (0, 0, 1, -1), (0, 0, -1, 1))
  else:
    by = ((2, -2, 2, -2), (-2, 2, 2, -2), (2, -2, -2, 2), (-2, 2, -2, 2))
  x = torch.cat([x, *(pad(x, b) for b in by)], 1)
  x = x.unfold(2, 4, 4).unfold(3, 4, 4)  # [B, 15, 3, 3, 4, 4]
  x = x.permute(0, 2, 3, 4, 5, 1).reshape(3, 9, 240)
  x = linear(norm(x, "patch_norm"), "embedding")
  x = torch.cat([get("cls").expand(3, 1, 12), x], 1) + get("pos_embedding")
  for i in range(2):
    y = linear(norm(x, f"layers_{i}/norm1"), f"layers_{i}/attn/qkv")
    q, k, v = (
      t.reshape(3, 10, 2, 5).transpose(1, 2) for t in y.chunk(3, dim=-1)
    )
    dots = q @ k.transpose(-1, -2) * get(f"layers_{i}/attn/temperature").exp()
    dots = dots.masked_fill(torch.eye(10, dtype=bool), -3e38)
    y = (dots.softmax(-1) @ v).transpose(1, 2).reshape(3, 10, 10)
    x = x + linear(y, f"layers_{i}/attn/out")
    x = x + mlp(norm(x, f"layers_{i}/norm2"), f"layers_{i}/mlp")
  expected = linear(norm(x[:, 0], "norm"), "head").numpy()
  close(logits, expected, 1e-5)

  back = weights.from_torch(model, weights.to_torch(model, variables))
  jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_swin_for_cifar():
  """Against a transcription of berniwal's, its windows one after another."""
  model = models.get_model(
    "swin", 7, variant="cifar", width=6, depths=(2, 2), num_heads=(1, 2),
    merges=(2,),
  )  # fmt: skip
  check_interface(model, 16, 4)
  image = images(16, batch=2)
  variables = _random(model, image)
  assert "patch_norm" not in variables["params"]
  logits = apply(model, variables, image)[0][0]

  torch, get, linear, norm, mlp = _layers(variables["params"])
  kernel = get("patch_embed/kernel").permute(3, 2, 0, 1)
  x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
  x = torch.nn.functional.conv2d(x, kernel, get("patch_embed/bias"), stride=2)
  x = x.permute(0, 2, 3, 1)
  place = [(i // 4, i % 4) for i in range(16)]
  for stage, (n, heads) in enumerate(((8, 1), (4, 2))):
    if stage:
      quarters = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
      x = linear(torch.cat(quarters, -1), "downsample_1")
    for j in range(2):
      block = f"layers_{stage}_{j}"
      y = norm(x, f"{block}/norm1")
      y = torch.roll(y, (-2 * j, -2 * j), (1, 2))
      table = get(f"{block}/attn/relative_position_bias_table")
      bias = torch.stack([
        torch.stack([table[(a - c + 3) * 7 + b - d + 3, 0] for c, d in place])
        for a, b in place
      ])  # fmt: skip
      y = linear(y, f"{block}/attn/qkv")
      z = torch.zeros(*x.shape)
      for top in range(0, n, 4):
        for left in range(0, n, 4):
          window = np.s_[:, top : top + 4, left : left + 4]
          q, k, v = (
            t.reshape(2, 16, heads, -1).transpose(1, 2)
            for t in y[window].chunk(3, dim=-1)
          )
          dots = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
          # The last rows and columns were shifted in from the other side.
          far = torch.tensor([
            [j and top == n - 4 and a > 1, j and left == n - 4 and b > 1]
            for a, b in place
          ])  # fmt: skip
          apart = (far[:, None] != far[None]).any(-1)
          dots = dots.masked_fill(apart, -torch.inf)
          w = (dots.softmax(-1) @ v).transpose(1, 2)
          z[window] = w.reshape(2, 4, 4, -1)
      z = torch.roll(linear(z, f"{block}/attn/proj"), (2 * j, 2 * j), (1, 2))
      x = x + z
      x = x + mlp(norm(x, f"{block}/norm2"), f"{block}/mlp")
  expected = linear(norm(x.mean((1, 2)), "norm"), "head").numpy()
  close(logits, expected, 1e-5)


@pytest.mark.parametrize(
  ("name", "size", "message"),
  [
    ("swin", 40, "40x40 pixels give stage 1 a grid of 10x10, .* of 7x7"),
    ("swin", 36, "9x9 patches can't be merged 2x2"),
    ("small_vit", 30, "30x30 pixels can't be cut into patches of 4x4"),
  ],
)
def test_images_that_do_not_fit_get_one_line(name, size, message):
  model = models.get_model(name, 10)
  if size == 36:
    model = model.clone(window=9)
  with pytest.raises(ValueError, match=message) as e:
    jax.eval_shape(model.init, jax.random.key(0), images(size))
  assert "\n" not in str(e.value)
