"""Tables of what `robustness.suite` measured."""

from typing import Any

import numpy as np

from big_crop.display import tables
from big_crop.robustness.suite import NONE, SETS, Measurement
from pp_ops.corruptions import NAMES

# AlexNet's error on ImageNet-C as a fraction, mean over the five severities,
# from the authors' sheet (github.com/hendrycks/robustness, "Calculating the
# mCE").
ALEXNET = {
  "gaussian_noise": 0.886428,
  "shot_noise": 0.894468,
  "impulse_noise": 0.922640,
  "defocus_blur": 0.819880,
  "glass_blur": 0.826268,
  "motion_blur": 0.785948,
  "zoom_blur": 0.798360,
  "snow": 0.866816,
  "frost": 0.826572,
  "fog": 0.819324,
  "brightness": 0.564592,
  "contrast": 0.853204,
  "elastic_transform": 0.646056,
  "pixelate": 0.717840,
  "jpeg_compression": 0.606500,
}


def corruption_means(m: Measurement) -> dict[str, float]:
  """Top-1 of each corruption, the mean over its severities; without `NONE`."""
  tops = {}
  for test, result in m.results.items():
    if isinstance(test, tuple) and test != NONE:
      tops.setdefault(test[0], []).append(result.metrics["top1"])
  return {name: float(np.mean(values)) for name, values in tops.items()}


def mean_corruption_error(m: Measurement) -> float | None:
  """mCE: the mean over corruptions of the error relative to AlexNet's.

  None unless the run is on ImageNet and has all 15 corruptions at all five
  severities, because AlexNet's errors are means over these.
  """
  needed = {(name, s) for name in ALEXNET for s in range(1, 6)}
  if not (m.is_imagenet and needed <= set(m.results)):
    return None
  top1 = corruption_means(m)
  return float(np.mean([(1 - top1[c]) / e for c, e in ALEXNET.items()]))


def _row(m: Measurement) -> dict[str, Any]:
  """The numbers of a run in percent."""
  top1 = lambda test: m.results[test].metrics["top1"]
  metrics = m.results["clean"].metrics
  row = {"clean": top1("clean")}
  for key in ("rms_calibration", "rms_calibration_pixmix"):
    row[key] = metrics.get(key)
  for test in ("fgsm", "pgd", *SETS):
    row[test] = top1(test) if test in m.results else None
  means = corruption_means(m)
  of_mce = [value for name, value in means.items() if NAMES[name].in_mce]
  row["corruptions"] = float(np.mean(of_mce)) if of_mce else None
  row["mce"] = mean_corruption_error(m)
  percent = {k: v if v is None else 100 * v for k, v in row.items()}
  return {"run": m.name, **percent}


def _about(found):
  """What was evaluated. Names the runs where a sentence is not true of all."""
  lines = {}
  for m in found:
    for line in m.about:
      lines.setdefault(line, []).append(m.name)
  return ". ".join(
    line if len(runs) == len(found) else f"{line} ({', '.join(runs)})"
    for line, runs in lines.items()
  )


def tables_of(found: list[Measurement]) -> list[tables.Table]:
  """The table with a row per run, and that with a row per corruption."""
  columns = {
    "run": "run",
    "clean": "clean",
    "RMS calibration": "rms_calibration",
    "PixMix's": "rms_calibration_pixmix",
    "FGSM": "fgsm",
    "PGD": "pgd",
    **{title: test for test, (title, *_) in SETS.items()},
    "corruptions": "corruptions",
    "mCE": "mce",
  }
  out = [
    tables.of_records(
      "robustness",
      "Top-1, RMS calibration error and mCE in percent",
      [_row(m) for m in found],
      columns,
      f"{_about(found)}.",
    )
  ]
  rows, records = [], []
  for name in [NONE[0], *NAMES]:
    tops = []
    for m in found:
      of = {
        test[1]: result.metrics["top1"]
        for test, result in m.results.items()
        if test[0] == name
      }
      tops.append(100 * float(np.mean([*of.values()])) if of else None)
      for severity, value in of.items():
        record = {"run": m.name, "corruption": name, "severity": severity}
        records.append(record | {"top1": 100 * value})
    if any(t is not None for t in tops):
      cells = ["" if t is None else tables.number(t, 2) for t in tops]
      rows.append([name, *cells])
  if rows:
    title = "Top-1 in percent of corrupted images, mean over the severities"
    head = ["corruption", *(m.name for m in found)]
    out.append(tables.Table("corruptions", title, head, rows, records))
  return out


def summary(found: list[Measurement]) -> dict[str, Any]:
  """summary.json: all metrics, as fractions."""
  return {
    "runs": [
      {
        "run": m.name,
        "workdir": m.workdir,
        "about": m.about,
        "mce": mean_corruption_error(m),
        "tests": {
          test if isinstance(test, str) else "_".join(map(str, test)): r.metrics
          for test, r in m.results.items()
        },
      }
      for m in found
    ]
  }
