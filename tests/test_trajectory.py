"""Twenty AdamW steps of a ViT against a PyTorch transcription of big_vision's.

The model, the loss, clipping, AdamW with its decay times the schedule, and the
schedule itself are written out here once more, from the papers, with
PyTorch's autograd in place of JAX's.
"""

import math

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from objective_helpers import classify, specs

from big_crop import models, optim, step, trees
from big_crop.runtime import sharding

torch = pytest.importorskip("torch")

STEPS, WARMUP, LR, WD, CLIP = 20, 5, 1e-3, 1e-4, 1.0
CLASSES = 10
SMALL = dict(width=64, depth=2, num_heads=4, patch_size=8)


def norm(x, p):
  return torch.nn.functional.layer_norm(
    x, x.shape[-1:], p["scale"], p["bias"], eps=1e-6
  )


def attention(x, p):
  # [d, N, H] as [d, d], heads split after the product.
  d, heads = x.shape[-1], p["query"]["bias"].shape[0]

  def split(name):
    y = x @ p[name]["kernel"].reshape(d, d) + p[name]["bias"].reshape(d)
    return y.unflatten(-1, (heads, -1)).transpose(1, 2)

  y = torch.nn.functional.scaled_dot_product_attention(
    split("query"), split("key"), split("value")
  )
  y = y.transpose(1, 2).flatten(2)
  return y @ p["out"]["kernel"].reshape(d, d) + p["out"]["bias"]


def mlp(x, p):
  dense = lambda x, p: x @ p["kernel"] + p["bias"]
  x = torch.nn.functional.gelu(dense(x, p["Dense_0"]), approximate="tanh")
  return dense(x, p["Dense_1"])


def sincos2d(h, w, width):
  omega = 10_000 ** -(torch.arange(width // 4) / (width // 4 - 1))
  y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
  y, x = y.reshape(-1, 1) * omega, x.reshape(-1, 1) * omega
  return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], 1)


def forward(p, image, patch):
  """[B, H, W, 3] -> logits, with the pooling that the parameters imply."""
  kernel = p["embedding"]["kernel"].permute(3, 2, 0, 1)
  x = torch.nn.functional.conv2d(
    image.permute(0, 3, 1, 2), kernel, p["embedding"]["bias"], stride=patch
  )
  h, w = x.shape[2:]
  x = x.flatten(2).transpose(1, 2)
  x = x + p.get("pos_embedding", sincos2d(h, w, x.shape[-1]))
  if "cls" in p:
    x = torch.cat([p["cls"].expand(len(x), -1, -1), x], 1)
  for i in range(len(p["Transformer"]) - 1):
    b = p["Transformer"][f"encoderblock_{i}"]
    attend = b["MultiHeadDotProductAttention_0"]
    x = x + attention(norm(x, b["LayerNorm_0"]), attend)
    x = x + mlp(norm(x, b["LayerNorm_1"]), b["MlpBlock_0"])
  x = norm(x, p["Transformer"]["encoder_norm"])
  x = x[:, 0] if "cls" in p else x.mean(1)
  if "pre_logits" in p:
    x = torch.tanh(x @ p["pre_logits"]["kernel"] + p["pre_logits"]["bias"])
  return x @ p["head"]["kernel"] + p["head"]["bias"]


def torch_losses(params, data, patch, mu_dtype):
  leaves = {
    name: torch.tensor(np.asarray(x), requires_grad=True)
    for name, x in trees.named_leaves(params)
  }
  tree = trees.map_with_names(lambda name, _: leaves[name], params)
  mu = {name: torch.zeros_like(x) for name, x in leaves.items()}
  nu = {name: torch.zeros_like(x) for name, x in leaves.items()}
  losses = []
  for t, batch in enumerate(data):
    logits = forward(tree, torch.tensor(batch["image"]), patch)
    log_p = torch.log_softmax(logits, -1)
    loss = -(torch.tensor(batch["labels"]) * log_p).sum(-1).mean()
    losses.append(float(loss.detach()))
    grads = torch.autograd.grad(loss, list(leaves.values()))
    total = torch.sqrt(sum((g**2).sum() for g in grads))
    progress = (t - WARMUP) / (STEPS - WARMUP)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    factor = t / WARMUP if t < WARMUP else cosine
    with torch.no_grad():
      for (name, x), g in zip(leaves.items(), grads, strict=True):
        g = g * min(1, CLIP / total)
        # As in JAX, where a number gets the dtype of the array it multiplies.
        b1 = torch.tensor(0.9, dtype=mu_dtype)
        mean = (b1 * mu[name]).float() + 0.1 * g
        mu[name] = mean.to(mu_dtype)
        nu[name] = 0.999 * nu[name] + 0.001 * g**2
        u = mean / (1 - 0.9 ** (t + 1))
        u = u / (torch.sqrt(nu[name] / (1 - 0.999 ** (t + 1))) + 1e-8)
        decay = WD if name.endswith("kernel") else 0
        x -= factor * (LR * u + decay * x)
  return losses


def our_losses(model, params, data, mu_dtype):
  config = ConfigDict(
    dict(
      lr=LR,
      wd=WD,
      grad_clip_norm=CLIP,
      optax_name="scale_by_adam",
      optax=dict(mu_dtype=mu_dtype),
      schedule=dict(decay_type="cosine", warmup_steps=WARMUP),
    )
  )
  tx, _ = optim.make(
    config, params, total_steps=STEPS, batch_size=1, data_size=1
  )
  mesh = sharding.make_mesh([("data", -1)])
  shape = data[0]["image"].shape[1:]
  objective = classify(model, CLASSES)
  args = (objective, tx, mesh, [(".*", "replicate")], specs(*shape))
  state = step.init_state(*args, seed=0)
  sharded = jax.tree.map(
    lambda x, like: jax.device_put(x, like.sharding), params, state.params
  )
  state = state.replace(params=sharded)
  train_step = step.make_train_step(
    objective,
    tx,
    mesh=mesh,
    state_sharding=step.shardings_of(state),
    seed=0,
  )
  losses = []
  for batch in data:
    state, metrics = train_step(state, sharding.make_global_batch(batch, mesh))
    losses.append(float(metrics["training_loss"]))
  return losses


@pytest.mark.parametrize(
  ("kw", "mu_dtype"),
  [
    (dict(pool_type="gap", posemb="sincos2d", rep_size=True), "float32"),
    (dict(pool_type="tok", posemb="learn"), "bfloat16"),
  ],
  ids=["gap", "tok"],
)
@pytest.mark.first(1)
@pytest.mark.long
def test_losses_are_those_of_the_transcription(kw, mu_dtype):
  model = models.get_model("vit", CLASSES, **SMALL, **kw)
  rng = np.random.default_rng(0)
  data = [
    {
      "image": rng.normal(size=(16, 24, 16, 3)).astype(np.float32),
      "labels": rng.dirichlet(np.ones(CLASSES), 16).astype(np.float32),
    }
    for _ in range(2)
  ] * (STEPS // 2)
  params = model.init(jax.random.key(1), data[0]["image"])["params"]
  params = jax.tree.map(
    lambda x: np.asarray(x) + 0.05 * rng.normal(size=x.shape).astype("f4"),
    params,
  )
  expected = torch_losses(params, data, 8, getattr(torch, mu_dtype))
  got = our_losses(model, params, data, mu_dtype)
  np.testing.assert_allclose(got, expected, rtol=1e-4)
  assert got[-1] < got[0] - 0.1
