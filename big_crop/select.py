"""Selects the AugReg checkpoint to start from, within a budget.

    python -m big_crop.select --index index.csv --max_ms 2 --res 384

For each model within the budget, the table has the checkpoint that the paper
recommends: the one with the best validation accuracy on the data that it was
pretrained on (Steiner et al., https://arxiv.org/abs/2106.10270, section 4.5).
It has this checkpoint's accuracy on `--data` after finetuning, with learning
rate and steps chosen on the validation set. `choosing early` is this accuracy
minus that of the checkpoint that one would choose after finetuning all of the
model's checkpoints, in points (Figure 5, left); it is negative where finetuning
all of them pays. Speed is that of a V100 with timm; `VTAB` is the mean of Table
5's three means.
"""

import statistics
from typing import Any

from big_crop.runtime import commands, stop

if __name__ == "__main__":
  stop.listen(at_once=True)

from big_crop import names
from big_crop.display import tables
from big_crop.study import reference
from big_crop.study.augreg import VTAB
from big_crop.weights import augreg
from pp_ops.errors import UserError


def vtab(model: str, upstream: str) -> float | None:
  """The mean of Table 5's three means (%); None if Table 5 lacks the model."""
  init = augreg.PREFIX + model + ("" if upstream == "i21k" else f"@{upstream}")
  groups = {}
  for row in reference.rows("augreg_vtab"):
    if row["init"] == init:
      task = VTAB[row["dataset"].removeprefix("vtab/")]
      groups.setdefault(task.group, []).append(float(row["test/top1"]))
  means = list(map(statistics.mean, groups.values()))
  return statistics.mean(means) if means else None


def choose(
  rows: list[augreg.Row],
  *,
  models: list[str] | None = None,
  upstream: str = "i21k",
  res: int = 384,
  data: str = "imagenet2012",
  max_ms: float | None = None,
  max_params: float | None = None,
) -> list[dict[str, Any]]:
  """The recommended checkpoint of each model within the budget, the best first.

  Args:
    rows: those of `augreg.read_index`.
    models: names as in the paper, for example "B/16"; all by default.
    upstream: one of `augreg.UPSTREAM`.
    res: resolution of finetuning and inference.
    data: the dataset of finetuning.
    max_ms: budget in milliseconds per image.
    max_params: budget in millions of parameters.

  Returns:
    For each model "model", "checkpoint", "finetuned" (names of files), "params"
    (millions), "ms", "upstream" and "test" (accuracy, %), "cost" (the column
    `choosing early`, points), and "vtab" (%).

  Raises:
    ValueError: in one line, for a name that the index lacks, or if no model is
      within the budget.
  """
  names.check(
    "dataset of the index", data, sorted({r["adapt_ds"] for r in rows})
  )
  found = []
  there = sorted({r["name"] for r in rows if r["ds"] == upstream})
  for model in models or there:
    start = augreg.recommended(rows, model, upstream)
    tried = [
      r
      for r in rows
      if (r["name"], r["ds"], r["adapt_ds"]) == (model, upstream, data)
      and r["adapt_resolution"] == res
    ]
    own = [r for r in tried if r["filename"] == start["filename"]]
    if not own:
      continue  # B/8 was finetuned at 224 pixels only
    last = augreg.best(own, "adapt_final_val")
    late = augreg.best(tried, "adapt_final_val")
    found.append(
      dict(
        model=model,
        checkpoint=start["filename"],
        finetuned=last["adapt_filename"],
        params=start["params"] / 1e6,
        ms=1000 / last["infer_samples_per_sec"],
        upstream=100 * start["final_val"],
        test=100 * last["adapt_final_test"],
        cost=100 * (last["adapt_final_test"] - late["adapt_final_test"]),
        vtab=vtab(model, upstream),
      )
    )
  fits = [
    r
    for r in found
    if (max_ms is None or r["ms"] <= max_ms)
    and (max_params is None or r["params"] <= max_params)
  ]
  if not found:
    raise UserError(
      f"the index has no model that was finetuned on {data} at {res} pixels"
    )
  if not fits:
    raise UserError(
      "no model fits; "
      + ", ".join(
        f"{r['model']} takes {r['ms']:.2f} ms and {r['params']:.1f}M parameters"
        for r in sorted(found, key=lambda r: r["ms"])
      )
    )
  return sorted(fits, key=lambda r: -r["upstream"])


def text(found: list[dict[str, Any]], data: str, res: int) -> str:
  """The text that the command prints for the result of `choose`."""
  head = ["model", "M params", f"ms at {res}", "upstream val (%)"]
  rows = [[*head, f"{data} (%)", "choosing early", "VTAB (%)", "checkpoint"]]
  for r in found:
    numbers = r["upstream"], r["test"]
    rows.append(
      [r["model"], f"{r['params']:.1f}", f"{r['ms']:.2f}"]
      + [*(f"{x:.2f}" for x in numbers), f"{r['cost']:+.2f}"]
      + ["" if r["vtab"] is None else f"{r['vtab']:.1f}", r["checkpoint"]]
    )
  best = found[0]
  return (
    f"{tables.markdown(rows)}\nRecommended: {best['model']}, "
    f"config.model_init=augreg:{best['checkpoint']}\n"
    f"Finetuned on {data} already: augreg:{best['finetuned']}"
  )


def main():
  """Runs the command."""
  parser = commands.parser(
    __doc__, prog="python -m big_crop.select", allow_abbrev=False
  )
  add = parser.add_argument
  add("--index", required=True, help="AugReg's index.csv, a path or URL")
  add("--model", nargs="+", help="as in the paper: B/16 R26+S/32; all")
  add("--upstream", default="i21k", choices=augreg.UPSTREAM)
  add("--res", type=int, default=384, choices=(224, 384))
  add("--data", default="imagenet2012", help="finetuned on; imagenet2012")
  add("--max_ms", type=float, help="milliseconds for an image")
  add("--max_params", type=float, help="parameters, in millions")
  args = parser.parse_args()
  found = choose(
    augreg.read_index(args.index),
    models=args.model,
    upstream=args.upstream,
    res=args.res,
    data=args.data,
    max_ms=args.max_ms,
    max_params=args.max_params,
  )
  print(text(found, args.data, args.res))


if __name__ == "__main__":
  with commands.one_line():
    main()
