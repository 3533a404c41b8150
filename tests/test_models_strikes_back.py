"""The architectures of "ResNet strikes back", Tables 3 and 4, against timm's.

EfficientNet, RegNetY, ECA-ResNet and SENet-154, which no other file tests, are
compared as a whole; of every other convolutional network the size is compared.
"""

import functools
import itertools
import pathlib
import re

import flax.linen as nn
import jax
import numpy as np
import pytest
from model_helpers import (
  check_interface,
  check_logits,
  check_training,
  images,
)

from big_crop import config as configs
from big_crop import models, weights
from big_crop.models import efficientnet, resnet
from big_crop.parts import build
from big_crop.study import grid

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
# timm's name, its exact count, and Table 4's, in millions.
TESTED_ELSEWHERE = {
  "resnet-18": ("resnet18", 11_689_512, 11.7),
  "resnet-34": ("resnet34", 21_797_672, 21.8),
  "resnet-50": ("resnet50", 25_557_032, 25.6),
  "resnet-101": ("resnet101", 44_549_160, 44.5),
  "resnet-152": ("resnet152", 60_192_808, 60.2),
  "resnet-200": ("resnet200", 64_673_832, 64.7),  # not in the table
  "resnet-se50": ("seresnet50", 28_088_024, 28.1),
  "resnet-50d": ("resnet50d", 25_576_264, 25.6),
  "resnet-x50_32x4d": ("resnext50_32x4d", 25_028_904, 25.0),
}
TABLE_4 = {
  "efficientnet-B0": ("efficientnet_b0", 5_288_548, 5.3),
  "efficientnet-B1": ("efficientnet_b1", 7_794_184, 7.8),
  # For these three the table has the counts in the comments.
  "efficientnet-B2": ("efficientnet_b2", 9_109_994, 9.1),  # 9.2
  "efficientnet-B3": ("efficientnet_b3", 12_233_232, 12.2),  # 12.0
  "efficientnet-B4": ("efficientnet_b4", 19_341_616, 19.3),  # 19.0
  "efficientnet-V2-rw-S": ("efficientnetv2_rw_s", 23_941_296, 23.9),
  "efficientnet-V2-rw-M": ("efficientnetv2_rw_m", 53_236_442, 53.2),
  "regnet-Y-4GF": ("regnety_040", 20_646_656, 20.6),
  "regnet-Y-8GF": ("regnety_080", 39_180_068, 39.2),
  "regnet-Y-16GF": ("regnety_160", 83_590_140, 83.6),
  "regnet-Y-32GF": ("regnety_320", 145_046_770, 145.0),
  "resnet-eca50t": ("ecaresnet50t", 25_573_814, 25.6),
  "resnet-eca269d": ("ecaresnet269d", 102_093_077, 102.1),
  "resnet-senet154": ("senet154", 115_088_984, 115.1),
}


# From which number a model counts its stages, and the blocks of a stage.
FIRST = dict(efficientnet=(0, 0), regnet=(1, 1), resnet=(1, 0))


def _count(key, monkeypatch):
  """Number of parameters; a stage's second block stands for all later ones."""
  name, _, variant = key.partition("-")
  model = models.get_model(name, 1000, variant=variant)
  if name == "resnet":
    depths, bottleneck = resnet.VARIANTS[model.variant]
    two = tuple(min(depth, 2) for depth in depths), bottleneck
    monkeypatch.setitem(resnet.VARIANTS, model.variant, two)
  else:
    depths = model.depths
    model = model.clone(depths=tuple(min(depth, 2) for depth in depths))
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
  params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  total = 0
  for layer, tree in params.items():
    size = sum(x.size for x in jax.tree.leaves(tree))
    numbers = [int(n) for n in re.findall(r"\d+", layer)]
    if len(numbers) == 2:
      stage, block = np.subtract(numbers, FIRST[name])
      size *= depths[stage] - 1 if block else 1
    total += size
  return total


