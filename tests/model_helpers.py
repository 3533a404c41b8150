"""Compares models with their PyTorch originals; tests what all have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_crop import models, weights
from big_crop.saliency import maps


def images(size, batch=4, seed=0):
  rng = np.random.default_rng(seed)
  image = rng.normal(size=(batch, size, size, 3), loc=0.3)
  return image.astype(np.float32)


def to_torch(image):
  torch = pytest.importorskip("torch")
  return torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


def randomise(model, seed=0):
  """Randomises all weights and running statistics of a PyTorch model."""
  torch = pytest.importorskip("torch")
  generator = torch.Generator().manual_seed(seed)
  normal = lambda x: torch.randn(x.shape, generator=generator)
  with torch.no_grad():
    for name, x in model.state_dict().items():
      if not x.is_floating_point():  # counts and indices
        continue
      if name.endswith("running_var"):
        x.copy_(1 + 0.5 * torch.rand(x.shape, generator=generator))
      elif x.ndim > 1 and name not in ("pos_embed", "cls_token"):
        x.copy_(normal(x) * x[0].numel() ** -0.5)
      elif name.endswith("weight"):
        x.copy_(1 + 0.2 * normal(x))
      else:
        x.copy_(0.2 * normal(x))
  return model


def state_dict(model):
  return {k: v.numpy().copy() for k, v in model.state_dict().items()}


def shapes(tree):
  return jax.tree.map(np.shape, tree)


def close(a, b, rtol):
  assert np.linalg.norm(a - b) <= rtol * np.linalg.norm(b)
  np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(model, variables, image, train=False):
  rngs = {"dropout": jax.random.key(0)}
  mutable = ["batch_stats"] if train else []
  return model.apply(variables, image, train=train, rngs=rngs, mutable=mutable)


def check_logits(reference, model, image, convert=weights.from_timm, rtol=1e-4):
  """Compares logits with a randomised PyTorch model's; returns its weights."""
  torch = pytest.importorskip("torch")
  state = state_dict(randomise(reference).eval())
  variables = convert(state)
  init = jax.eval_shape(model.init, jax.random.key(0), image)
  assert shapes(variables) == jax.tree.map(lambda x: x.shape, init)
  with torch.no_grad():
    expected = reference(to_torch(image)).numpy()
  close(apply(model, variables, image)[0][0], expected, rtol)
  if convert is weights.from_timm:
    back = weights.to_torch(model, variables)
    assert back.keys() == {k for k in state if "num_batches" not in k}
    for name, value in back.items():
      np.testing.assert_array_equal(value, state[name], err_msg=name)
  return variables


def check_training(reference, model, variables, batches, deep=1):
  """Logits of training batches, and the running statistics after them.

  Args:
    reference: a PyTorch model.
    model: ours.
    variables: its weights, by `weights.from_torch`.
    batches: images.
    deep: by how much the tolerances are wider, because depth amplifies
      rounding.
  """
  torch = pytest.importorskip("torch")
  reference.train()
  for batch in batches:
    with torch.no_grad():
      expected = reference(to_torch(batch)).numpy()
    (logits, _), stats = apply(model, variables, batch, True)
    close(logits, expected, deep * 1e-3)
    variables = {**variables, **stats}
  reference.eval()
  expected = weights.from_torch(model, state_dict(reference))["batch_stats"]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a,
      b,
      atol=deep * 1e-4 * np.abs(b).max(),  # of a layer's largest
    ),
    stats["batch_stats"],
    expected,
  )


def check_size(name, size, count, **kw):
  """Checks a model's number of parameters for 1000 classes, by tracing it."""
  model = models.get_model(name, 1000, **kw)
  image = jnp.zeros((1, size, size, 3))
  params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  assert sum(x.size for x in jax.tree.leaves(params)) == count


def check_interface(model, size, grid):
  """Checks dtypes and saliency maps of a model, by tracing it.

  Args:
    model: a small one.
    size: of its images.
    grid: height and width of its last layer; None if it has no Grad-CAM.
  """
  model = model.clone(dtype_mm="bfloat16")
  image = jnp.zeros((2, size, size, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}
  kinds = maps.choose_kinds(model, None)
  assert ("gradcam" in kinds) == (grid is not None)
  make = maps.make_maps(model, kinds)
  found, logits = jax.eval_shape(make, variables, image, jnp.zeros(2, int))
  assert (logits.shape, logits.dtype) == ((2, model.num_classes), jnp.float32)
  if grid:
    assert found["gradcam"].shape == (2, grid, grid)
  if "relevance" in kinds:
    assert found["relevance"].shape == (2, grid, grid)
