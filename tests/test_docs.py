"""README and docs: links lead somewhere, and training commands load."""

import json
import pathlib
import re
import shlex

import pytest

from big_crop import config as configs

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = "python -m big_crop.train "


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


def _training_commands():
  for page in PAGES:
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S):
      for line in block.replace("\\\n", "").splitlines():
        if COMMAND in line:
          yield pytest.param(line.split(COMMAND)[1], id=page.name)


@pytest.mark.parametrize("command", list(_training_commands()))
def test_training_commands_load(command, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "RUN").mkdir()
  run = dict(model_name="vit", model=dict(variant="MAE-B/16"))
  (tmp_path / "RUN" / "config.json").write_text(json.dumps(run))
  argv = shlex.split(command)
  if "CONFIG" in argv or "BIG_VISION" in command:
    pytest.skip("the config is the reader's")
  assert "--workdir" in argv
  # Several hosts and processes are the launcher's, not the config's.
  overrides = [arg for arg in argv if arg.startswith("--config.")]
  spec = argv[argv.index("--config") + 1]
  config = configs.load(str(ROOT / spec), overrides)
  assert config.input.pp
