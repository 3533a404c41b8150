"""AugReg's configs and studies: pretraining, transfer, from scratch."""

import pytest
from augreg_helpers import ROOT, load, write_index

from big_crop import models
from big_crop.study import augreg, grid, layout


@pytest.mark.parametrize("aug", augreg.AUGMENTATIONS)
def test_pretraining_is_the_papers(aug):
  c = load("pretrain", f"model=B/16,aug={aug},wd=0.03,do=0.1,sd=0.1")
  layers, magnitude, alpha = augreg.AUGMENTATIONS[aug]
  assert (f"randaug({layers}, {magnitude}, " in c.input.pp) == (layers > 0)
  assert c.mixup.p == alpha and c.wd == pytest.approx(3e-5)
  assert (c.model.dropout, c.model.drop_path) == (0.1, 0.1)
  assert (c.loss, c.model.head_bias) == ("sigmoid_xent", -6.9)
  assert c.evals.minival.data.split == "train[99%:]"
  assert c.input.data.split == "train[:99%]"
  model = models.get_model(c.model_name, 1000, **c.model)
  assert model.posemb_cls and model.width == 768


def test_pretraining_on_imagenet21k():
  c = load("pretrain", "data=i21k,source=/data/i21k,split=train,epochs=30")
  assert c.num_classes == 21_843 and c.model.head_bias == -10
  assert c.input.data.to_dict() == dict(
    name="/data/i21k", data_dir=None, split="train[51200:]"
  )
  splits = {k: e.data.split for k, e in c.evals.items()}
  assert splits == {"val": "train[25600:51200]", "test": "train[:25600]"}
  with pytest.raises(ValueError, match="aug 'light3': did you mean 'light"):
    load("pretrain", "aug=light3")


def test_the_study_of_pretraining_has_756_runs():
  study = grid.load(f"{ROOT}/configs/studies/augreg_pretrain.py")
  assert len(study.runs) == 28 * 9 * 3
  assert len({r.name for r in study.runs}) == 756
  config = study.runs[-1].config
  assert config.model.variant == "AugReg-L/16" and config.num_classes == 21_843
  small = "models=S/32:R+Ti/16,data=i1k,aug=none:light1,wd=0.1,smoke"
  study = grid.load(f"{ROOT}/configs/studies/augreg_pretrain.py:{small}")
  assert len(study.runs) == 2 * 2 * 2


def test_transfer_is_table_4s(tmp_path):
  c = load("transfer", "init=augreg:R26+S/32,dataset=oxford_iiit_pet,steps=500")
  assert c.model.variant == "AugReg-R26+S/32" and c.total_steps == 500
  assert c.schedule.warmup_steps == 100 and c.input.batch_size == 512
  assert c.optax.accumulator_dtype == "bfloat16" and not c.wd
  assert "inception_crop(384)|flip_lr" in c.input.pp
  assert "resize_small(448)|central_crop(384)" in c.evals.val.pp_fn
  c = load("transfer", "dataset=vtab/clevr_count,examples=1000,refit")
  assert c.input.data.split == "train[:800]+train[63000:63200]"
  assert "resize(384)|value" in c.input.pp and c.num_classes == 8
  assert load("transfer", "dataset=imagenet2012").evals.v2.data.split == "test"
  with pytest.raises(ValueError, match="examples=500: need 1000"):
    load("transfer", "dataset=vtab/dtd,examples=500")
  index = write_index(tmp_path)
  spec = f"{ROOT}/configs/studies/augreg_transfer.py:index={index}"
  study = grid.load(spec)
  assert len(study.runs) == 9 * 19 * 8
  config = study.runs[0].config
  assert config.model_load.index == str(index)
  assert len(grid.load(f"{spec},data=table4,inits=B/16").runs) == 26


def test_studies_from_scratch_and_on_a_laptop():
  path = f"{ROOT}/configs/studies/augreg_scratch.py"
  study = grid.load(path)
  assert len(study.runs) == 1920 + 288 + 2304 + 240  # appendix A
  shown = layout.of_config(study.config)
  assert [s.cost for s in shown.selections] == 4 * ["epochs"]
  run = grid.load(f"{path}:sets=B/16@resisc45,epochs=75").runs[0]
  assert run.config.input.data.split == "train[:60%]"
  assert run.config.wd == 1e-4 and run.config.model.head_bias == -3.8
  study = grid.load(f"{ROOT}/configs/studies/augreg_quick.py")
  assert len(study.runs) == 2 * 4 * 2 * 2 * 2
  config = study.runs[0].config
  model = models.get_model(config.model_name, 20, **config.model)
  assert (model.width, model.mlp_dim, model.depth) == (64, 256, 4)
  assert config.evals.test.data.split == "validation"
