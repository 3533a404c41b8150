"""The studies of "ResNet strikes back" with made-up recipes and runs.

Like a real recipe, a made-up one is a config file with arguments.
"""

import json
import pathlib
import shutil
import zlib

import numpy as np
import study_helpers

from big_crop.study import grid, resnet_strikes_back, worker
from big_crop.study.__main__ import main

BASE = """
from big_crop.config import default_config, parse_arg

def get_config(arg=None):
  arg = parse_arg(arg, crop="inception_crop_fixed", area_min=8.0, seed=0,
                  test_crops=False, test_sizes=False, data_dir=None,
                  smoke=False, **{recipe})
  c = default_config()
  c.seed, c.total_epochs, c.lr = arg.seed, 10, arg.lr
  c.input.pp = f"decode_jpeg_and_{{arg.crop}}(16, area_min={{arg.area_min}})"
  c.model = dict(recipe="{name}", **{{k: v for k, v in arg.items()
                                     if not k.startswith(("seed", "test_"))}})
  crops = (875, 900, 950, 1000) if arg.test_crops else ()
  sizes = (128, 160, 192, 256, 288, 320, 352, 384) if arg.test_sizes else ()
  for name in ("val", *(f"val_crop{{n}}" for n in crops),
               *(f"val_res{{n}}" for n in sizes)):
    c.evals[name] = dict(data=dict(name="critters", split="validation"))
  return c
"""


def study(folder, name, arguments=""):
  """A study config of `configs/studies` on made-up recipes, loaded."""
  (folder / "studies").mkdir()
  (folder / "resnet_strikes_back").mkdir()
  path = folder / "studies" / f"{name}.py"
  shutil.copy(study_helpers.ROOT / "configs/studies" / path.name, path)
  for recipe, levels in resnet_strikes_back.RECIPES.items():
    text = BASE.format(name=recipe, recipe=levels)
    (folder / "resnet_strikes_back" / f"{recipe}.py").write_text(text)
  return grid.load(f"{path}:{arguments}")


def values(config):
  """What a made-up run measures, a function of its config; fractions."""
  changed = json.dumps(config.model.to_dict(), sort_keys=True)
  rng = np.random.default_rng([zlib.crc32(changed.encode()), config.seed])
  shared = np.random.default_rng(config.seed).normal()
  level = 0.7 + 10 * config.lr + 0.0005 * ("coupled" in config.model.crop)
  top1 = level + 0.001 * shared + 0.0005 * rng.normal()
  v2 = top1 - 0.1 + 0.002 * rng.normal()
  crops = {
    f"{name}/top1": top1 - 0.001 * i + 0.0001 * rng.normal()
    for i, name in enumerate(k for k in config.evals if k != "val")
  }
  return {"val/top1": top1, "real/top1": top1 + 0.05, "v2/top1": v2, **crops}


def train(config, workdir):
  """Writes the files of a finished run to the workdir."""
  workdir = pathlib.Path(workdir)
  (workdir / "config.json").write_text(
    json.dumps(json.loads(config.to_json_best_effort()))
  )
  last = values(config)
  records = [
    {"step": s, "val/top1": last["val/top1"] * s / 20} for s in range(2, 21, 2)
  ]
  (workdir / "metrics.jsonl").write_text(
    "".join(json.dumps(r) + "\n" for r in records)
  )
  summary = {"step": 20, "params_sha256": "0", "wall_time_s": 1.0}
  metrics = {**last, "epoch": 10.0}
  (workdir / "summary.json").write_text(
    json.dumps({**summary, "metrics": metrics})
  )


def finish(loaded, workdir, skip=()):
  """Makes up all runs but those whose index is in `skip`."""
  for run in loaded.runs:
    if run.index not in skip:
      worker.work(loaded, str(workdir), train, index=run.index)


def report(loaded, arguments, workdir):
  """The report's files as text, by name."""
  config = f"{loaded.path}:{arguments}"
  assert main(["report", "--config", config, "--workdir", str(workdir)]) == 0
  folder = pathlib.Path(workdir) / "report"
  return {
    str(p.relative_to(folder)): p.read_text()
    for p in folder.rglob("*")
    if p.is_file()
  }
