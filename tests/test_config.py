"""Config files, their arguments and the command line's overrides."""

import pathlib
import subprocess
import sys

import pytest
from ml_collections.config_dict import placeholder

from big_crop import config as configs
from pp_ops.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
QUICKSTART = str(ROOT / "configs" / "quickstart.py")


def test_arguments_reach_the_pp_string():
  c = configs.load(
    f"{QUICKSTART}:crop=beta_crop,area_min=8,alpha=2,res=32,batch=64,seed=3"
  )
  assert "beta_crop(32, area_min=8, alpha=2)" in c.input.pp
  assert c.input.batch_size == 64 and c.seed == 3


def test_overrides_have_the_type_of_what_they_replace():
  c = configs.load(
    QUICKSTART,
    [
      "--config.lr=3e-4",
      "--config.wd=1",
      "--config.input.data.split=train[:10%]",
      "--config.input.skip_corrupt=true",
      "--config.mesh=[('data', 2), ('fsdp', -1)]",
      "--config.total_steps=7",
      "--config.total_epochs=None",
      "--config.optax={'b2': 0.95}",
      "--config.evals.val.batch_size=16",
      "--config.model.dropout=0.1",
    ],
  )
  assert c.lr == 3e-4 and c.wd == 1.0 and isinstance(c.wd, float)
  assert c.input.data.split == "train[:10%]"
  assert c.input.skip_corrupt is True
  assert c.mesh == [("data", 2), ("fsdp", -1)]
  assert c.total_steps == 7 and c.optax.b2 == 0.95
  assert c.total_epochs is None
  assert c.evals.val.batch_size == 16 and c.model.dropout == 0.1


def test_what_is_none_has_a_type_and_may_be_none_again():
  key = "--config.ema_decay"
  assert (
    configs.load(QUICKSTART, [f"{key}=0.5", f"{key}=None"]).ema_decay is None
  )
  assert isinstance(configs.load(QUICKSTART, [f"{key}=0"]).ema_decay, float)
  assert configs.load(QUICKSTART, ["--config.model_init=7"]).model_init == "7"


def test_a_placeholders_value_stays_in_its_config():
  defaults = dict(lr=placeholder(float))
  assert configs.parse_arg("lr=1", **defaults).lr == 1.0
  assert configs.parse_arg(None, **defaults).lr is None
  assert configs.parse_arg("lr=None", **defaults).lr is None
  with pytest.raises(ValueError, match="lr=fast: need a value of type float"):
    configs.parse_arg("lr=fast", **defaults)


def test_a_flag_changes_defaults_and_nothing_that_is_given():
  forms = dict(quick=dict(res=32, lr=0.1), smoke=dict(res=16))
  defaults = dict(res=224, lr=None)
  parse = lambda text: configs.parse_arg(text, forms, **defaults).to_dict()
  flags = dict(quick=False, smoke=False)
  assert parse(None) == flags | defaults
  assert parse("quick") == flags | dict(res=32, lr=0.1, quick=True)
  assert parse("res=48,quick") == flags | dict(res=48, lr=0.1, quick=True)
  both = dict(res=16, lr=0.1, quick=True, smoke=True)
  assert parse("smoke,quick") == both
  assert parse("quick=False,smoke") == flags | dict(res=16, lr=None, smoke=True)


@pytest.mark.parametrize(
  ("spec", "overrides", "message"),
  [
    ("nope.py", [], "no file 'nope.py'"),
    (f"{QUICKSTART}:crops=x", [], "did you mean 'crop'"),
    (f"{QUICKSTART}:res=big", [], "res=big: need a value of type int"),
    (QUICKSTART, ["--config.lrr=1"], "did you mean 'lr'"),
    (QUICKSTART, ["--config.input.batchsize=1"], "did you mean 'batch_size'"),
    (QUICKSTART, ["--config.lr=fast"], "need a value of type float"),
    (QUICKSTART, ["--config.lr=None"], "need a value of type float"),
    (QUICKSTART, ["--config.input.batch_size=1.5"], "of type int"),
    (
      QUICKSTART,
      ["--config.total_steps=many"],
      "total_steps=many: .* type int",
    ),
    (QUICKSTART, ["--config.mesh=8"], "mesh=8: need a value of type list"),
    (
      QUICKSTART,
      ["--config.pp_modules=my"],
      r"'\[\"my\"\]'",
    ),
    (QUICKSTART, ["--config.lr.x=1"], "is a value, it has no key 'x'"),
    (QUICKSTART, ["--conf.lr=1"], "overrides are --config.key=value"),
  ],
)
def test_mistakes_are_one_line(spec, overrides, message):
  with pytest.raises(ValueError, match=message) as e:
    configs.load(spec, overrides)
  assert "\n" not in str(e.value)


def test_config_file_may_not_invent_keys(tmp_path):
  path = tmp_path / "c.py"
  path.write_text(
    "from big_crop.config import default_config\n"
    "def get_config(arg=None):\n"
    "  c = default_config()\n"
    "  c.learning_rat = 1\n"
    "  return c\n"
  )
  with pytest.raises(UserError, match="line 4: no key 'learning_rat'"):
    configs.load(str(path))
  path.write_text(
    "from big_crop.study.grid import default_study\n"
    "def get_config(arg=None):\n"
    "  c = default_study()\n"
    "  c.seed = [0]\n"
    "  return c\n"
  )
  message = "line 4: no key 'seed': did you mean 'seeds'"
  with pytest.raises(UserError, match=message):
    configs.load(str(path))


CONFIGS = sorted((ROOT / "configs").rglob("*.py"))


@pytest.mark.parametrize(
  "path", [p for p in CONFIGS if p.parent.name != "studies"]
)
def test_every_config_loads(path):
  c = configs.load(str(path))
  assert c.input.pp and (c.total_epochs or c.total_steps)
  assert configs.as_json(c)["model_name"] == c.model_name


def test_device_side_needs_no_tensorflow():
  modules = (
    "models.vit",
    "models.resnet",
    "optim",
    "objectives.losses",
    "objectives.mixing",
    "step",
  )
  code = "; ".join(
    [f"import big_crop.{m}" for m in modules]
    + [
      "import sys",
      "assert 'tensorflow' not in sys.modules",
      "assert not any(m.startswith('pp_ops.crops') for m in sys.modules)",
    ]
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_laws_and_strings_need_neither_tensorflow_nor_jax():
  files = sorted((ROOT / "pp_ops" / "laws").glob("*.py"))
  assert len(files) > 5
  code = "; ".join(
    [f"import pp_ops.laws.{f.stem}" for f in files]
    + [
      "from pp_ops import laws, registry",
      "from big_crop import match",
      "laws.register_law('mine', type('Mine', (laws.BetaLaw,), {}))",
      "spec = 'decode_jpeg_and_mine(8, alpha=3)'",
      "assert registry.parse(spec)[0][0] in spec",
      "law = registry.law_of(spec)",
      "laws.exact.size_distribution(law, 30, 40)",
      "match.solve('inception_crop', 'mine', 'alpha')",
      "import sys",
      "assert not {'tensorflow', 'jax'} & set(sys.modules)",
    ]
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
