"""Config files as big_vision has them, and its own where they are present."""

import pathlib

import big_vision_helpers
import numpy as np
import pytest

from big_crop import config as configs
from big_crop import train

THEIRS = """
import ml_collections as mlc

def get_config():
  config = mlc.ConfigDict()
  config.seed = 3
  config.total_steps = 2
  config.num_classes = 20
  config.loss = 'sigmoid_xent'
  config.init_head_bias = -6.9
  config.input = {}
  config.input.data = dict(
      name='critters', split='train[:64]', skip_decode=('image',))
  config.input.batch_size = 16
  config.input.cache_raw = True
  pp = '|value_range(-1, 1)|onehot(20, key="label", key_result="labels")'
  pp += '|keep("image", "labels")'
  config.input.pp = 'decode_jpeg_and_inception_crop(16)|flip_lr' + pp
  config.pp_modules = ['ops_general', 'ops_image', 'archive.randaug']
  config.log_training_steps = 1
  config.ckpt_steps = 10
  config.model_name = 'vit'
  config.model = dict(variant='mu/8', pool_type='gap', posemb='sincos2d')
  config.optax_name = 'scale_by_adam'
  config.optax = dict(mu_dtype='bfloat16')
  config.grad_clip_norm = 1.0
  config.lr = 0.001
  config.wd = 0.0001
  config.schedule = dict(warmup_steps=1, decay_type='cosine')
  config.mixup = dict(p=0.2, fold_in=None)
  config.evals = {}
  config.evals.val = dict(
      type='classification',
      data=dict(name='critters', split='validation[:16]'),
      pp_fn='decode|resize_small(16)|central_crop(16)' + pp,
      loss_name=config.loss, log_steps=1, cache='none')
  return config
"""


def load(folder, *changes):
  text = THEIRS
  for change in changes:
    text = text.replace("  return config\n", f"  {change}\n  return config\n")
  (folder / "theirs.py").write_text(text)
  return configs.load(str(folder / "theirs.py"))


@pytest.mark.slow
def test_it_runs_as_it_is(tmp_path):
  c = load(tmp_path)
  assert c.schedule.to_dict() == {"decay_type": "cosine", "warmup_steps": 1}
  assert c.input.data.data_dir is None and c.model.head_bias == -6.9
  assert c.mesh == configs.default_config().mesh
  summary = train.run(c, tmp_path / "run")
  assert summary["step"] == 2 and summary["metrics"]["val/count"] == 16
  # At its bias a sigmoid says 0.001 to each class: the loss is the one label's.
  first = np.log1p(np.exp(6.9)) + 19 * np.log1p(np.exp(-6.9))
  assert summary["metrics"]["training_loss"] == pytest.approx(first, rel=0.05)
  override = "--config.schedule.warmup_steps=2"
  c = configs.load(str(tmp_path / "theirs.py"), [override])
  assert c.schedule.warmup_steps == 2


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ("config.optax_name = 'big_vision.momentum_hp'", "'trace' with optax"),
    ("config.model_name = 'mlp_mixer'", "'mlp_mixer' of big_vision is not"),
    ("config.sharding_rules = []", "sharding_strategy alone decides"),
    ("config.lrr = 1", "unknown config 'lrr': did you mean 'lr'"),
    ("config.input.batchsize = 1", "mean 'batch_size'"),
    (
      "config.evals.val.label_key = 'x'",
      r"evals\.val\.label_key of big_vision",
    ),
    ("config.evals.f = dict(type='fewshot_lsr')", "leave out config.evals.f"),
  ],
)
def test_what_is_otherwise_is_refused(change, message, tmp_path):
  with pytest.raises(ValueError, match=message) as e:
    load(tmp_path, change)
  assert "\n" not in str(e.value)


def test_the_loss_is_big_visions_unless_given(tmp_path):
  assert load(tmp_path, "del config.loss").loss == "sigmoid_xent"


def test_a_config_without_arguments(tmp_path):
  load(tmp_path)
  with pytest.raises(ValueError, match="takes no argument: 'a=1'"):
    configs.load(f"{tmp_path / 'theirs.py'}:a=1")


@pytest.mark.skipif(
  not big_vision_helpers.PATH, reason="BIG_VISION_PATH is not set"
)
@pytest.mark.parametrize("name", ["vit_s16_i1k", "vit_i1k:aug=strong2"])
def test_big_visions_own(name, tmp_path, monkeypatch):
  big_vision_helpers.use("real", tmp_path, monkeypatch)
  name, _, arg = name.partition(":")
  folder = pathlib.Path(big_vision_helpers.PATH, "big_vision", "configs")
  c = configs.load(f"{folder / name}.py:{arg}")
  assert c.schedule.warmup_steps == 10_000 and c.wd == 1e-4
  assert c.total_epochs in (90, 300) and len(c.evals) == 5
