r"""Measures crop laws: exactly, by sampling, and against each other.

    python -m big_crop.measure --crop inception_crop inception_crop_fixed \
      'beta_crop(alpha=2)' --image_shape 256x512 512x256 --out /tmp/measure

Prints a table and writes `summary.json`, `table.md` and figures ("You May Be
Running the Wrong Inception Crop", Figures 1-3, 13 and 15): the distribution of
the crop area, exact (lines) over sampled (filled), and heatmaps of the window
size, where those of portrait images are transposed. `--picture` also
draws each law's windows on that image. A crop is any registered op that
declares a law.
"""

import json

from big_crop.runtime import commands, stop

if __name__ == "__main__":
  stop.listen()

from big_crop.measure import measurement, shapes
from big_crop.runtime import outputs, storage
from pp_ops.checks import check_number
from pp_ops.errors import UserError


def main(argv=None):
  """Runs the command."""
  parser = commands.parser(__doc__)
  parser.add_argument("--crop", nargs="+", action="extend", required=True)
  parser.add_argument("--samples", type=float, default=1e6)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", required=True, metavar="DIR")
  parser.add_argument(
    "--picture", metavar="FILE", help="an image to draw windows on"
  )
  shapes.add_arguments(parser)
  args = parser.parse_args(argv)
  outputs.check_folder(args.out, "--out")
  images = shapes.from_arguments(args)
  if not images:
    raise UserError("give --image_shape HxW, --images DIR or --dataset NAME")
  check_number("--samples", args.samples, 1, 1e12)
  check_number("--seed", args.seed, 0)
  # Imported before the work, because matplotlib may be missing, and not at the
  # top, because it takes a second.
  from big_crop.measure import figures

  picture = figures.read_picture(args.picture) if args.picture else None
  found = measurement.measure(args.crop, images, int(args.samples), args.seed)

  stop.hold()  # so that all files are written
  out = storage.path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  summary = {
    "samples": int(args.samples),
    "seed": args.seed,
    "laws": [m.row() for m in found],
    "distances": measurement.distances(found),
  }
  (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
  text = measurement.table(found)
  (out / "table.md").write_text(text)
  figures.save_all(out, found)
  if picture is not None:
    figures.save_windows(out / "windows.png", found, picture, args.seed)
  print(text)


if __name__ == "__main__":
  with commands.one_line():
    main()
