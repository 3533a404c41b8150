"""AugReg's configs, and an index.csv of its checkpoints that is made up."""

import csv
import pathlib

from big_crop import config as configs

ROOT = pathlib.Path(__file__).parents[1]
COLUMNS = (
  "name,ds,epochs,lr,aug,wd,do,sd,best_val,final_val,final_test,adapt_ds,"
  "adapt_lr,adapt_steps,adapt_resolution,adapt_final_val,adapt_final_test,"
  "params,infer_samples_per_sec,filename,adapt_filename"
).split(",")
# The recommended checkpoints of vision_transformer's README. Top-1 on ImageNet
# and images/s are those of Table 3, column i21k_300 at 384 pixels.
RECOMMENDED = {
  "L/16": ("strong1", 0.1, 0.0, 0.01, 85.59, 50),
  "B/16": ("medium1", 0.1, 0.0, 0.03, 85.49, 138),
  "S/16": ("light1", 0.03, 0.0, 0.03, 83.73, 300),
  "R50+L/32": ("medium1", 0.1, 0.1, 0.01, 85.99, 327),
  "R26+S/32": ("light1", 0.1, 0.0, 0.01, 83.85, 560),
  "Ti/16": ("none", 0.03, 0.0, 0.03, 78.22, 610),
  "B/32": ("light1", 0.1, 0.0, 0.01, 83.59, 955),
  "S/32": ("none", 0.1, 0.0, 0.01, 79.58, 2154),
  "R+Ti/16": ("none", 0.03, 0.0, 0.03, 75.40, 2426),
}


def file_name(model, aug, wd, rate, ds="i21k"):
  name, epochs = model.replace("+", "_").replace("/", "_"), 300
  if ds == "i21k_30":
    ds, epochs = "i21k", 30
  return (
    f"{name}-{ds}-{epochs}ep-lr_0.001-aug_{aug}-wd_{wd}-do_{rate}-sd_{rate}"
  )


def write_index(folder):
  """Writes an index of the published format; returns its path.

  Names, test accuracies and speeds of the recommended checkpoints are real. All
  other values, and all other checkpoints, are made up.
  """
  rows = []
  for rank, (model, (*own, lr, test, speed)) in enumerate(RECOMMENDED.items()):
    # The upstream accuracy falls with the rank; the last file is of i1k.
    tried = [(*own, "i21k", 0.5 - rank / 100)]
    tried += [("strong2", 0.03, 0.1, "i21k", 0.3 - rank / 100)]
    tried += [(*own, "i21k_30", 0.6), ("light0", 0.1, 0.0, "i1k", 0.9)]
    for aug, wd, rate, ds, upstream in tried:
      filename = file_name(model, aug, wd, rate, ds)
      best = (aug, wd, rate, ds) == (*own, "i21k")
      for data, res, rate_of, val, top1 in [
        ("imagenet2012", 384, lr, 0.9 if best else 0.95, test),
        ("imagenet2012", 384, 0.02, 0.8, 99.0),
        ("imagenet2012", 224, lr, 0.9, test - 5),
        ("kitti", 384, lr, 0.6, 50.0),
      ]:
        if not best and data == "imagenet2012":
          top1 += 0.25
        adapted = f"{filename}--{data}-steps_20k-lr_{rate_of}-res_{res}"
        at = speed if res == 384 else 5 * speed
        rows.append(
          [model, ds, 300, 0.001, aug, wd, rate, rate, upstream, upstream]
          + [upstream, data, rate_of, 20_000, res, val, top1 / 100]
          + [1e6 * (9 - rank), at, filename, adapted]
        )
  path = folder / "index.csv"
  with path.open("w", newline="") as f:
    writer = csv.writer(f)
    writer.writerows([COLUMNS, *rows])
  return path


def load(name, args=""):
  return configs.load(f"{ROOT}/configs/augreg/{name}.py:{args}")
