"""README and docs: links lead somewhere, and every command is tried.

A command of ours is tried without its work: its module is imported, its
arguments are parsed by its own parser, its config is loaded, and the pp string
in it is built. TPU scripts run with --dry-run.
"""

import argparse
import importlib
import importlib.util
import inspect
import itertools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from big_crop import config as configs
from big_crop import names
from big_crop.device_ops import registry as device
from pp_ops import laws, registry

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
  *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
  *sorted((ROOT / "docs").glob("*.md")),
]
# Commands of other projects or of the system, which are not tried.
FOREIGN = re.compile(
  r"\. \.venv|cp tpu_scripts/settings|gcloud|grep|gsutil|ssh-add|jax\.devices"
  r"|python detectron2/|python -m (big_vision\.|venv)|python3 -m venv"
)
# Variables of the reader's shell. All other paths must exist.
VARIABLES = {"$HOME": "/home/me", "$SLURM_ARRAY_TASK_ID": "0"}


def _anchors(page):
  """The anchors of a page's headings, as GitHub makes them."""
  headings = re.findall(r"^#+ (.*)$", page.read_text().lower(), re.M)
  return [re.sub(r"[^\w\- ]", "", h).replace(" ", "-") for h in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
  links = re.findall(r"\]\((?!https?:)([^)]*)\)", page.read_text())
  for link in links:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    assert target.is_file(), link
    assert not anchor or anchor in _anchors(target), link


def commands_of(text):
  """The commands in a page's shell blocks and quoted in its prose.

  Args:
    text: the page.

  Returns:
    (command, whether it is quoted in prose). In prose it may be a mere name.
  """
  blocks = re.findall(r"```(?:sh|bash|shell|console)\n(.*?)```", text, re.S)
  text = re.sub(r"```.*?```", "", text, flags=re.S)
  # Docstrings of configs in the reference have theirs indented.
  indented = re.findall(r"(?:^ {4,}.*\n)+", text, re.M)
  blocks += [b for b in indented if re.match(r'\s+(S|P)="|\s+python -m', b)]
  found = []
  for block in blocks:
    variables = dict(VARIABLES)
    for line in block.replace("\\\n", "").splitlines():
      line = re.sub(r"(^|\s)#.*", "", line).strip()
      if match := re.fullmatch(r'([A-Z])="(.*)"', line):
        variables[f"${match[1]}"] = match[2]
        continue
      for name, value in variables.items():
        line = line.replace(name, value)
      found += [(part, False) for part in line.split("&&") if part.strip()]
  quoted = re.findall(r"`((?:python -m|pip install|tpu_scripts/)[^`]*)`", text)
  found += [(" ".join(command.split()), True) for command in quoted]
  return found


class _Parsed(Exception):
  pass


def _parsed(module, argv, monkeypatch):
  """A command's arguments as its own parser reads them: (namespace, rest)."""
  spec = importlib.util.find_spec(module)
  assert spec, f"no module {module}"
  if spec.submodule_search_locations:
    module += ".__main__"
  main = importlib.import_module(module).main
  if argv is None:
    return None
  parse = argparse.ArgumentParser.parse_known_args
  nested = []  # because parse_args and subparsers call it

  def parse_known_args(self, args=None, namespace=None):
    nested.append(self)
    found = parse(self, args, namespace)
    nested.pop()
    if not nested:
      raise _Parsed(*found)
    return found

  def parse_args(self, args=None, namespace=None):
    nested.append(self)
    found, rest = self.parse_known_args(args, namespace)
    assert not rest, f"unknown arguments {rest}"
    raise _Parsed(found, rest)

  with monkeypatch.context() as m:
    m.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    m.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    m.setattr(sys, "argv", [module, *argv])
    with pytest.raises(_Parsed) as e:
      main(argv) if inspect.signature(main).parameters else main()
  return e.value.args


def _try_config(spec, overrides):
  """Loads a config. If it is a run's, its ops and names must exist."""
  config = configs.load(spec, overrides)
  if "input" not in config:
    return
  registry.import_modules(config.pp_modules)
  engines = {"tf.data": registry.lookup, "device": device.lookup}
  assert registry.build(config.input.pp, engines[config.input.engine])
  kinds = [("model_name", config.model_name, "Model")]
  kinds += [("objective_name", config.objective_name, "Objective")]
  kinds += [
    ("type", e.get("type", "classification"), "Evaluator")
    for e in config.evals.values()
  ]
  packages = {"Model": "models", "Objective": "objectives"}
  for key, name, needs in kinds:
    package = f"big_crop.{packages.get(needs, 'evaluators')}"
    known = importlib.import_module(package)._MODULES
    names.import_named(key, name, known, needs=needs)


def _try_ours(words, quoted, monkeypatch):
  """Tries `python -m MODULE ...`."""
  module, argv = words[2], [w for w in words[3:] if w not in ("[RUN", "...]")]
  if quoted and (not argv or argv[-1] == "..."):
    argv = None  # only the command's name
  elif argv[-1:] == ["..."]:
    argv = argv[:-1]
  if module == "pytest":
    for path in (w for w in words if w.startswith("tests/")):
      assert (ROOT / path).is_file(), path
    return
  parsed = _parsed(module, argv, monkeypatch)
  spec = parsed and getattr(parsed[0], "config", None)
  if spec and not spec.startswith(("CONFIG", "FILE", "BIG_VISION")):
    _try_config(spec, parsed[1])


def _try_script(words, quoted, monkeypatch):
  """Tries a script of tpu_scripts, and the command in its arguments."""
  at = next(i for i, w in enumerate(words) if w.startswith("tpu_scripts/"))
  script, rest = ROOT / words[at], words[at + 1 :]
  assert script.exists(), script
  if quoted and (not rest or rest[-1] == "..." or rest[-1].isupper()):
    return  # a mere name, or with placeholders
  assert os.access(script, os.X_OK), script
  if words[0] == "sbatch":
    if script.name == "slurm_study.sh":
      config, workdir = rest
      rest = "python -m big_crop.study run --workdir".split()
      rest += [workdir, "--config", config]
  else:
    end = rest.index("--") if "--" in rest else len(rest)
    flags, rest = rest[:end], rest[end + 1 :]
    settings = dict(PROJECT="p", ZONE="us-east1-d", NAME="n")
    env = os.environ | {f"BIG_CROP_TPU_{k}": v for k, v in settings.items()}
    argv = [script, *flags, "--dry-run", *["--", *rest] * bool(rest)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
  if rest:
    _try_ours(rest, False, monkeypatch)


def _try(command, quoted, monkeypatch):
  """Raises unless a command, or the part of it that prose quotes, is right."""
  command = re.sub(r"^([A-Z_]+=\S+ )+", "", command)
  if FOREIGN.match(command):
    return
  if "{" in command and "pytest" in command:  # bash expands braces
    command = subprocess.check_output(["bash", "-c", f"echo {command}"], text=1)
  words = shlex.split(command)
  if words[:2] == ["python", "-m"]:
    _try_ours(words, quoted, monkeypatch)
  elif words[:2] == ["python", "-c"]:
    compile(words[2], command, "exec")
  elif words[0] == "python":
    assert (ROOT / words[1]).is_file(), command
  elif words[:2] == ["pip", "install"]:
    for flag, path in itertools.pairwise(words):
      assert flag != "-r" or (ROOT / path).is_file(), path
  elif words[0] == "sbatch" or words[0].startswith("tpu_scripts/"):
    _try_script(words, quoted, monkeypatch)
  else:
    # .ci/run builds the site.
    assert words[0] == "mkdocs", f"nothing here tries {command!r}"


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
  """A folder like the reader's; modules loaded from it are removed again."""
  registry.names(), device.names()  # import the ops that come along
  tables = registry._OPS, device._OPS, laws.LAWS
  before = [dict(table) for table in tables]
  loaded = set(sys.modules)
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  (tmp_path / "RUN").mkdir()
  run = dict(model_name="vit", model=dict(variant="MAE-B/16"))
  (tmp_path / "RUN" / "config.json").write_text(json.dumps(run))
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(tmp_path))
  yield tmp_path
  for table, old in zip(tables, before, strict=True):
    table.clear()
    table.update(old)
  for name in set(sys.modules) - loaded:
    if getattr(sys.modules[name], "__file__", None) and str(
      sys.modules[name].__file__
    ).startswith(str(tmp_path)):
      del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_is_right(page, readers_folder, monkeypatch):
  texts = [page.read_text()]
  if page.name == "your_own.md":  # which shows the command, but not the file
    texts.append((page.parent / "own_objective.md").read_text())
  for text in texts:
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
      compile(code, page.name, "exec")
      if match := re.match(r"# (\w+)\.py\b", code):
        (readers_folder / f"{match[1]}.py").write_text(code)
  wrong = []
  for command, quoted in commands_of(texts[0]):
    try:
      _try(command.strip(), quoted, monkeypatch)
    except (Exception, SystemExit) as e:
      wrong.append(f"{command}\n  {type(e).__name__}: {e}")
  assert not wrong, "\n".join(wrong)


def test_no_command_escapes():
  """`commands_of` finds each of our commands that a page mentions."""
  for page in PAGES:
    text = page.read_text()
    found = " ".join(command for command, _ in commands_of(text))
    for module in set(re.findall(r"python -m (big_crop\.\w+)", text)):
      assert f"python -m {module}" in found, (page.name, module)
  assert sum(len(commands_of(p.read_text())) for p in PAGES) > 150


@pytest.mark.parametrize(
  "command",
  [
    "python -m big_crop.no_such --workdir DIR",
    "python -m big_crop.match --target beta_crop --familly beta_crop",
    "python -m big_crop.train --workdir DIR --config configs/no_such.py",
    "python -m big_crop.train --workdir DIR --config "
    "configs/quickstart.py:crops=beta_crop",
    "python -m big_crop.train --workdir DIR --config configs/quickstart.py "
    "--config.input.pp='decode|no_such_op'",
    "python -m big_crop.study run --workdir DIR --config "
    "configs/studies/quick.py:no_such=1",
    "python -m pytest tests/test_no_such.py",
    "pip install -r requirements-no-such.txt",
    "tpu_scripts/create --tipe v6e-16",
    "make install",
  ],
)
def test_a_wrong_command_is_noticed(command, readers_folder, monkeypatch):
  with pytest.raises((Exception, SystemExit)):
    _try(command, False, monkeypatch)
