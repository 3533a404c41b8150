"""Measures the saliency of finished runs: maps, entropies, a table."""

import collections
import dataclasses
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from scipy import stats
from tqdm import tqdm

from big_crop import evaluators, parts
from big_crop.data.eval_data import EvalData
from big_crop.display import tables
from big_crop.runtime import records, storage
from big_crop.saliency import evaluator
from pp_ops import registry
from pp_ops.errors import UserError
from pp_ops.laws.names import FUSED

# Arguments of the run's classification evaluator that the saliency evaluator
# takes over.
_ARGUMENTS = ("data", "pp_fn", "skip_corrupt", "num_parallel_calls")


# How many images are kept that only this run classifies rightly, and as many
# that only the first run does.
_MOST_DIFFERENT = 12


class Picture(NamedTuple):
  """An image with its maps.

  Attributes:
    place: index of the example in `Measurement.rows`.
    image: [H, W, C] float.
    maps: {kind: [h, w]}.
  """

  place: int
  image: np.ndarray
  maps: dict[str, np.ndarray]


@dataclasses.dataclass
class Measurement:
  """The saliency of one run.

  Attributes:
    name: the run's name.
    workdir: the run's workdir.
    epochs: its training budget; None if its log does not say.
    crop: the crop op that it was trained with, "" without one.
    shapes: {kind: (h, w) of a map}.
    rows: those of `evaluator.Batch.rows`, for all examples.
    pictures: one for each of the first classes.
    data: arguments of `sources.get_source` for the data it was evaluated on.
    class_names: the names of the data's classes, or None.
    differing: the first images that this run classifies rightly and the first
      run of the command does not, then the first with the roles exchanged.
  """

  name: str
  workdir: str
  epochs: float | None
  crop: str
  shapes: dict[str, tuple[int, int]]
  rows: dict[str, np.ndarray]
  pictures: list[Picture]
  data: dict[str, Any] = dataclasses.field(default_factory=dict)
  class_names: list[str] | None = None
  differing: list[Picture] = dataclasses.field(default_factory=list)

  @property
  def hits(self) -> np.ndarray:
    """[n] bool, whether the prediction is the label."""
    return self.rows["prediction"] == self.rows["label"]

  def class_name(self, key: str, place: int) -> str:
    """The name of an example's "label" or "prediction"."""
    names, number = self.class_names or (), int(self.rows[key][place])
    return names[number] if number < len(names) else f"class {number}"

  def entropies(self, kind: str) -> np.ndarray:
    """The entropies of the maps that are not all zero."""
    return self.rows[f"{kind}_entropy"][~self.rows[f"{kind}_empty"]]

  def summary(self) -> dict[str, Any]:
    """The run's entry in summary.json."""
    return {
      "run": self.name,
      "workdir": self.workdir,
      "epochs": self.epochs,
      "crop": self.crop,
      "top1": float(self.hits.mean()),
      "count": len(self.hits),
      "maps": {
        kind: {
          "shape": shape,
          "largest_entropy": float(np.log(np.prod(shape))),
          **evaluator.statistics(
            self.rows[f"{kind}_entropy"], self.rows[f"{kind}_empty"]
          ),
        }
        for kind, shape in self.shapes.items()
      },
    }

  def save_entropies(self, path: epath.Path) -> None:
    """Writes entropies.npz."""
    columns = {k: self.rows[k] for k in ("label", "prediction", "confidence")}
    for kind in self.shapes:
      columns[f"{kind}_entropy"] = self.entropies(kind)
      columns[f"{kind}_index"] = np.flatnonzero(~self.rows[f"{kind}_empty"])
    with path.open("wb") as f:
      np.savez(f, **columns)


def open_run(
  workdir: str, data: dict[str, str]
) -> tuple[evaluator.Evaluator, dict[str, Any], str]:
  """Rebuilds a run's model and opens its evaluation data.

  Args:
    workdir: the run's folder.
    data: replaces arguments of `sources.get_source` (name, split).

  Returns:
    The evaluator, on all devices; the model's variables; and the name of the
    crop op that the model was trained with.

  Raises:
    ValueError: if the folder holds no run, or a run that can't be evaluated.
  """
  run = parts.open_run(workdir)
  name, args = run.classification()
  given = {k: args[k] for k in _ARGUMENTS if k in args}
  given["data"] = {**args["data"], **data}
  given |= {"type": "saliency", "batch_size": args["batch_size"]}
  context = run.objective.for_evaluators() | {"mesh": run.mesh}
  try:
    made = evaluators.make(name, given, seed=run.config.seed, **context)
  except UserError as e:
    raise UserError(f"{run.path}: {e}") from e
  return made, run.variables, crop_of(run.config.input.pp)


def crop_of(pp: str) -> str:
  """The first crop op of a pp string, fused or not; "" if there is none."""
  names = (name for name, _, _ in registry.parse(pp))
  found = (n.removeprefix(FUSED) for n in names if registry.lookup(n).law)
  return next(found, "")


def file_names(data: EvalData, num: int) -> list[bytes] | None:
  """The file name of each of the first `num` examples, in stored order.

  None if the dataset has no feature `file_name`, or with `skip_corrupt`: then
  images that are left out shift the indices of examples in the batches.
  """
  examples = data.source.epoch(None)
  if data.skip_corrupt or "file_name" not in examples.element_spec:
    return None
  names = examples.take(num).map(lambda e: e["file_name"])
  return list(names.as_numpy_iterator())