def test_parameter_counts_are_table_4s():
  param = nn.Module.param
  zeros = nn.initializers.zeros
  for key, (_, count, millions) in (TESTED_ELSEWHERE | TABLE_4).items():
    with pytest.MonkeyPatch.context() as monkeypatch:
      # XLA's own convolutions and zeros are faster to trace.
      monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
      monkeypatch.setattr(
        nn.Module,
        "param",
        lambda self, name, init, shape, *_: param(self, name, zeros, shape),
      )
      assert _count(key, monkeypatch) == count, key
    assert round(count / 1e6, 1) == millions


def _efficientnet(factory, channels, depth, **kw):
  module = pytest.importorskip("timm.models.efficientnet")
  create = getattr(module, factory)
  return create(
    "efficientnet_b0",
    channel_multiplier=channels,
    depth_multiplier=depth,
    num_classes=10,
    **kw,
  )


def _b0():
  kw = dict(widths=(8, 8, 16, 24, 32, 48, 80), depths=(1, 1, 1, 2, 2, 2, 1))
  model = models.get_model("efficientnet", 10, **kw, stem=8, head=320)
  return _efficientnet("_gen_efficientnet", 0.25, 0.5), model


def _v2_rw():
  kw = dict(widths=(8, 16, 16, 32, 40, 72), depths=(1, 2, 2, 2, 3, 5))
  variant = "V2-rw-S"
  model = models.get_model(
    "efficientnet", 10, variant=variant, **kw, stem=8, head=448
  )
  return _efficientnet("_gen_efficientnetv2_s", 0.25, 0.3, rw=True), model


def _regnet():
  module = pytest.importorskip("timm.models.regnet")
  settings = module.RegNetCfg(
    w0=16, wa=16.0, wm=2.0, group_size=8, depth=6, se_ratio=0.25
  )
  widths, depths = (16, 32, 64, 128), (1, 1, 3, 1)
  model = models.get_model(
    "regnet", 10, widths=widths, depths=depths, group_width=8
  )
  return module.RegNet(settings, num_classes=10), model


def _resnet(name, variant):
  create = pytest.importorskip("timm").create_model
  reference = create(name, num_classes=10, layers=(1, 2, 1, 1))
  return reference, models.get_model("resnet", 10, variant=variant)


SHALLOW = {
  "efficientnet": _b0,
  "regnet": _regnet,
  "efficientnet_v2": _v2_rw,
  "eca": functools.partial(_resnet, "ecaresnet50t", "eca50t"),
  "senet": functools.partial(_resnet, "senet154", "senet154"),
}


def _check(reference, model, size, deep=1):
  """Weights there and back, logits, running statistics."""
  torch = pytest.importorskip("torch")
  batches = [images(size, seed=seed) for seed in range(3)]
  variables = check_logits(reference, model, batches[0])
  state = weights.to_torch(model, variables)
  reference.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
  check_training(reference, model, variables, batches, deep)


@pytest.mark.long
@pytest.mark.parametrize("family", SHALLOW)
@pytest.mark.first(2)
def test_shallow_ones_are_timms(family, monkeypatch):
  for variant in ("50", "152"):
    monkeypatch.setitem(resnet.VARIANTS, variant, ((1, 2, 1, 1), True))
  reference, model = SHALLOW[family]()
  check_interface(model, 64, 2)
  _check(reference, model, 50)  # odd sizes on the way


@pytest.mark.slow
@pytest.mark.parametrize("key", TABLE_4)
def test_whole_ones_are_timms(key):
  create = pytest.importorskip("timm").create_model
  name, _, variant = key.partition("-")
  timms, count, _ = TABLE_4[key]
  assert sum(x.numel() for x in create(timms).parameters()) == count
  model = models.get_model(name, 10, variant=variant)
  _check(create(timms, num_classes=10), model, 64, deep=10)


