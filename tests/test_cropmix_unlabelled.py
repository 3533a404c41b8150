"""CropMix without labels: its configs and their study."""

import pathlib
import re

import numpy as np
import optax
import pytest
from flax import traverse_util

from big_crop import config as configs
from big_crop import optim, train
from big_crop.study import grid, reference, results

ROOT = pathlib.Path(__file__).parents[1]


def load(name, args=""):
  return configs.load(f"{ROOT}/configs/cropmix/{name}.py:{args}")


def study(args=""):
  return grid.load(f"{ROOT}/configs/studies/cropmix_unlabelled.py:{args}")


def test_moco_is_section_b21s():
  c = load("moco_v2")
  assert (c.total_epochs, c.input.batch_size, c.lr, c.wd) == (
    100,
    256,
    0.03,
    1e-4,
  )
  assert c.wd_mults == [(".*", 1.0)] and c.optax.decay == 0.9
  assert c.schedule.to_dict() == dict(decay_type="cosine", per="epoch")
  assert c.objective.queue == 65_536
  crop = (
    "inception_crop_fixed(224, area_min={}, area_max={}, antialias=True, "
    'key="{}")'
  )
  jitter = (
    "random_apply(0.8, 'color_jitter(0.4, 0.4, 0.4, 0.1, key=\"image2\")')"
  )
  has = {
    "plain": [crop.format(20, 100, k) for k in ("image", "image2")],
    "scalemix": [crop.format(20, 100, k) for k in ("large", "image2")],
    "cropmix": [crop.format(20, 60, "image"), crop.format(60, 100, "large")],
    "mixup": [crop.format(60, 100, "large"), crop.format(20, 100, "image2")],
  }
  mixes = dict(plain="", scalemix="cut_in", cropmix="cut_in", mixup="mix_in")
  for views, expected in has.items():
    pp = load("moco_v2", f"views={views}").input.pp
    assert all(text in pp for text in [*expected, jitter])
    assert [m for m in ("cut_in", "mix_in") if m in pp] == [mixes[views]] * (
      views != "plain"
    )
  assert load("moco_v2", "views=untrained").total_steps == 0


def test_mae_is_section_b31s_and_b32s():
  c = load("mae")
  assert (c.total_epochs, c.input.batch_size) == (200, 4096)
  assert c.lr == pytest.approx(2.4e-3)
  assert (c.optax.b2, c.schedule.warmup_epochs) == (0.95, 20)
  assert load("mae", "fraction=10").total_epochs == 300
  crops = {
    views: load("mae", f"views={views}").input.pp.partition("|")[0]
    for views in ("plain", "cropmix", "cutmix")
  }
  assert "_fixed(224, area_min=20, " in crops["plain"]
  assert "num=(2, 3, 4), permute=False" in crops["cropmix"]
  assert 'num=2, mix="cutmix", permute=False' in crops["cutmix"]
  c = load("mae_finetune")
  assert c.lr == pytest.approx(2e-3) and c.model.drop_path == 0.1
  rates = dict(c.lr_mults)
  assert rates["Transformer/encoderblock_11/.*"] == pytest.approx(0.65)
  assert rates["embedding/.*|cls|pos_embedding"] == pytest.approx(0.65**13)
  assert set(load("mae_finetune", "robust").evals) >= {"imagenet_a", "val"}


