r"""Measures how good the features of finished runs are, for any objective.

    python -m big_crop.probe --workdir RUN [RUN ...]

Prints, in percent, the accuracy of nearest neighbours, of a linear classifier
on stored features (L-BFGS), and of ridge regression on a few examples of each
class; see `big_crop.evaluators.representation`. A run's model is taken from its
last checkpoint. The images and their preprocessing are those of the first
evaluator of its config that has a pp string, unless you name others. For a
baseline, make a run with total_steps=0: it has the model's initial weights.
configs/cropmix/linear_probe.py trains a head on augmented images, as papers do.
"""

import argparse

from big_crop.runtime import commands, stop

if __name__ == "__main__":
  stop.listen()

from big_crop import evaluators, parts
from big_crop.display import tables
from big_crop.evaluators.representation import METHODS
from pp_ops.errors import UserError


def _arguments(run, args):
  """The evaluator's arguments, from the run's config and the command line."""
  for entry in run.config.evals.to_dict().values():
    if "pp_fn" in entry:
      break
  else:
    raise UserError(
      "config.evals has no evaluator with a pp string to take images through"
    )
  data = dict(entry["data"])
  test = data.pop("split", None) or entry.get("test", "validation")
  train = entry.get("train", run.config.input.data.split)
  if args.data:
    data, train, test = {"name": args.data}, "train", "validation"
  if args.data_dir:
    data["data_dir"] = args.data_dir
  size = -(-entry.get("batch_size", 128) // run.mesh.size)
  return dict(
    type="representation",
    data=data,
    train=args.train or train,
    test=args.test or test,
    pp_fn=args.pp or entry["pp_fn"],
    batch_size=size * run.mesh.size,
    methods=args.methods,
    feature=args.layer,
    k=args.k,
  )


def _row(name, metrics):
  found = {k: v for k, v in metrics.items() if k.endswith("_top1")}
  return {"run": name} | {
    k.removesuffix("_top1"): f"{100 * v:.2f}" for k, v in found.items()
  }


def measure(name: str, workdir: str, args: argparse.Namespace) -> dict:
  """The row of a run: {"run": name, method: percent}.

  Args:
    name: what to call it.
    workdir: the run's folder.
    args: the parsed command line.

  Raises:
    ValueError: in one line, if there is no such run, if its model has no
      activation `--layer`, or if its pp string leaves no label.
  """
  run = parts.open_run(workdir)
  try:
    evaluator = evaluators.make(
      "probe",
      _arguments(run, args),
      predict=run.objective.predict,
      mesh=run.mesh,
      seed=run.config.seed,
      engine=run.config.input.engine,
    )
    return _row(name, evaluator.run(run.variables))
  except UserError as e:
    raise UserError(f"{run.path}: {e}") from e


def main(argv=None):
  """Runs the command."""
  parser = commands.parser(__doc__, allow_abbrev=False)
  add = parser.add_argument
  add("--workdir", nargs="+", action="extend", required=True)
  add("--methods", nargs="+", choices=METHODS, default=METHODS)
  add("--layer", metavar="ACTIVATION", help="by default what a head gets")
  add("--k", type=int, default=200, help="number of neighbours")
  add("--data", metavar="NAME", help="other than the run's")
  add("--data_dir", help="of a TFDS dataset")
  add("--train", metavar="SPLIT", help="of neighbours, and to fit on")
  add("--test", metavar="SPLIT")
  add("--pp", metavar="STRING", help="that leaves image and label")
  args = parser.parse_args(argv)
  rows = [
    measure(name, workdir, args)
    for name, workdir in parts.run_names(args.workdir).items()
  ]
  head = list(rows[0])
  print(tables.markdown([head, *([r[k] for k in head] for r in rows)]))


if __name__ == "__main__":
  with commands.one_line():
    main()
