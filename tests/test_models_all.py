"""What all models have in common."""

import jax
import jax.numpy as jnp
import pytest

from big_crop import models


@pytest.mark.parametrize(
  "name, kw",
  [
    ("convnext", dict(depths=(1,), widths=(8,))),
    ("repvgg", dict(depths=(1,), widths=(8,))),
    ("resnet", dict(variant="18", width=4)),
    ("small_vit", dict(depth=1, width=8, num_heads=2)),
    ("swin", dict(width=8, depths=(1, 1), num_heads=(2, 2), merges=(2,))),
    ("vit", dict(width=8, depth=1, num_heads=2, patch_size=8)),
  ],
)
def test_no_classes_no_head(name, kw):
  model = models.get_model(name, 0, **kw)
  image = jnp.ones((1, 16, 16, 3))
  (x, out), variables = model.init_with_output(jax.random.key(0), image)
  assert x is out["pre_logits"] and "logits" not in out
  assert x.ndim == 2 and "head" not in variables["params"]


def test_stages_are_counted():
  for name, kw in {
    "convnext": dict(depths=[3, 3, 9]),
    "swin": dict(num_heads=(3, 6)),
    "repvgg": dict(widths=(8, 8)),
    "regnet": dict(depths=(1, 1)),
  }.items():
    with pytest.raises(ValueError, match="need a number per stage"):
      models.get_model(name, 10, **kw)
  with pytest.raises(ValueError, match="need a factor for each of the 4"):
    models.get_model("swin", 10, merges=(2, 2))
  with pytest.raises(ValueError, match="depths=-1"):
    models.get_model("convnext", 10, depths=[3, -1, 9, 3])