@pytest.mark.parametrize(
  ("name", "kw", "message"),
  [
    ("regnet", dict(group_width=48), "group_width=48 must divide all of"),
    ("regnet", dict(variant="Y-5GF"), "RegNet variant 'Y-5GF': did you mean"),
    (
      "efficientnet",
      dict(depths=(1, 2), widths=(8, 8)),
      "version 1 needs 7 numbers each",
    ),
  ],
)
def test_bad_arguments_get_one_line(name, kw, message):
  with pytest.raises(ValueError, match=message) as e:
    models.get_model(name, 10, **kw)
  assert "\n" not in str(e.value)


def _smoke(key):
  return configs.load(f"{CONFIGS}/resnet_strikes_back/a2.py:smoke,model={key}")


def test_the_study_of_table_3():
  path = CONFIGS / "studies/resnet_strikes_back_architectures.py"
  found = {}
  for run in grid.load(str(path)).runs:
    c = run.config
    models.get_model(c.model_name, 1000, **c.model)
    pixels = re.findall(r"_crop(?:_fixed)?\((\d+)", c.input.pp)
    pixels += re.findall(r"central_crop\((\d+)", c.evals.val.pp_fn)
    found[run.factors["recipe"], run.factors["model"]] = [*map(int, pixels)]
  assert {model for _, model in found} > TABLE_4.keys()
  assert len(found) == 3 * 25 - 3 + 2
  assert found["deit", "vit-DeiT-S/16"] == [224, 224]
  assert found["a1", "resnet-18"] == [224, 224]
  assert found["a3", "efficientnet-B1"] == [160, 224]
  assert found["a3", "efficientnet-B4"] == [320, 380]
  assert found["a2", "efficientnet-V2-rw-M"] == [320, 384]
  for key in TABLE_4:  # a smoke run keeps a model that was asked for
    c = _smoke(key)
    assert f"{c.model_name}-{c.model.variant}" == key
    models.get_model(c.model_name, 50, **c.model)


VITS = ["vit-DeiT-Ti/16", "vit-DeiT-S/16", "vit-DeiT-B/16"]
ALL_25 = [*TABLE_4, *TESTED_ELSEWHERE, *VITS]
ALL_25.remove("resnet-200")
SMALLER = {  # one of each family, of a stage or two
  "resnet-18": dict(width=8),
  "resnet-se50": dict(width=8),
  "regnet-Y-4GF": dict(depths=(1,), widths=(8,), group_width=8, stem=8),
  "efficientnet-B0": dict(widths=(8, 8), depths=(1, 1), stem=8, head=32),
  "vit-DeiT-Ti/16": dict(width=32, depth=1, num_heads=2, mlp_dim=64),
}


@pytest.fixture(scope="module")
def batches():
  """Two batches of a smoke run, which are the same for all models."""
  made = itertools.islice(build(_smoke("resnet-50")).device_batches(), 2)
  return [jax.device_get(batch) for batch, _ in made]


def _two_steps(c, key, batches, monkeypatch):
  """Trains on one device, because eight would need eight times the memory."""
  if key == "resnet-50":  # the default, which smoke runs replace
    c.model.update(variant="50", width=64)
  assert f"{c.model_name}-{c.model.variant}" == key
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)
  parts = build(c)
  state = parts.init()
  before = jax.device_get(state.params["head"])
  for batch in batches:
    state, metrics = parts.train_step(state, batch)
    assert np.isfinite(float(metrics["training_loss"]))
  assert int(state.step) == 2
  assert (before["kernel"] != state.params["head"]["kernel"]).any()


@pytest.mark.long
@pytest.mark.parametrize("key", SMALLER)
def test_a_smaller_one_trains(key, batches, monkeypatch):
  for variant in ("18", "50"):
    monkeypatch.setitem(resnet.VARIANTS, variant, ((1,), variant == "50"))
  stages = {"1": efficientnet.STAGES["1"][:2]}
  monkeypatch.setattr(efficientnet, "STAGES", stages)
  c = _smoke(key)
  c.model.update(SMALLER[key])
  _two_steps(c, key, batches, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("key", ALL_25)
def test_a_smoke_run_trains_it(key, batches, monkeypatch):
  _two_steps(_smoke(key), key, batches, monkeypatch)
