"""A study whose runs are made up, for the tests of studies."""

import json
import pathlib
import textwrap

from big_crop.runtime import storage
from big_crop.study import fingerprint, worker

ROOT = pathlib.Path(__file__).parents[1]

BASE = """
from big_crop.config import default_config, parse_arg

def get_config(arg=None):
  arg = parse_arg(arg, crop="inception_crop_fixed", area_min=5.0, alpha=None,
                  beta=None, epochs=10, seed=0)
  c = default_config()
  c.seed, c.total_epochs = arg.seed, arg.epochs
  shape = "".join(f", {k}={arg[k]}" for k in ("alpha", "beta") if arg[k])
  c.input.pp = f"decode_jpeg_and_{arg.crop}(16, area_min={arg.area_min}{shape})"
  return c
"""
STUDY = """
from big_crop.study.grid import default_study

def get_config(arg=None):
  c = default_study()
  c.base = "base.py"
  c.sets = [dict(crop=["inception_crop_coupled", "inception_crop_fixed"],
                 area_min=[5, 25], epochs=[10, 20])]
  c.families = [
    dict(name="native", label="native", x="area_min",
         where=dict(crop="inception_crop_coupled")),
    dict(name="fixed", label="fixed", x="area_min",
         where=dict(crop="inception_crop_fixed")),
    dict(name="laws", label="laws at 5%", x="crop", where=dict(area_min=5)),
  ]
  c.comparisons = [dict(title="native against fixed", a="native", b="fixed"),
                   dict(title="fixed against 5%", a="fixed", base=5)]
  c.strength = ["native", "fixed"]
  c.scatter = [dict(title="loss", x="training_loss", y="val/top1")]
  {extra}
  return c
"""


def write_study(folder, extra=""):
  """Writes base.py and study.py; returns the latter's path."""
  (folder / "base.py").write_text(BASE)
  text = textwrap.dedent(STUDY).format(extra=extra)
  (folder / "study.py").write_text(text)
  return str(folder / "study.py")


def make_quick(monkeypatch):
  """Replaces what takes seconds and made-up runs do not need."""
  # The fingerprint of the dataset needs TensorFlow, to draw the images.
  monkeypatch.setattr(fingerprint, "_dataset", lambda *place: str(place))
  # With TensorFlow and JAX loaded, a garbage collection takes long.
  monkeypatch.setattr(worker, "_clear", lambda: None)


def train(config, workdir):
  """Writes a run's files to the workdir, with values made from its config."""
  workdir = storage.path(workdir)
  (workdir / "config.json").write_text(
    json.dumps(json.loads(config.to_json_best_effort()))
  )
  fixed = "fixed" in config.input.pp
  weak = "area_min=25" in config.input.pp
  base = 0.5 + config.total_epochs / 100 + 0.02 * fixed + 0.001 * config.seed
  top1 = base + (0.03 if weak else -0.01) * (1 if fixed else 1.1)
  records = [
    {"step": s, "training_loss": 3 - s / 10 - top1} for s in range(1, 11)
  ]
  (workdir / "metrics.jsonl").write_text(
    "".join(json.dumps(r) + "\n" for r in records)
  )
  summary = {"step": 10, "params_sha256": "0", "wall_time_s": 1.0}
  metrics = {"val/top1": top1, **records[-1]}
  (workdir / "summary.json").write_text(
    json.dumps({**summary, "metrics": metrics})
  )
