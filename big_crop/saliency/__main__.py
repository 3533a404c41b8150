r"""Saliency of trained models: maps to look at, and how sparse they are.

    python -m big_crop.saliency --workdir RUN [RUN ...] --out DIR

Takes each run's model from its last checkpoint, and the images from the first
classification evaluator of its config. Prints a table of the three mean
entropies ("You May Be Running the Wrong Inception Crop", section 6.3; what the
maps are: `big_crop.saliency.maps`) and writes

    DIR/table.md, summary.json  the table; all statistics of every run; how
                                often the first run and each other one are
                                right on the same images, and McNemar's test
    DIR/entropies.png           the distributions of the entropies, all runs in
                                one panel, or a panel for each crop if the runs
                                have several (the paper's Figures 21, 23 and 25)
    DIR/RUN/maps.png            the first image, by file name, of each of the
                                first classes, with its maps (Figures 19, 22
                                and 24)
    DIR/gradcam.png             the same images with the Grad-CAM maps of the
                                runs side by side (the CropMix paper's Figure 4)
    DIR/RUN/differing.png       the first twelve images that only the first run
                                classifies rightly, and the first twelve that
                                only this run does (Figure 5)
    DIR/RUN/entropies.npz       label, prediction and confidence for each image,
                                and for each kind of map KIND_entropy and
                                KIND_index: entropy number i is that of image
                                number KIND_index[i] of the split; images whose
                                map is all zero are left out

A run is compared with the first one, and drawn beside it, only if both were
evaluated on the same data.
"""

import json

from big_crop.runtime import commands, stop

if __name__ == "__main__":
  stop.listen()

from big_crop import parts
from big_crop.runtime import outputs, storage
from big_crop.saliency import measurement
from pp_ops.errors import UserError


def main(argv=None):
  """Runs the command."""
  parser = commands.parser(__doc__)
  parser.add_argument("--workdir", nargs="+", action="extend", required=True)
  parser.add_argument("--out", required=True, metavar="DIR")
  parser.add_argument("--data", help="a dataset other than the evaluator's")
  parser.add_argument("--split", help="a split other than the evaluator's")
  parser.add_argument("--num_images", type=int, default=25)
  parser.add_argument("--max_examples", type=int)
  args = parser.parse_args(argv)
  outputs.check_folder(args.out, "--out")
  for key in ("num_images", "max_examples"):
    if (value := getattr(args, key)) is not None and value < 1:
      raise UserError(f"--{key} {value}: need at least 1")
  # Imported here because it takes a second, and before the work because
  # matplotlib may be missing.
  from big_crop.saliency import figures

  given = {"name": args.data, "split": args.split}
  found = []
  for name, workdir in parts.run_names(args.workdir).items():
    m = measurement.measure(
      workdir,
      name,
      num_images=args.num_images,
      max_examples=args.max_examples,
      data={k: v for k, v in given.items() if v},
      first=found[0] if found else None,
    )
    found.append(m)

  stop.hold()  # From here Ctrl-C waits, so that the output is complete.
  out = storage.path(args.out)
  for m in found:
    (out / m.name).mkdir(parents=True, exist_ok=True)
    m.save_entropies(out / m.name / "entropies.npz")
  (first, *others), _ = measurement.comparable(found)
  summary = {
    "runs": [m.summary() for m in found],
    "comparisons": [measurement.compare(first, m) for m in others],
  }
  (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
  text = measurement.table(found)
  (out / "table.md").write_text(text)
  figures.save_all(out, found)
  print(text)


if __name__ == "__main__":
  with commands.one_line():
    main()
