"""A crop law from a user's file, the docs' example, and what is refused."""

import dataclasses
import pathlib
import re
import shlex
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from big_crop import config as configs
from big_crop import match
from big_crop.measure import __main__ as measure
from big_crop.study import results
from pp_ops import laws, registry
from pp_ops.laws import arguments, exact
from pp_ops.random import example_seed

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _laws_end_with_the_test():
  before = dict(laws.LAWS)
  yield
  laws.LAWS.clear()
  laws.LAWS.update(before)


@pytest.fixture
def documented(tmp_path, monkeypatch):
  """{command: its arguments} of docs/your_own.md; its file is there."""
  text = (ROOT / "docs" / "your_own.md").read_text()
  (section,) = re.findall(r"\n## Your own crop\n(.*?)\n## ", text, re.S)
  (module,) = re.findall(r"```python\n(# my_crop\.py.*?)```", section, re.S)
  (shell,) = re.findall(r"```sh\n(.*?)```", section, re.S)
  (tmp_path / "my_crop.py").write_text(module)
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.chdir(ROOT)
  lines = shell.replace("\\\n", " ").splitlines()
  yield {words[2]: words[3:] for words in map(shlex.split, lines)}
  sys.modules.pop("my_crop", None)


def test_the_documented_file_trains(documented):
  argv = documented["big_crop.train"]
  config = configs.load(argv[argv.index("--config") + 1], argv[-1:])
  registry.import_modules(config.pp_modules)
  assert "decode_jpeg_and_squared_crop(" in config.input.pp
  pp = registry.get_preprocess_fn(config.input.pp)
  image = tf.io.encode_jpeg(tf.zeros([40, 60, 3], tf.uint8))
  seed = example_seed(0, 0, 0)
  out = pp({"image": image, "label": tf.constant(1), "_seed": seed})
  assert out["image"].shape == (48, 48, 3)
  # The op draws what the law says, not what a parent of it would.
  areas = {}
  position = np.stack(np.mgrid[:60, :80], -1)
  for power in (0.2, 5):
    pp = tf.function(registry.get_preprocess_fn(f"squared_crop(power={power})"))
    shapes = [
      pp({"image": position, "_seed": example_seed(0, 0, i)})["image"].shape
      for i in range(100)
    ]
    areas[power] = np.mean([h * w for h, w, _ in shapes]) / (60 * 80)
    law = registry.law_of(f"squared_crop(power={power})")
    mean = exact.size_distribution(law, 60, 80).mean_scale()
    # Four standard errors of a number in [0, 1].
    assert abs(areas[power] - mean) < 4 * 0.3 / 10
  assert areas[0.2] > areas[5] + 0.3


def test_the_documented_file_is_measured(documented, tmp_path, capsys):
  argv = documented["big_crop.measure"]
  argv[argv.index("--out") + 1] = str(tmp_path / "out")
  measure.main([*argv, "--samples", "2e4"])
  rows = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in capsys.readouterr().out.splitlines()
    if line.count("|") > 8
  ]
  means = [float(row[3]) for row in rows[2:]]
  names = [row[0] for row in rows[2:]]
  assert names == ["squared_crop", "", "squared_crop(power=3)", ""]
  # Five standard errors of a mean in [0, 1].
  np.testing.assert_allclose(means[::2], means[1::2], atol=5 * 0.25 / 2e4**0.5)
  assert means[0] > means[2] + 0.03


def test_the_documented_file_is_matched(documented, capsys):
  match.main(documented["big_crop.match"])
  spec = capsys.readouterr().out.split("  ")[0]
  percentile = lambda s: exact.size_distribution(
    registry.law_of(s), 375, 500
  ).percentile(5)
  assert spec.startswith("squared_crop(power=")
  assert percentile(spec) == pytest.approx(
    percentile("inception_crop(area_min=5)"), abs=2e-4
  )
  with pytest.raises(ValueError, match="did you mean 'power'"):
    match.solve("inception_crop", "squared_crop", "powr")


def test_a_study_knows_the_documented_file(documented):
  factors = dict(crop="squared_crop", area_min=0, power=3, epochs=7)
  run = types.SimpleNamespace(
    factors=factors, seed=0, json_config={"pp_modules": ["my_crop"]}
  )
  config = types.SimpleNamespace(
    metrics=[dict(key="a", label="a")], seeds=[0], arguments={}
  )
  state = types.SimpleNamespace(run=run, summary=None)
  results.of_study(types.SimpleNamespace(config=config), [state])
  # P(u^3 <= s) = 5% at s = 0.05^3.
  assert results.crop_scale_percentile(factors) == pytest.approx(0.0125)


