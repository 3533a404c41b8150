"""A study's code digest: what changes a run's result, and nothing else."""

import ast
import functools
import shutil
import subprocess
import sys

import pytest
import study_helpers

from big_crop.study import grid, reach, runs, worker

CONFIG = {
  "model_name": "vit",
  "optax_name": "scale_by_adam",
  "pp_modules": [],
  "input": {"engine": "tf.data"},
  "evals": {"val": {"type": "classification"}},
}
ENTROPY = {**CONFIG, "evals": {"entropy": {"type": "saliency"}}}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
  root = tmp_path_factory.mktemp("sources")
  for name in ("big_crop", "pp_ops"):
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(study_helpers.ROOT / name, root / name, ignore=ignore)
  return root


class Tree:
  """A copy of the two packages that can be edited."""

  def __init__(self, root):
    self.root = root

  def digests(self, config=CONFIG):
    reach._read.cache_clear()
    reach._file.cache_clear()
    return reach.digests(config, self.root)

  def edit(self, path, how=lambda text: text + "\nedited = True\n"):
    path = self.root / path
    assert path.is_file(), path
    path.write_text(how(path.read_text()))


@pytest.fixture
def tree(sources, tmp_path):
  shutil.copytree(sources, tmp_path / "tree")
  return Tree(tmp_path / "tree")


def other_words(text):
  """Other docstrings, no comments, and the layout of `ast.unparse`."""
  tree = ast.parse(text)
  kinds = ast.Module | ast.ClassDef | ast.FunctionDef
  for node in (n for n in ast.walk(tree) if isinstance(n, kinds)):
    if ast.get_docstring(node):
      del node.body[0]
    node.body.insert(0, ast.Expr(ast.Constant("Something else.")))
  return ast.unparse(tree)


@pytest.mark.long
def test_words_and_layout_do_not_count(tree):
  before = tree.digests(ENTROPY)
  paths = [p.relative_to(tree.root) for p in tree.root.rglob("*.py")]
  assert len(paths) > 100
  for path in paths:
    tree.edit(path, other_words)
  assert tree.digests(ENTROPY) == before


@pytest.mark.parametrize(
  "path",
  [
    "big_crop/bench/step.py",
    "big_crop/match.py",
    "big_crop/measure/measurement.py",
    "big_crop/models/resnet.py",
    "big_crop/display/pictures.py",
    "big_crop/saliency/evaluator.py",
    "big_crop/study/statistics.py",
    "pp_ops/drop_in.py",
  ],
)
def test_what_a_run_does_not_compute_with_does_not_count(tree, path):
  before = tree.digests()
  tree.edit(path)
  assert tree.digests() == before


@pytest.mark.parametrize(
  "path",
  [
    "big_crop/data/sources.py",
    "big_crop/data/tfds_source.py",  # imported in a function
    "big_crop/evaluators/classification.py",
    "big_crop/models/vit.py",
    "big_crop/optim/scion.py",
    "big_crop/optim/schedules.py",
    "big_crop/step.py",
    "big_crop/train.py",
    "pp_ops/__init__.py",
    "pp_ops/color.py",
    "pp_ops/laws/area.py",
  ],
)
def test_what_a_run_computes_with_counts(tree, path):
  before = tree.digests()
  tree.edit(path)
  after = tree.digests()
  changed = [k for k in after if after[k] != before[k]]
  name = path.removesuffix(".py").removesuffix("/__init__")
  assert changed == [name.replace("/", ".")]


def test_an_evaluator_counts_without_its_figures(tree):
  before = tree.digests(ENTROPY)
  tree.edit("big_crop/saliency/figures.py")
  assert tree.digests(ENTROPY) == before
  tree.edit("big_crop/saliency/maps.py")
  assert tree.digests(ENTROPY) != before


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("model_name", "my_net.deep.model"),
    ("objective_name", "my_net.deep.model"),
    ("evals", {"val": {"type": "my_net.deep.model"}}),
    ("pp_modules", ["my_net.deep.model"]),
    ("pp_modules", ["my_ops"]),
  ],
)
def test_the_users_own_modules_count_with_what_they_import(
  tree, monkeypatch, key, value
):
  folder = tree.root / "my_net"
  (folder / "deep").mkdir(parents=True)
  helper = folder / "layers.py"
  helper.write_text("width = 1\n")
  (folder / "deep" / "model.py").write_text(
    "import numpy\ndef f():\n  from ..layers import width\n"
  )
  (tree.root / "my_ops.py").write_text("import my_net.layers\n")
  monkeypatch.syspath_prepend(str(tree.root))
  config = {**CONFIG, key: value}
  before = tree.digests(config)
  assert "my_net.layers" in before
  assert {k.partition(".")[0] for k in before} <= {
    *("big_crop", "pp_ops", "my_net", "my_ops")
  }
  helper.write_text("width = 2  # wider\n")
  assert tree.digests(config) != before
  assert "my_net.layers" not in tree.digests()


def test_a_half_done_study(tree, tmp_path, monkeypatch):
  """Goes on after an edit of `measure`'s docstrings, but not of a law."""
  study_helpers.make_quick(monkeypatch)
  whole = functools.partial(reach.digests, root=tree.root)
  monkeypatch.setattr(reach, "digests", whole)
  study = grid.load(study_helpers.write_study(tmp_path))
  workdir = str(tmp_path / "w")
  worker.work(study, workdir, study_helpers.train, index=0)
  check = lambda: runs.check_unchanged(runs.states(study, workdir))
  for path in ("big_crop/measure/measurement.py", "pp_ops/laws/area.py"):
    tree.edit(path, other_words)
  reach._read.cache_clear()
  check()
  tree.edit("pp_ops/laws/area.py")
  reach._read.cache_clear()
  with pytest.raises(ValueError, match=r"edited: pp_ops\.laws\.area;"):
    check()


_BUILD = """
import sys
from big_crop import config, train
c = config.load(sys.argv[1])
c.input.data.split = "train[:128]"  # each image has to be drawn
c.evals.val.data.split = "validation[:64]"
train.build(c)
print(*(n for n in sys.modules if n.startswith(("big_crop", "pp_ops"))))
"""


@pytest.mark.slow
def test_all_that_the_trainer_loads_is_found():
  path = str(study_helpers.ROOT / "configs/quickstart.py")
  loaded = subprocess.run(
    [sys.executable, "-c", _BUILD, path],
    cwd=study_helpers.ROOT,
    capture_output=True,
    check=True,
    text=True,
  ).stdout.split()
  found = reach.digests({**CONFIG, "model_name": "vit"})
  assert {"big_crop.step", "big_crop.models.vit"} <= set(loaded)
  assert set(loaded) - set(found) <= set(reach._NO_NUMBERS)
