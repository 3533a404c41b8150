"""The command `python -m big_crop.study`.

    list --config FILE --workdir DIR       every run: status, metric
    run --config FILE --workdir DIR        trains pending runs, one by one
    report --config FILE --workdir DIR     tables, tests, figures and a page
    report --reference [--config FILE]     the same for the paper's own numbers
    recommend --epochs E                   the crop that the paper's data favour

Several `run` commands on the same workdir share the work, also from several
hosts that share its filesystem or bucket. SIGTERM saves a checkpoint and ends
with status 0, Ctrl-C with 130; the same command continues from there. For Slurm
and others: `run --index $SLURM_ARRAY_TASK_ID`, whose status is 0 if that run is
done. For small models on one GPU: `run --together k` trains k runs as one
program.
"""

import hashlib
import pathlib
import platform
import sys

from big_crop.runtime import commands, pages, stop

if __name__ == "__main__":
  pages.use_huge_pages()
  trains = sys.argv[1:2] == ["run"]
  stop.listen(goes_on=trains, sigterm=trains)

from big_crop.runtime import outputs, storage
from big_crop.study import grid, runs, worker
from pp_ops.errors import UserError


def _parser():
  parser = commands.parser(
    __doc__, prog="python -m big_crop.study", allow_abbrev=False
  )
  subparsers = parser.add_subparsers(dest="command", required=True)

  def command(name, help_, needs_study=True):
    sub = subparsers.add_parser(name, help=help_, allow_abbrev=False)
    if name != "recommend":
      sub.add_argument("--config", required=needs_study, help="study config")
      sub.add_argument("--workdir", required=needs_study, help="the study's")
    return sub

  command("list", "show every run")
  run = command("run", "train what is pending")
  which = run.add_mutually_exclusive_group()
  which.add_argument("--index", type=int, help="this run only")
  which.add_argument("--jobs", type=int, default=1, help="workers here")
  run.add_argument(
    "--together",
    type=int,
    default=1,
    help="runs at a time as one program, where they differ in seed, learning "
    "rate or pp string and have the device engine",
  )
  run.add_argument(
    "--retry_failed", action="store_true", help="take failed runs again"
  )
  report = command("report", "make tables, figures, page", needs_study=False)
  report.add_argument(
    "--reference", action="store_true", help="show the paper's numbers"
  )
  report.add_argument("--out", help="folder; WORKDIR/report by default")
  for sub in (run, report):
    sub.add_argument(
      "--allow_mixed",
      action="store_true",
      help="mix runs of different configs, code or data",
    )
  recommend = command("recommend", "a crop for a budget")
  recommend.add_argument("--epochs", type=float, required=True)
  return parser


def _list(study, workdir):
  if study.runs:  # A wrong base, factor or override is an error here already.
    _ = study.runs[0].config
  found = runs.states(study, workdir)
  key = study.config.metrics[0]["key"]
  print(f"{'index':>5}  {'status':8} {key:>10}  name")
  for state in found:
    summary = state.summary or {"metrics": {}}
    value = summary["metrics"].get(key)
    text = "-" if value is None else f"{value:.4f}"
    status = state.status()
    line = f"{state.run.index:5}  {status:8} {text:>10}  {state.run.name}"
    if status == runs.FAILED:
      line += f"  ({state.failure['error']})"
    print(line)
  return 0


def _share_compilations(workdir):
  """Turns on JAX's compilation cache, in a folder of the study's workdir.

  Runs that differ only in their data then compile their train step once. Each
  kind of processor has its own folder, because code that was compiled for one
  may not run on another.
  """
  import jax

  if jax.config.jax_compilation_cache_dir:
    return
  kind = [platform.machine(), jax.default_backend(), jax.__version__]
  cpuinfo = pathlib.Path("/proc/cpuinfo")
  lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
  kind += sorted({t for t in lines if t.startswith(("flags", "Features"))})
  name = hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16]
  folder = storage.path(workdir) / "compiled" / name
  jax.config.update("jax_compilation_cache_dir", str(folder))


def _run(study, args, argv):
  outputs.check_folder(args.workdir, "--workdir")
  found = runs.states(study, args.workdir)
  for state in found:
    state.run.config  # noqa: B018, raises for a wrong config before any run
  if not args.allow_mixed:
    runs.check_unchanged(found)
  for flag in ("jobs", "together"):
    if (number := getattr(args, flag)) < 1:
      raise UserError(f"--{flag} {number}: need at least 1")
  if args.jobs > 1:
    return worker.start_jobs(args.jobs, [*argv, "--jobs", "1"])
  from big_crop import train  # slow

  _share_compilations(args.workdir)
  return worker.work(
    study,
    args.workdir,
    train.run,
    index=args.index,
    retry_failed=args.retry_failed,
    together=args.together,
  )


def main(argv=None) -> int:
  """Runs the command; returns its exit status."""
  argv = sys.argv[1:] if argv is None else argv
  args = _parser().parse_args(argv)
  if args.command == "recommend":
    from big_crop.study import recommend

    print(recommend.text(args.epochs))
    return 0
  study = grid.load(args.config) if args.config else None
  if args.command == "list":
    return _list(study, args.workdir)
  if args.command == "run":
    return _run(study, args, argv)
  from big_crop.study import report

  return report.main(study, args)


if __name__ == "__main__":
  with commands.one_line():
    sys.exit(main())
