"""What is installed is what is imported: pp_ops alone, and with big_crop."""

import ast
import importlib.metadata
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
# What a file needs only where big_vision, which brings absl, is there.
GUESTS = {"big_vision.py": {"big_vision", "absl"}}


def requirements(name):
  """Normalised names of the distributions that a requirements file lists."""
  lines = (ROOT / f"requirements{name}.txt").read_text().splitlines()
  found = [re.match(r"[\w.-]+", line) for line in lines if line[:1].isalpha()]
  return [normalised(m[0]) for m in found]


def normalised(name):
  return re.sub(r"[-_.]+", "-", name).lower()


def imported(package):
  """Distributions that the files of a package import, at whatever level."""
  of_module = importlib.metadata.packages_distributions()
  found = set()
  for path in (ROOT / package).rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [node.module]
      for name in {n.partition(".")[0] for n in names}:
        if name in sys.stdlib_module_names | {"pp_ops", "big_crop"}:
          continue
        if name not in GUESTS.get(path.name, ()):
          found |= {normalised(d) for d in of_module.get(name, [name])}
  return found


def test_pp_ops_imports_what_it_requires_and_nothing_else():
  assert imported("pp_ops") == set(requirements("-ops"))
  for path in (ROOT / "pp_ops").rglob("*.py"):
    modules = re.findall(r"(?:import|from) (\w+)", path.read_text())
    assert "big_crop" not in modules, path


def test_big_crop_imports_what_is_required():
  parts = ("-ops", "-train", "-peers")
  known = {name for part in parts for name in requirements(part)}
  assert imported("big_crop") <= known


def test_the_installer_reads_the_files_that_the_readme_installs():
  listed = (ROOT / "requirements.txt").read_text().splitlines()
  parts = ["requirements-ops.txt", "requirements-train.txt"]
  assert listed[-2:] == [f"-r {p}" for p in parts]
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())
  dynamic = project["tool"]["setuptools"]["dynamic"]
  assert dynamic["dependencies"]["file"] == parts[:1]
  assert dynamic["optional-dependencies"]["train"]["file"] == parts[1:]


def test_no_range_is_written_twice():
  parts = ("", "-ops", "-train", "-test", "-peers")
  names = [name for part in parts for name in requirements(part)]
  assert len(names) == len(set(names)) > 15
