"""ConvNeXt against timm's and torchvision's; depthwise convolutions."""

import functools

import jax
import numpy as np
import pytest
from model_helpers import (
  apply,
  check_interface,
  check_logits,
  check_size,
  images,
)

from big_crop import models, weights
from big_crop.models import convnext, cpu

COUNTS = dict(T=28_589_128, S=50_223_688, B=88_591_464)
TINY = dict(depths=(1, 1, 1, 2), widths=(8, 8, 12, 12))


@pytest.mark.slow
@pytest.mark.parametrize("variant", COUNTS)
def test_the_sizes_are_timms(variant):
  check_size("convnext", 32, COUNTS[variant], variant=variant)


@pytest.mark.long
def test_timm_and_torchvision():
  timm = pytest.importorskip("timm.models.convnext")
  torchvision = pytest.importorskip("torchvision.models.convnext")
  model = models.get_model("convnext", 10, **TINY)
  check_interface(model, 64, 2)
  # Of a size that the strides do not divide.
  image = images(34, batch=2)
  reference = timm.ConvNeXt(
    depths=TINY["depths"], dims=TINY["widths"], num_classes=10
  )
  check_logits(reference, model, image)
  widths = [*TINY["widths"], None]
  settings = [
    torchvision.CNBlockConfig(*widths[i : i + 2], depth)
    for i, depth in enumerate(TINY["depths"])
  ]
  reference = torchvision.ConvNeXt(settings, num_classes=10)
  check_logits(reference, model, image, weights.from_torchvision)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_convnext_tiny(library):
  create = pytest.importorskip(f"{library}.models").convnext_tiny
  model = models.get_model("convnext", 10, variant="T")
  convert = getattr(weights, f"from_{library}")
  check_logits(create(num_classes=10), model, images(224, batch=2), convert)


def test_a_dropped_branch_leaves_its_example_as_it_is():
  block = convnext.Block(layer_scale=1.0, drop_path=0.5, dtype="float32")
  x = images(5, batch=8)
  init = jax.eval_shape(
    functools.partial(block.init, train=False), jax.random.key(0), x
  )
  rng = np.random.default_rng(0)
  draw = lambda s: rng.normal(size=s.shape).astype(np.float32)
  variables = jax.tree.map(draw, init)
  branch, got = (apply(block, variables, x, t)[0] - x for t in (False, True))
  kept = [np.abs(y).max() > 0 for y in got]
  assert 0 < sum(kept) < 8
  for y, b, k in zip(got, branch, kept, strict=True):
    np.testing.assert_allclose(y, 2 * b if k else 0 * b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 6), (3, 4)])  # the second: in the kernel
def test_the_cpus_depthwise_convolution_is_xlas(size):
  rng = np.random.default_rng(0)
  x, dy = rng.normal(size=(2, 2, *size, 12)).astype(np.float32)
  w = rng.normal(size=(7, 5, 1, 12)).astype(np.float32)
  xlas = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding=[(3, 3), (2, 2)],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=12,
  )

  @functools.partial(jax.jit, static_argnums=0)
  def run(conv, x, w, dy):
    y, vjp = jax.vjp(conv, x, w)
    return y, *vjp(dy)

  ours, expected = (run(conv, x, w, dy) for conv in (cpu.depthwise, xlas))
  for a, b in zip(ours, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)