def test_the_ops_exist_once_the_law_does():
  assert "mine" not in registry.names()
  with pytest.raises(ValueError, match="unknown op 'mine'"):
    registry.lookup("mine")
  laws.register_law("mine", laws.PowerLaw)
  laws.register_law("mine", laws.PowerLaw)  # as a reloaded module does
  assert {"mine", "decode_jpeg_and_mine"} <= set(registry.names())
  assert registry.law_of("mine(9, p=3)") == laws.PowerLaw(p=3)
  with pytest.raises(ValueError, match=r"already registered by .*PowerLaw"):
    registry.register("decode_jpeg_and_mine")(lambda: None)


def test_a_law_may_not_take_an_ops_name():
  laws.register_law("flip_lr", laws.PowerLaw)
  twice = r"'flip_lr' is registered twice: by pp_ops\.image\..* law .*PowerLaw"
  with pytest.raises(ValueError, match=twice) as e:
    registry.get_preprocess_fn("flip_lr")
  assert "\n" not in str(e.value)


class Undecorated(laws.FixedLaw):
  power: float = 2.0


@pytest.mark.parametrize(
  "quantile", [lambda u: 2 * u - 1, lambda u: 1 - u, lambda u: u * np.nan]
)
def test_a_quantile_that_is_none_is_refused(quantile):
  """Sampled and exact distributions would differ, and sizes could be NaN."""
  name = "area_quantile"
  wrong = type(
    "Wrong", (laws.FixedLaw,), {name: lambda self, u, xp: quantile(u)}
  )
  with pytest.raises(ValueError, match=r"Wrong\.area_quantile gives"):
    wrong()


@pytest.mark.parametrize(
  ("name", "law_class", "message"),
  [
    ("mine", dict, "need a subclass of pp_ops.laws.Law, got <class 'dict'>"),
    ("mine", laws.FixedLaw(), "need a subclass of pp_ops.laws.Law"),
    ("mine", Undecorated, "Undecorated has fields (power) but no @dataclasses"),
    ("beta_crop", laws.PowerLaw, "registered: pp_ops.laws.area.BetaLaw"),
    ("inception_crop_coupled", laws.PowerLaw, "registered: "),
    ("decode_jpeg_and_beta_crop", laws.PowerLaw, "need a name as in Python"),
    ("my crop", laws.PowerLaw, "law 'my crop': need a name as in Python"),
  ],
)
def test_wrong_uses_are_one_line(name, law_class, message):
  with pytest.raises(ValueError, match=re.escape(message)) as e:
    laws.register_law(name, law_class)
  assert "\n" not in str(e.value)
  assert set(laws.LAWS) == {
    *("inception_crop", "inception_crop_port", "inception_crop_fixed"),
    *("beta_crop", "power_crop"),
  }


@dataclasses.dataclass(frozen=True)
class LowerHalf(laws.NativeLaw):
  def place(self, u, h, w, height, width, xp):
    y, x = super().place(u, h, w, height, width, xp)
    return y * 0 + height - h, x


def test_a_subclass_of_tensorflows_law_is_not_tensorflows_kernel():
  laws.register_law("lower_crop", LowerHalf)
  pp = registry.get_preprocess_fn("lower_crop(area_max=50)")
  rows = np.arange(40)[:, None, None] * np.ones((1, 30, 1), int)
  for i in range(10):
    image = pp({"image": rows, "_seed": example_seed(0, 0, i)})["image"]
    assert image[-1, 0, 0] == 39


class OwnProposals(laws.FixedLaw):
  def propose(self, u, height, width, xp):
    return super().propose(u**2, height, width, xp)


def test_proposals_of_ones_own_have_no_exact_distribution():
  for question in (
    lambda law: exact.size_distribution(law, 30, 40),
    lambda law: exact.ideal_cdf(law, 0.5),
  ):
    with pytest.raises(ValueError, match="OwnProposals has no exact"):
      question(OwnProposals())


def test_percent_and_fraction_are_each_others_inverse():
  law = arguments.make_law(laws.BetaLaw, area_min=8, alpha=2)
  assert law == laws.BetaLaw(area_min=0.08, alpha=2)
  for name, value in (("area_min", 0.25), ("area_max", 0.5), ("alpha", 3)):
    argument = arguments.to_percent(name, value)
    assert arguments.from_percent(name, argument) == value
    assert (argument != value) == name.startswith("area")