def measure(
  workdir: str,
  name: str,
  *,
  num_images: int = 25,
  max_examples: int | None = None,
  data: dict[str, str] | None = None,
  first: Measurement | None = None,
) -> Measurement:
  """Computes the maps of a run's evaluation split.

  Args:
    workdir: the run's folder.
    name: what to call it.
    num_images: keep one image of each of the classes 0 to num_images - 1: the
      one whose file name sorts first, as in `torchvision.datasets.ImageNet`, in
      whatever order the dataset is stored. Without file names, the image that
      is stored first.
    max_examples: stop after this many examples.
    data: see `open_run`.
    first: the run to compare this one with, if there is one.

  Returns:
    The measurement.

  Raises:
    ValueError: as `open_run`.
  """
  made, variables, crop = open_run(workdir, data or {})
  source = made.data.source
  total = min(source.num_examples, max_examples or source.num_examples)
  names = file_names(made.data, total)
  if first and first.data != made.data.asked:
    first = None
  rows, shapes = collections.defaultdict(list), {}
  pictures, key_of, differing = {}, {}, {True: [], False: []}
  seen = 0
  with tqdm(total=total, desc=name, unit="image") as bar:
    for batch in made.batches(variables):
      kept = np.flatnonzero(batch.mask)[: total - seen]
      for key, values in batch.rows.items():
        rows[key].append(values[kept])
      for place, i in enumerate(kept, seen):
        label, key = int(batch.rows["label"][i]), names and names[place]
        if label < num_images and (
          label not in key_of or (names and key < key_of[label])
        ):
          key_of[label], pictures[label] = key, _picture(batch, i, place)
        hit = bool(batch.rows["prediction"][i] == label)
        some = differing[hit]
        if first and hit != first.hits[place] and len(some) < _MOST_DIFFERENT:
          some.append(_picture(batch, i, place))
      shapes = {kind: batch.maps[kind].shape[1:] for kind in made.kinds}
      seen += len(kept)
      bar.update(len(kept))
      if seen == total:
        break
  logged = records.read_metrics(storage.path(workdir))
  return Measurement(
    name=name,
    workdir=str(workdir),
    epochs=max((r["epoch"] for r in logged if "epoch" in r), default=None),
    crop=crop,
    shapes=shapes,
    rows={k: np.concatenate(v) for k, v in rows.items()},
    pictures=[pictures[label] for label in sorted(pictures)],
    data=made.data.asked,
    class_names=source.class_names,
    differing=[*differing[True], *differing[False]],
  )


def _picture(batch, i, place):
  maps = {kind: np.asarray(m[i]) for kind, m in batch.maps.items()}
  return Picture(place, np.asarray(batch.image[i], np.float32), maps)


def comparable(found: list[Measurement]) -> tuple[list[Measurement], str]:
  """The runs evaluated on the first one's data, and a line about the others."""
  same = [m for m in found if m.data == found[0].data]
  others = ", ".join(m.name for m in found if m.data != found[0].data)
  note = f"Not compared with {found[0].name}, as evaluated on other data: "
  return same, f"{note}{others}.\n" if others else ""


def compare(first: Measurement, other: Measurement) -> dict[str, Any]:
  """How often two runs are right on the same images, together and alone.

  Returns:
    The runs' names; four counts; and McNemar's exact p-value, which is that of
    a sign test on the images that exactly one of the runs classifies rightly.
  """
  a, b = first.hits, other.hits
  alone = [int((a & ~b).sum()), int((b & ~a).sum())]
  p = stats.binomtest(alone[0], sum(alone)).pvalue if any(alone) else 1.0
  return {
    "runs": [first.name, other.name],
    "both_right": int((a & b).sum()),
    "only_first_right": alone[0],
    "only_second_right": alone[1],
    "both_wrong": int((~a & ~b).sum()),
    "mcnemar_p": float(p),
  }


def table(found: list[Measurement]) -> str:
  """The measurements as aligned Markdown."""
  kinds = list(dict.fromkeys(kind for m in found for kind in m.shapes))
  head = ["run", "epochs", "top-1", *(f"{k} entropy" for k in kinds)]
  rows = [[*head, "zero maps", "images"]]
  for m in found:
    summary = m.summary()
    maps = [summary["maps"].get(kind, {}) for kind in kinds]
    rows.append(
      [
        m.name,
        "-" if m.epochs is None else f"{m.epochs:.4g}",
        f"{summary['top1']:.4f}",
        *(
          f"{s['entropy']:.4f} ± {s['entropy_std']:.4f}"
          if "entropy" in s
          else "-"
          for s in maps
        ),
        "/".join(f"{s['zero_maps']:.0f}" if s else "-" for s in maps),
        f"{summary['count']}",
      ]
    )
  limits = {
    f"{kind} {h}x{w}: {np.log(h * w):.2f}"
    for m in found
    for kind, (h, w) in m.shapes.items()
  }
  text = (
    tables.markdown(rows)
    + "\nMean entropy in nats ± standard deviation over the images, without "
    f"the maps that are all zero. Largest possible: {', '.join(sorted(limits))}"
    ".\n"
  )
  (first, *others), note = comparable(found)
  if others:
    head = ["A", "B", "both right", "A alone", "B alone", "both wrong"]
    pairs = [[*head, "McNemar's exact p"]]
    for *counts, p in (compare(first, m).values() for m in others):
      pairs.append([*counts[0], *map(str, counts[1:]), f"{p:.3g}"])
    text += "\n" + tables.markdown(pairs)
  return text + (note and "\n" + note)
