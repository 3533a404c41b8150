"""What is installed is what is imported: pp_ops alone, and with big_crop."""

import ast
import importlib.metadata
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
# Packages that only one file imports, for users who have them. absl comes with
# big_vision.
GUESTS = {
  "big_vision.py": {"big_vision", "absl"},
  "grain.py": {"grain", "PIL"},
  "storage.py": {"aiohttp", "fsspec", "gcsfs", "google"},
  "checksums.py": {"google_crc32c"},
}
PARTS = ("-ops", "-device", "-train")  # of requirements.txt


def requirements(name):
  """(normalised distribution, its range) of a requirements file's lines."""
  lines = (ROOT / f"requirements{name}.txt").read_text().splitlines()
  lines = [line.partition("#")[0] for line in lines if line[:1].isalpha()]
  found = [re.fullmatch(r"([\w.-]+)(.*?)\s*", line) for line in lines]
  return [(normalised(m[1]), m[2]) for m in found]


def required(*names):
  """Normalised names of the distributions that requirements files list."""
  return {name for part in names for name, _ in requirements(part)}


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
  assert imported("pp_ops") == required("-ops")
  for path in (ROOT / "pp_ops").rglob("*.py"):
    modules = re.findall(r"(?:import|from) (\w+)", path.read_text())
    assert "big_crop" not in modules, path


def test_big_crop_imports_what_is_required_and_nothing_else():
  """tests/test_without_tensorflow.py tests that the device part suffices."""
  found = imported("big_crop")
  assert required("-device", "-train") <= found
  assert found <= required(*PARTS, "-peers")


def test_the_installer_reads_the_files_that_the_readme_installs():
  listed = (ROOT / "requirements.txt").read_text().splitlines()
  ops, device, train = files = [f"requirements{part}.txt" for part in PARTS]
  assert listed[1:] == [f"-r {file}" for file in files]
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())
  dynamic = project["tool"]["setuptools"]["dynamic"]
  assert dynamic["dependencies"]["file"] == [ops]
  extras = dynamic["optional-dependencies"]
  assert extras["device"]["file"] == [device]
  assert extras["train"]["file"] == [device, train]
  assert extras["gs"]["file"] == ["requirements-gs.txt"]


def test_no_range_is_written_twice():
  """Except for what the ops and the device part both need, in equal ranges."""
  found = [
    pair
    for part in (*PARTS, "-gs", "-test", "-peers")
    for pair in requirements(part)
  ]
  twice = {pair for pair in found if found.count(pair) > 1}
  assert twice == set(requirements("-ops")) & set(requirements("-device"))
  names = [name for name, _ in set(found)]
  assert len(names) == len(set(names)) > 15
