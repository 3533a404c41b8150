"""Runs the robustness tests on a finished run."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from big_crop import evaluators, parts
from big_crop.evaluators import imagenet, pixels
from pp_ops import corruptions
from pp_ops.errors import UserError

IMAGES = 8  # images of each test that are kept for the figure
# Further test sets: (title in tables, default TFDS name, classes that
# predictions are restricted to). None: no default, or all classes.
SETS = {
  "replace": ("Replace", None, None),
  "noise": ("Noise", None, None),
  "imagenet_a": ("IN-A", "imagenet_a", "imagenet_a"),
  "imagenet_r": ("IN-R", "imagenet_r", "imagenet_r"),
  "imagenet_sketch": ("IN-Sketch", "imagenet_sketch", None),
}
IMAGENET_C = "imagenet2012_corrupted"
# The name of a test without corruption. It has the images that are corrupted on
# the fly, and is made only if they are fewer than those of the test "clean".
NONE = ("none", 0)
# Default severities of corruptions that are made on the fly.
_MADE_SEVERITIES = (3,)
# Default number of examples for the slow tests: PGD, and corruptions that are
# made on the fly.
_FEWER_EXAMPLES = 500


class Options(NamedTuple):
  """The options of the command.

  Attributes:
    max_examples: number of examples in each test. None for all, or for 500 in
      PGD and in corruptions that are made on the fly.
    eps: largest change of a pixel value in [0, 1] by the attacks.
    pgd_steps: steps of PGD; 0 for no PGD.
    corruptions: names of `pp_ops.corruptions`.
    severities: 1 to 5, of the corruptions. None for all five of ImageNet-C, and
      for 3 alone where corruptions are made on the fly.
    sets: {name in `SETS`: a dataset's name or path}; only those that the user
      gave.
    data_dir: folder of TFDS datasets; None for that of the run's evaluator.
  """

  max_examples: int | None = None
  eps: float = 8 / 255
  pgd_steps: int = 10
  corruptions: Sequence[str] = tuple(corruptions.NAMES)
  severities: Sequence[int] | None = None
  sets: dict[str, str] = {}
  data_dir: str | None = None


class Result(NamedTuple):
  """The result of a test.

  Attributes:
    metrics: the metrics of the test's evaluator, as fractions.
    images: the first images that the model got, uint8 [n, H, W, C].
  """

  metrics: dict[str, float]
  images: np.ndarray


class Measurement(NamedTuple):
  """The results of all tests of a run.

  Attributes:
    name: the run's name.
    workdir: the run's workdir.
    is_imagenet: whether its data have ImageNet's 1000 classes.
    results: {test: result}. A test is "clean", "fgsm", "pgd", a name of `SETS`,
      or a corruption as (name, severity).
    about: sentences that say what the tests were and what was left out.
  """

  name: str
  workdir: str
  is_imagenet: bool
  results: dict[str | tuple[str, int], Result]
  about: list[str]


class Suite:
  """The tests of a run, with their data opened.

  Attributes:
    is_imagenet: see `Measurement`.
    tests: {test: its evaluator}.
    about: see `Measurement`.
  """

  def __init__(self, run: parts.FinishedRun, options: Options):
    """Opens the data of all tests.

    Raises:
      ValueError: in one line, if the run has no classification evaluator, if
        its pp string has no uint8 image before an affine normalisation, or if
        a dataset that the user named can't be opened.
    """
    self._run, self._options = run, options
    self._name, self._args = run.classification()
    # All evaluators get this one function, so that they share its compiled
    # programs.
    self._predict = jax.jit(run.objective.predict)
    clean = self._make("calibration")
    self._data = clean.data
    self._source = clean.data.source
    self._pixels = pixels.find(clean.data)
    self.is_imagenet = self._source.class_names == imagenet.wnids()
    self.tests = {"clean": clean}
    data = self._args["data"]
    self.about = [
      f"Clean: {self._count():,} images of split {data['split']!r} of "
      f"{data['name']}"
    ]
    self._add_attacks()
    self._add_sets()
    self._add_corruptions()

  def _make(self, kind="classification", **kw):
    run = self._run
    try:
      return evaluators.make(
        self._name,
        {
          **self._args,
          "max_examples": self._options.max_examples,
          "type": kind,
          **kw,
        },
        predict=self._predict,
        mesh=run.mesh,
        seed=run.config.seed,
        engine=run.config.input.engine,
        **run.objective.for_evaluators(),
      )
    except UserError as e:
      raise UserError(f"{run.path}: {e}") from e

  def _dataset(self, name, split):
    where = self._options.data_dir or self._args["data"].get("data_dir")
    return {"name": name, "split": split, "data_dir": where}

  def _add_attacks(self):
    eps, steps = self._options.eps, self._options.pgd_steps
    given = {"kind": "adversarial", "data": self._data, "eps": eps}
    self.tests["fgsm"] = self._make(**given)
    text = f"FGSM: epsilon {255 * eps:.4g}/255"
    if steps:
      size = 2.5 * eps / steps
      self.tests["pgd"] = self._make(
        **given,
        steps=steps,
        step_size=size,
        random_start=True,
        max_examples=self._count(_FEWER_EXAMPLES),
      )
      text += (
        f"; PGD: {steps} steps of {255 * size:.4g}/255 from a random start, "
        f"first {self._count(_FEWER_EXAMPLES):,} images"
      )
    self.about.append(text)

  def _count(self, most=None):
    """The number of images to test: `max_examples`, else `most`, else all."""
    total = self._source.total_examples
    return min(self._options.max_examples or most or total, total)

  def _add_sets(self):
    for test, (title, usual, classes) in SETS.items():
      given = self._options.sets.get(test)
      name = given or (usual if self.is_imagenet else None)
      if not name:
        continue
      try:
        made = self._make(data=self._dataset(name, "all"), classes=classes)
        self._check_classes(f"--{test} {name}", made)
      except UserError as e:
        if given:
          raise
        self.about.append(f"{title} left out: {e}")
      else:
        self.tests[test] = made

  def _check_classes(self, what, made):
    """Raises if a test set's labels can't be those of the run's data.

    That is, if they have no known mapping to the model's classes and their
    number differs.
    """
    theirs, ours = made.data.source, self._source
    if made.class_of is None and theirs.num_classes != ours.num_classes:
      raise UserError(
        f"{what}: it has {theirs.num_classes} classes, the run's data "
        f"{ours.num_classes}: need the same"
      )

  def _add_corruptions(self):
    options, found = self._options, self._pixels
    names = list(options.corruptions)
    if not names:
      return
    severities = tuple(options.severities or (1, 2, 3, 4, 5))
    of_set = {  # without another crop: they are 224 pixels, already cropped
      key: dict(
        data=self._dataset(f"{IMAGENET_C}/{key[0]}_{key[1]}", "validation"),
        pp_fn=f"decode|resize({found.shape[:2]})|{found.after}",
      )
      for key in ((n, s) for n in names for s in severities)
    }
    if self.is_imagenet:
      try:
        tests = {key: self._make(**kw) for key, kw in of_set.items()}
      except UserError as e:
        self.about.append(f"ImageNet-C is not used: {e}")
      else:
        self.tests |= tests
        self.about.append(_described("ImageNet-C", names, severities))
        return
    self._make_corruptions(names, options.severities or _MADE_SEVERITIES)

  def _make_corruptions(self, names, severities):
    """Adds tests on clean images that the op `corrupt` corrupts on the fly."""
    found, side = self._pixels, min(self._pixels.shape[:2])
    if side < corruptions.LEAST_SIDE:
      self.about.append(
        f"Corruptions left out: the images have {side} pixels, they need "
        f"{corruptions.LEAST_SIDE}"
      )
      return
    most = self._count(_FEWER_EXAMPLES)
    made = []
    try:
      if most < self._count():
        same = {"data": self._data, "max_examples": most}
        self.tests[NONE] = self._make(**same)
      for name in names:
        try:
          corruptions.check_corruption(name, severities[0], None)
        except UserError as e:
          self.about.append(f"{name} left out: {e}")
          continue
        made.append(name)
        for severity in severities:
          op = f"corrupt({name!r}, {severity})"
          pp_fn = "|".join(filter(None, [found.before, op, found.after]))
          self.tests[name, severity] = self._make(
            data=self._data.through(pp_fn, "tf.data"),
            max_examples=most,
            pp_fn=pp_fn,
          )
    except ModuleNotFoundError as e:
      if e.name != "tensorflow":
        raise
      self.tests.pop(NONE, None)
      self.about.append(
        "Corruptions left out: the op corrupt needs TensorFlow, which is not "
        "installed"
      )
      return
    self.about.append(
      _described(f"Made of the first {most:,} clean images", made, severities)
    )

  def look(self, images: list[np.ndarray]):
    """Returns a function that appends a batch's first images to `images`.

    They are appended as uint8 [n, H, W, C], before the normalisation.
    """
    black, white = (
      np.float32(self._pixels.black),
      np.float32(self._pixels.white),
    )

    def look(batch):
      x = np.asarray(batch[:IMAGES], np.float32)
      x = np.clip((x - black) / (white - black), 0, 1)
      images.append(np.round(255 * x).astype(np.uint8))

    return look


def _described(what, names, severities):
  levels = ", ".join(map(str, severities))
  of_mce = [corruptions.NAMES[n].in_mce for n in names]
  return (
    f"{what}: {sum(of_mce)} of mCE's 15 corruptions and "
    f"{len(names) - sum(of_mce)} of the 4 others, severity {levels}"
  )


def measure(workdir: str, name: str, options: Options) -> Measurement:
  """Runs all tests on a run.

  Args:
    workdir: the run's folder.
    name: what to call it.
    options: the options of the command.

  Returns:
    The measurement.

  Raises:
    ValueError: as `Suite` and `parts.open_run`.
  """
  run = parts.open_run(workdir)
  suite = Suite(run, options)
  results = {}
  with tqdm(suite.tests.items(), desc=name, unit="test") as bar:
    for test, evaluator in bar:
      bar.set_postfix_str(label(test), refresh=False)
      images = []
      metrics = evaluator.run(run.variables, suite.look(images))
      results[test] = Result(metrics, images[0])
  return Measurement(
    name, str(workdir), suite.is_imagenet, results, suite.about
  )


def label(test: str | tuple[str, int]) -> str:
  """A test's name in tables and figures."""
  if not isinstance(test, str):
    return " ".join(map(str, test))
  if test in SETS:
    return SETS[test][0]
  return {"fgsm": "FGSM", "pgd": "PGD"}.get(test, test)
