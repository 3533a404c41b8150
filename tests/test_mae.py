"""Masked autoencoding against a transcription in torch, and timm's layout."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_crop import config as configs
from big_crop import models, objectives, parts, step
from big_crop.objectives import masked_autoencoding
from big_crop.runtime import sharding
from big_crop.weights import torch_names

PATCH, RES, WIDTH, BATCH = 4, 16, 32, 16
DECODER = dict(width=16, depth=2, num_heads=4)


def config(**overrides):
  c = configs.default_config()
  c.objective_name = "masked_autoencoding"
  c.model = dict(variant=f"MAE-mu/{PATCH}", depth=2)
  c.objective = dict(decoder=DECODER)
  c.total_steps = 2
  c.input.data = dict(name="critters", split="train[:64]")
  c.input.pp = f"decode_jpeg_and_cropmix({RES}, permute=False)|vgg_value_range"
  c.input.batch_size = BATCH
  c.update(overrides)
  return c


def objective(**arguments):
  c = config()
  c.objective.update(arguments)
  return objectives.make(c, None)


def randomised(tree, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: np.float32(x + rng.normal(size=x.shape, scale=0.2)), tree
  )


def specs():
  return {"image": jax.ShapeDtypeStruct((RES, RES, 3), jnp.float32)}


def torch_mae(torch, state_dict):
  """MAE's forward pass (arXiv:2111.06377), of timm's blocks."""
  from timm.models.vision_transformer import Block

  norm = lambda width, **kw: torch.nn.LayerNorm(width, eps=1e-6, **kw)

  def sincos(width):
    frequency = 10_000 ** (-torch.arange(width // 4).double() / (width // 4))
    y, x = torch.meshgrid(*[torch.arange(RES // PATCH)] * 2, indexing="ij")
    angles = [p.reshape(-1, 1) * frequency for p in (x, y)]
    parts = [f(a) for a in angles for f in (torch.sin, torch.cos)]
    grid = torch.cat(parts, 1).float()
    return torch.cat([torch.zeros(1, width), grid])

  class Transcription(torch.nn.Module):
    def __init__(self):
      super().__init__()
      width, heads = DECODER["width"], DECODER["num_heads"]
      make = lambda *size: torch.nn.Parameter(torch.zeros(1, 1, *size))
      self.cls_token, self.mask_token = make(WIDTH), make(width)
      self.patch_embed = torch.nn.ModuleDict(
        {"proj": torch.nn.Conv2d(3, WIDTH, PATCH, PATCH)}
      )
      block = lambda *a: Block(*a, qkv_bias=True, norm_layer=norm)
      self.blocks = torch.nn.Sequential(*(block(WIDTH, 2) for _ in range(2)))
      self.norm = norm(WIDTH)
      self.decoder_embed = torch.nn.Linear(WIDTH, width)
      self.decoder_blocks = torch.nn.Sequential(
        *(block(width, heads) for _ in range(DECODER["depth"]))
      )
      self.decoder_norm = norm(width)
      self.decoder_pred = torch.nn.Linear(width, PATCH * PATCH * 3)

    def forward(self, image, noise, mask_ratio):
      x = self.patch_embed["proj"](image).flatten(2).mT + sincos(WIDTH)[1:]
      n, num, _ = x.shape
      order = noise.argsort(1)
      visible = order[:, : int(num * (1 - mask_ratio))]
      rows = torch.arange(n)[:, None]
      cls = self.cls_token.expand(n, 1, -1)
      x = self.norm(self.blocks(torch.cat([cls, x[rows, visible]], 1)))
      x = self.decoder_embed(x)
      full = self.mask_token.repeat(n, num, 1)
      full[rows, visible] = x[:, 1:]
      x = torch.cat([x[:, :1], full], 1) + sincos(DECODER["width"])
      x = self.decoder_norm(self.decoder_blocks(x))
      pixels = self.decoder_pred(x)[:, 1:]
      size = RES // PATCH
      wanted = image.reshape(n, 3, size, PATCH, size, PATCH)
      wanted = torch.einsum("nchpwq->nhwpqc", wanted).reshape(n, num, -1)
      mean, var = wanted.mean(-1, keepdim=True), wanted.var(-1, keepdim=True)
      error = (pixels - (wanted - mean) / (var + 1e-6) ** 0.5) ** 2
      mask = torch.ones(n, num)
      mask[rows, visible] = 0
      return (error.mean(-1) * mask).sum() / mask.sum(), pixels, mask

  model = Transcription()
  state = {k: torch.tensor(v) for k, v in state_dict.items()}
  model.load_state_dict(state)
  return model


@pytest.mark.parametrize(
  "mask_ratio", [0.75, pytest.param(0.4, marks=pytest.mark.slow)]
)
def test_loss_gradients_and_pixels_are_those_of_a_torch_transcription(
  mask_ratio,
):
  """To 1e-5 of the largest value of each array."""
  torch = pytest.importorskip("torch")
  pytest.importorskip("timm")
  o = objective(mask_ratio=mask_ratio)
  params = randomised(o.init(jax.random.key(0), specs())["params"])
  rng = np.random.default_rng(3)
  image = rng.normal(size=(5, RES, RES, 3)).astype(np.float32)
  batch = o.prepare({"image": image}, jax.random.key(1))

  def loss(params):
    return o.loss(params, {}, None, batch, jax.random.key(2))[0]

  value, grads = jax.jit(jax.value_and_grad(loss))(params)
  num = int((RES // PATCH) ** 2 * (1 - mask_ratio))
  pixels, mask = o.model.apply({"params": params}, image, batch["noise"], num)

  peer = torch_mae(torch, torch_names.to_torch(o.model, {"params": params}))
  noise = torch.tensor(np.array(batch["noise"]))
  channels_first = torch.tensor(image.transpose(0, 3, 1, 2))
  expected, expected_pixels, expected_mask = peer(
    channels_first, noise, mask_ratio
  )
  expected.backward()
  np.testing.assert_array_equal(mask, expected_mask)
  np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
  ours = torch_names.to_torch(o.model, {"params": jax.device_get(grads)})
  theirs = {k: p.grad.numpy() for k, p in peer.named_parameters()}
  assert ours.keys() == theirs.keys()
  largest = max(np.abs(g).max() for g in theirs.values())
  for name, grad in theirs.items():
    np.testing.assert_allclose(ours[name], grad, atol=1e-5 * largest)
  scale = expected_pixels.detach().abs().max().item()
  np.testing.assert_allclose(
    pixels, expected_pixels.detach(), atol=float(1e-5 * scale)
  )


@pytest.mark.parametrize("norm_pix", [True, False])
def test_reconstructions_hold_the_visible_pixels_and_the_loss(norm_pix):
  o = objective(norm_pix=norm_pix)
  variables = o.init(jax.random.key(0), specs())
  image = np.random.default_rng(0).normal(size=(6, RES, RES, 3))
  image = image.astype(np.float32)
  hidden, filled, loss = jax.device_get(
    o.reconstruct(variables, image, jax.random.key(5))
  )
  size = o.model.encoder.patch_size
  seen = np.asarray(masked_autoencoding.mae.patches(hidden, size))
  seen = (seen != 0).all(-1)
  np.testing.assert_array_equal(seen.sum(1), (RES // PATCH) ** 2 // 4)
  cut = lambda x: np.asarray(masked_autoencoding.mae.patches(x, size))
  np.testing.assert_allclose(cut(filled)[seen], cut(image)[seen], atol=1e-6)
  # In the picture the same errors, on the scale of each patch if normalised.
  spread = np.sqrt(cut(image).var(-1, ddof=1) + 1e-6) if norm_pix else 1
  error = np.square(cut(filled) - cut(image)).mean(-1) / spread**2
  expected = (error * ~seen).sum(1) / (~seen).sum(1)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_masks_are_uniform_and_differ_between_images_and_steps():
  """Each patch is hidden in 3 of 4; a false alarm has probability 1e-6."""
  o = objective()
  image = np.zeros((4000, RES, RES, 3), np.float32)
  first, second = (
    np.argsort(o.prepare({"image": image}, jax.random.key(k))["noise"], 1)
    for k in (0, 1)
  )
  num = (RES // PATCH) ** 2
  visible = np.zeros((2, num))
  for i, order in enumerate((first, second)):
    visible[i] = np.bincount(order[:, : num // 4].ravel(), minlength=num)
  sigma = math.sqrt(4000 * 0.25 * 0.75)
  assert np.abs(visible - 1000).max() < 5.6 * sigma
  assert (first != second).any(1).all()
  assert len(np.unique(first[:, : num // 4], axis=0)) > 3500


def test_the_encoder_computes_for_visible_patches_alone():
  """By XLA's count of ViT-B/16's operations at 224 pixels."""
  model = models.get_model("vit", 0, variant="MAE-B/16")
  image = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
  keep = jax.ShapeDtypeStruct((2, 49), jnp.int32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)

  def flops(*more):
    run = lambda variables, image, *keep: model.apply(
      variables, image, keep=keep[0] if keep else None
    )[0]
    lowered = jax.jit(run).lower(variables, image, *more)
    return lowered.cost_analysis()["flops"]

  assert 0.2 < flops(keep) / flops() <= 0.3


def finetuned(**kw):
  return models.get_model(
    "vit",
    7,
    variant=f"MAE-mu/{PATCH}",
    depth=2,
    **dict(pool_type="fc_norm", posemb="learn", posemb_cls=True) | kw,
  )


def test_finetuning_has_timms_logits_and_maes_positions():
  torch = pytest.importorskip("torch")
  timm = pytest.importorskip("timm")
  peer = timm.models.VisionTransformer(
    img_size=RES,
    patch_size=PATCH,
    embed_dim=WIDTH,
    depth=2,
    num_heads=2,
    num_classes=7,
    global_pool="avg",
  ).eval()
  with torch.no_grad():
    for p in peer.parameters():
      p.add_(torch.randn_like(p) * 0.2)
  model = finetuned()
  state = {k: v.numpy() for k, v in peer.state_dict().items()}
  variables = torch_names.from_torch(model, state)
  image = np.random.default_rng(0).normal(size=(3, RES, RES, 3))
  image = image.astype(np.float32)
  with torch.no_grad():
    expected = peer(torch.tensor(image.transpose(0, 3, 1, 2))).numpy()
  logits, _ = model.apply(variables, image)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
  back = torch_names.to_torch(model, variables)
  assert all((back[k] == v).all() for k, v in state.items())

  # What is pretrained with fixed positions is finetuned from them.
  shape = (1, RES, RES, 3)
  start = model.init(jax.random.key(0), np.zeros(shape))["params"]
  encoder = models.get_model("vit", 0, variant=f"MAE-mu/{PATCH}", depth=2)
  params = {k: v for k, v in start.items() if k != "pos_embedding"}
  params["Transformer"] = start["Transformer"] | {
    "encoder_norm": start["fc_norm"]
  }
  fixed = encoder.apply({"params": params}, image)[1]["with_posemb"]
  learnt = model.apply({"params": start}, image)[1]["with_posemb"]
  np.testing.assert_array_equal(fixed, learnt)


@pytest.mark.slow
def test_a_run_trains_and_its_encoder_is_a_start():
  """The loss with microbatches equals that computed by hand on one device."""
  rng = np.random.default_rng(0)
  image = rng.normal(size=(BATCH, RES, RES, 3)).astype(np.float32)
  made = parts.build(config(grad_accum=2))
  state = made.init()
  params = jax.device_get(state.params)
  prepared, _ = made.prepare({"image": image}, 0)
  expected, _ = made.objective.loss(
    params, {}, None, prepared, jax.random.key(0)
  )
  batch = sharding.make_global_batch({"image": image}, made.mesh)
  state, metrics = made.train_step(state, batch)
  np.testing.assert_allclose(metrics["training_loss"], expected, rtol=1e-5)
  params = jax.device_get(state.params)
  names = set(params) - {"decoder"}
  assert names <= {"cls", "embedding", "Transformer"}
  features, _ = made.objective.predict({"params": params}, image)
  encoder = models.get_model("vit", 0, **made.config.model)
  encoder_params = {k: params[k] for k in names}
  expected, _ = encoder.apply({"params": encoder_params}, image)
  np.testing.assert_array_equal(features, expected)
  assert step.param_shapes(made.objective, specs()).keys() == params.keys()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(objective=dict(mask_ratio=0.0)), "need a number between 0 and 1"),
    (dict(objective=dict(mask_ratio=1.0)), "need a number between 0 and 1"),
    (dict(objective=dict(mask_ratio=0.99)), "of 16 patches it leaves 0"),
    (dict(objective=dict(mask=0.5)), "did you mean 'mask_ratio'"),
    (dict(objective=dict(decoder=dict(width=10))), "multiple of num_heads=16"),
    (dict(objective=dict(decoder=dict(heads=2))), "did you mean 'num_heads'"),
    (dict(model=dict(variant="mu/4", pool_type="gap")), "a class token"),
    (dict(model_name="resnet", model=dict(variant="10")), "the model 'vit'"),
  ],
)
def test_mistakes_are_one_line(change, message):
  c = config()
  c.objective, c.model = {}, {} if "model_name" in change else c.model
  c.update(change)
  with pytest.raises(ValueError, match=message) as e:
    parts.build(c)
  assert "\n" not in str(e.value)