@pytest.mark.parametrize("name", ["mae", "mae_finetune"])
def test_mae_is_trained_by_pytorchs_adamw(name):
  """Three steps with the groups of MAE's code."""
  torch = pytest.importorskip("torch")
  c = load(name)
  c.schedule = {}
  rng, depth = np.random.default_rng(0), 12
  tokens = ("cls", "pos_embedding", "decoder/mask_token")
  names = [f"Transformer/encoderblock_{i}" for i in range(depth)]
  names = [f"{n}/{leaf}" for n in names for leaf in ("kernel", "bias", "scale")]
  names += ["embedding/kernel", "head/kernel"]
  shape = lambda n: (2, 3) if "kernel" in n or n in tokens else (3,)
  params = {n: rng.normal(size=shape(n)) for n in (*names, *tokens)}
  params = {n: np.float32(v) for n, v in params.items()}

  def group(name):
    layer = depth + 1
    if match := re.search(r"encoderblock_(\d+)", name):
      layer = int(match[1]) + 1
    elif name.startswith(("embedding", "cls", "pos_embedding")):
      layer = 0
    finetuned = c.objective_name == "classification"
    positions = ("cls", "pos_embedding") if finetuned else ("pos_embedding",)
    decayed = params[name].ndim > 1 and name not in positions
    factor = 0.65 ** (depth + 1 - layer) if finetuned else 1.0
    lr = (2e-3 if finetuned else 2.4e-3) * factor
    return dict(lr=lr, weight_decay=0.05 if decayed else 0.0)

  leaves = {n: torch.nn.Parameter(torch.tensor(p)) for n, p in params.items()}
  peer = torch.optim.AdamW(
    [dict(params=[p], **group(n)) for n, p in leaves.items()],
    betas=(0.9, c.optax.b2),
  )
  nested = traverse_util.unflatten_dict(params, sep="/")
  tx, _ = optim.make(c, nested, total_steps=3, batch_size=1, data_size=1)
  state = tx.init(nested)
  for _ in range(3):
    grads = {n: np.float32(rng.normal(size=p.shape)) for n, p in params.items()}
    for n, p in leaves.items():
      p.grad = torch.tensor(grads[n])
    peer.step()
    grads = traverse_util.unflatten_dict(grads, sep="/")
    updates, state = tx.update(grads, state, nested)
    nested = optax.apply_updates(nested, updates)
  for n, p in traverse_util.flatten_dict(nested, sep="/").items():
    np.testing.assert_allclose(p, leaves[n].detach(), atol=1e-6, err_msg=n)


@pytest.mark.parametrize(
  ("fraction", "encoder", "head"), [(10, 0.01, 0.2), (1, 0.02, 5)]
)
def test_judges_are_section_b2s(fraction, encoder, head):
  c = load("label_fraction", f"fraction={fraction}")
  assert c.input.data.name == f"imagenet2012_subset/{fraction}pct"
  assert (c.lr, c.total_epochs, c.input.batch_size) == (encoder, 100, 256)
  assert c.lr * dict(c.lr_mults)["head/.*"] == pytest.approx(head)
  c = load("linear_probe")
  assert (c.total_epochs, c.input.batch_size) == (90, 4096)
  assert c.lr == pytest.approx(3.2)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("method", "judges"),
  [
    ("moco_v2", ["linear_probe", "label_fraction"]),
    ("mae", ["mae_finetune"]),
  ],
)
def test_an_encoder_is_pretrained_and_judged(method, judges, tmp_path):
  """From a study's folder, as the study of judges does."""
  name = (
    "views={},seed=0" if method == "moco_v2" else "fraction=100,views={},seed=0"
  )
  for views in ("cropmix", "untrained"):
    run = tmp_path / "runs" / name.format(views)
    summary = train.run(load(method, f"views={views},smoke"), run)
    assert 0 <= summary["metrics"]["features/knn_top1"] <= 1
  for judge in judges:
    c = load(judge, f"init={tmp_path},views=cropmix,smoke")
    assert c.model_init == str(tmp_path / "runs" / name.format("cropmix"))
    summary = train.run(c, tmp_path / judge)
    assert summary["metrics"]["val/count"] == 50


def test_a_run_that_is_not_there_is_told(tmp_path):
  (tmp_path / "runs").mkdir()
  with pytest.raises(ValueError, match=r"views=plain,seed=3 has no config"):
    load("linear_probe", f"init={tmp_path},views=plain,seed=3")


def test_the_study_is_the_tables():
  keys = lambda found: {grid.key_of(f) for f in found}
  assert [len(study(m).runs) for m in ("", "method=mae")] == [4, 6]
  assert len(study("quick").runs) == 9
  for method, n in (("moco_v2", 12), ("mae", 6)):
    s = study(f"method={method},init=/x")
    theirs = reference.results(s.config.reference, results.metrics_of(s.config))
    theirs = [f for f in theirs.settings if f.get("judge") != "detection"]
    assert keys(r.factors for r in s.runs) == keys(theirs)
    assert len(s.runs) == n
