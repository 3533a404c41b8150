"""RepVGG against timm's, before and after its branches are folded."""

import copy

import pytest
from model_helpers import (
  apply,
  check_interface,
  check_logits,
  check_size,
  check_training,
  close,
  images,
  state_dict,
)

from big_crop import models, weights
from big_crop.models import repvgg

COUNTS = dict(
  A0=9_108_968, A1=14_092_264, A2=28_210_600, B0=15_817_960,
  B1=57_415_016, B2=89_022_376, B3=123_085_288,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("variant", COUNTS)
def test_the_sizes_are_timms(variant):
  check_size("repvgg", 32, COUNTS[variant], variant=variant)


def _tiny():
  byobnet = pytest.importorskip("timm.models.byobnet")
  block = lambda depth, width: byobnet.ByoBlockCfg(
    type="rep", d=depth, c=width, s=2, gs=0
  )
  blocks = (block(2, 8), block(1, 16))
  config = byobnet.ByoModelCfg(blocks=blocks, stem_type="rep", stem_chs=8)
  model = byobnet.ByobNet(config, num_classes=10)
  return model, dict(depths=(2, 1), widths=(8, 16)), 24


def _a2():
  timm = pytest.importorskip("timm")
  return timm.create_model("repvgg_a2", num_classes=10), dict(variant="A2"), 224


@pytest.mark.parametrize(
  "create", [_tiny, pytest.param(_a2, marks=pytest.mark.slow)]
)
def test_timm(create):
  """Logits, running statistics, and the folded model."""
  timm_utils = pytest.importorskip("timm.utils.model")
  reference, kw, size = create()
  model = models.get_model("repvgg", 10, **kw)
  check_interface(model, size, size // 2 ** (1 + len(model.depths)))
  batches = [images(size, batch=2, seed=seed) for seed in range(3)]
  variables = check_logits(reference, model, batches[0])

  check_training(reference, model, variables, batches)
  variables = weights.from_timm(state_dict(reference))
  (before, _), _ = apply(model, variables, batches[0])
  folded = repvgg.reparametrise(variables)
  deployed = model.clone(deploy=True)
  (after, _), _ = apply(deployed, folded, batches[0])
  close(after, before, 1e-5)
  theirs = copy.deepcopy(reference)
  timm_utils.reparameterize_model(theirs, inplace=True)
  state = state_dict(theirs)
  ours = weights.to_torch(deployed, folded)
  assert ours.keys() == state.keys()
  for name, value in ours.items():
    close(value, state[name], 1e-5)
  assert weights.from_timm(state).keys() == {"params"}
