"""The configs of papers: what they say, and that they run."""

import json
import pathlib

import pytest

from big_crop import config as configs
from big_crop import models, optim, step, train, trees

ROOT = pathlib.Path(__file__).parents[1]
WRONG_CROP = ROOT / "configs" / "wrong_inception_crop" / "vit_s16_i1k.py"
IMAGENET = 1_281_167


def optimiser(config):
  """The transformation's factors per parameter: of the rule, and of decay."""
  model = models.get_model(config.model_name, 1000, **config.model)
  shapes = step.param_shapes(model, (224, 224, 3))
  steps = round(config.total_epochs * IMAGENET / config.input.batch_size)
  tx, schedules = optim.make(
    config,
    shapes,
    total_steps=steps,
    batch_size=config.input.batch_size,
    data_size=IMAGENET,
  )
  return tx, schedules[0], shapes, steps


def test_the_papers_adamw_run():
  c = configs.load(
    f"{WRONG_CROP}:crop=beta_crop,area_min=0,alpha=1.287,beta=1,epochs=300"
  )
  assert c.input.pp.startswith(
    "decode_jpeg_and_beta_crop(224, area_min=0, alpha=1.287, beta=1, "
    "antialias=True)|flip_lr|randaug(2, 10)|value_range(-1, 1)"
  )
  assert c.mixup.p == 0.2 and c.grad_clip_norm == 1.0
  assert set(c.evals) == {"val", "real", "v2", "saliency"}
  _, schedule, shapes, steps = optimiser(c)
  assert steps == 375_342
  assert schedule(10_000) == 1 and schedule(5_000) == pytest.approx(0.5)
  # timm's vit_small_patch16_224 without class token and positions.
  assert sum(x.size for _, x in trees.named_leaves(shapes)) == 21_974_632
  # Decay is times the schedule, not the learning rate: 1e-4 and not 1e-7.
  assert c.lr == 1e-3 and c.wd == 1e-4
  assert c.wd_mults == [(".*/kernel$", 1.0)]


def test_the_papers_scion_run():
  c = configs.load(f"{WRONG_CROP}:optimiser=scion,wd=0.12,epochs=30")
  assert c.input.batch_size == 4096 and c.grad_clip_norm is None
  _, schedule, _, _ = optimiser(c)
  assert schedule(0) == 1
  gamma, gamma_head = c.lr, c.lr * dict(c.lr_mults)["head/kernel"]
  assert (gamma, gamma_head) == (0.01, pytest.approx(0.2))
  assert c.wd / gamma == pytest.approx(0.12)
  assert c.wd / gamma_head == pytest.approx(0.05 * 0.12)


@pytest.mark.parametrize("optimiser", ["adamw", "scion"])
def test_smoke(optimiser, tmp_path):
  spec = f"{WRONG_CROP}:smoke,crop=inception_crop,optimiser={optimiser}"
  summary = train.run(configs.load(spec), tmp_path)
  measured = summary["metrics"]
  assert summary["step"] == 8
  assert measured["val/count"] == measured["saliency/count"] == 100
  assert 0 < measured["saliency/gradient_entropy"] < 8.32  # log(64^2)
  config = json.loads((tmp_path / "config.json").read_text())
  assert "randaug(2, 10)" in config["input"]["pp"]


def test_unknown_optimiser():
  with pytest.raises(ValueError, match="choose adamw or scion"):
    configs.load(f"{WRONG_CROP}:optimiser=muon")
