r"""How well trained models hold up: calibration, attacks, corruptions, shifts.

    python -m big_crop.robustness --workdir RUN [RUN ...] --out DIR

Takes each run's model from its last checkpoint, and the images and their
preprocessing from the first classification evaluator of its config. Prints, for
each run, the row of CropMix's Table 2, with PGD and corruptions added, and what
was evaluated. A run on ImageNet is tested on ImageNet-A, -R, -Sketch and -C, as
far as they are prepared for TFDS. For any other run, the corruptions are
applied to its own images. docs/robustness.md explains the numbers. Writes

    DIR/table.md, robustness.csv, corruptions.csv  the tables, in percent
    DIR/summary.json      every metric of every test, as fractions
    DIR/RUN/tests.png     what each test shows the model
"""

import json

from big_crop.runtime import commands, stop

if __name__ == "__main__":
  stop.listen()

from big_crop import names, parts
from big_crop.robustness import report, suite
from big_crop.runtime import outputs, storage
from pp_ops import corruptions
from pp_ops.checks import check_number


def _options(args):
  """Checks the command line and makes `suite.Options` of it."""
  check_number("--epsilon", args.epsilon, 0, 255)
  check_number("--pgd_steps", args.pgd_steps, 0)
  if args.max_examples is not None:
    check_number("--max_examples", args.max_examples, 1)
  for name in args.corruptions:
    names.check("--corruptions", name, corruptions.NAMES)
  for severity in args.severities or ():
    check_number("--severities", severity, 1, 5)
  given = {k: getattr(args, k) for k in suite.SETS}
  return suite.Options(
    max_examples=args.max_examples,
    eps=args.epsilon / 255,
    pgd_steps=args.pgd_steps,
    corruptions=args.corruptions,
    severities=args.severities,
    sets={k: v for k, v in given.items() if v},
    data_dir=args.data_dir,
  )


def main(argv=None):
  """Runs the command."""
  parser = commands.parser(__doc__)
  add = parser.add_argument
  add("--workdir", nargs="+", action="extend", required=True)
  add("--out", required=True, metavar="DIR")
  add("--max_examples", type=int, help="of each test, by default all")
  add("--epsilon", type=float, default=8, help="of the attacks, in 1/255")
  add("--pgd_steps", type=int, default=10, help="0 leaves PGD out")
  add("--corruptions", nargs="*", default=list(corruptions.NAMES), metavar="C")
  add(
    "--severities",
    nargs="+",
    type=int,
    metavar="S",
    help="of the corruptions: all five of ImageNet-C, else 3",
  )
  for name, (title, usual, _) in suite.SETS.items():
    what = f"{usual} by default" if usual else "has no default"
    text = f"{title}: a folder of class folders, or a dataset; {what}"
    add(f"--{name}", metavar="DATA", help=text)
  add("--data_dir", help="of TFDS datasets other than the evaluator's")
  args = parser.parse_args(argv)
  outputs.check_folder(args.out, "--out")
  options = _options(args)
  # Imported here because it takes a second, and before the work because
  # matplotlib may be missing.
  from big_crop.robustness import figures

  found = [
    suite.measure(workdir, name, options)
    for name, workdir in parts.run_names(args.workdir).items()
  ]

  stop.hold()  # From here Ctrl-C waits, so that the output is complete.
  out = storage.path(args.out)
  for m in found:
    (out / m.name).mkdir(parents=True, exist_ok=True)
    figures.save(out / m.name / "tests.png", m)
  made = report.tables_of(found)
  text = "\n".join(table.markdown() for table in made)
  (out / "table.md").write_text(text)
  for table in made:
    (out / f"{table.name}.csv").write_text(table.csv())
  summary = report.summary(found)
  (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
  print(text)


if __name__ == "__main__":
  with commands.one_line():
    main()
