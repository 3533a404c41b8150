"""The checkpoints of "How to train your ViT?", by their published names.

Steiner et al., https://arxiv.org/abs/2106.10270. index.csv, in the folder of
the checkpoints, has a row for each finetuned checkpoint, with the pretrained
checkpoint that it started from and the accuracy of both. Column `filename` has
the name of the pretrained, column `adapt_filename` that of the finetuned one:

    B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0
    B_16-i21k-300ep-...-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384

`light0` and `light1` in names of files are the paper's light1 and light2.
"""

import csv
import io
import re

from etils import epath

from big_crop import names
from pp_ops.errors import UserError

PREFIX = "augreg:"
PUBLISHED = "gs://vit_models/augreg"
# Levels of the column `ds`. "i21k" is the pretraining of 300 epochs.
UPSTREAM = ("i1k", "i21k_30", "i21k")
_TEXT = ("name", "ds", "aug", "adapt_ds", "filename", "adapt_filename")
_NUMBERS = (
  *("final_val", "params", "infer_samples_per_sec", "adapt_resolution"),
  *("adapt_final_val", "adapt_final_test"),
)

Row = dict[str, str | float]


def read_index(path: str) -> list[Row]:
  """Reads index.csv: text columns as str, numbers as float, NaN if empty.

  Args:
    path: local path or URL that etils.epath can open.

  Raises:
    ValueError: in one line, if there is no such file or it is no such index.
  """
  try:
    text = epath.Path(path).read_text()
  except FileNotFoundError as e:
    raise UserError(
      f"no index {path}: copy {PUBLISHED}/index.csv there, or name that"
    ) from e
  rows = []
  for line, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
    try:
      if None in row.values():
        raise ValueError("the line is cut")
      numbers = {k: float(row[k] or "nan") for k in _NUMBERS}
      rows.append({k: row[k] for k in _TEXT} | numbers)
    except (KeyError, ValueError) as e:
      raise UserError(
        f"{path}, line {line}: not as in AugReg's index.csv: {e!r}"
      ) from e
  return rows


def variant(name: str) -> str:
  """The variant of `models.vit` for a checkpoint's or a model's name."""
  model = re.split("[-@]", name.removeprefix(PREFIX))[0]
  parts = re.split("[_+/]", model)
  if len(parts) not in (2, 3):
    raise UserError(f"model {model!r}: need one of AugReg's, B/16 or R26+S/32")
  *stem, size, patch = parts
  return f"AugReg-{'+'.join([*stem, size])}/{patch}"


def recommended(rows: list[Row], model: str, upstream: str = "i21k") -> Row:
  """A row of the checkpoint that the paper recommends (section 4.5).

  Of a model's pretrained checkpoints, this is the one with the best accuracy on
  the validation set of the data that it was pretrained on.

  Args:
    rows: those of `read_index`.
    model: as in the paper, for example "R26+S/32".
    upstream: one of `UPSTREAM`.

  Raises:
    ValueError: in one line, if the index has no such checkpoint.
  """
  names.check("upstream", upstream, UPSTREAM)
  names.check("model of the index", model, sorted({r["name"] for r in rows}))
  found = [r for r in rows if (r["name"], r["ds"]) == (model, upstream)]
  if not found:
    raise UserError(f"the index has no {model} pretrained on {upstream}")
  return best(found, "final_val")


def best(rows: list[Row], key: str) -> Row:
  """The row with the largest number; NaN counts as the smallest."""
  return max(rows, key=lambda r: (r[key] == r[key], r[key]))


def resolve(name: str, index: str | None) -> str:
  """The file of a checkpoint, which is in the folder of the index.

  Args:
    name: "augreg:" and a published name; or "augreg:" and a model's name for
      the recommended checkpoint, pretrained on i21k ("B/16" or "B_16") or on
      other data ("B/16@i1k").
    index: path or URL of index.csv.

  Raises:
    ValueError: in one line, if there is no such checkpoint or file.
  """
  if not index:
    raise UserError(
      f"config.model_init={name}: set config.model_load.index to AugReg's "
      f"index.csv, a copy of yours or {PUBLISHED}/index.csv"
    )
  rows, name = read_index(index), name.removeprefix(PREFIX)
  if "-" not in name:
    model, upstream = variant(name), name.partition("@")[2] or "i21k"
    model = model.removeprefix("AugReg-")
    name = recommended(rows, model, upstream)["filename"]
  known = {r[k] for r in rows for k in ("filename", "adapt_filename")}
  if name not in known:
    model = name.partition("-")[0]
    alike = [n for n in known if n.startswith(f"{model}-")]
    raise names.unknown("AugReg checkpoint", name, alike or known)
  file = epath.Path(index).parent / f"{name}.npz"
  if not file.exists():
    raise UserError(f"no file {file}: copy {PUBLISHED}/{name}.npz there")
  return str(file)
