"""The tests that a finished run is put to, and what comes out of them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from big_crop import evaluators, parts
from big_crop.evaluators import imagenet, pixels
from pp_ops import corruptions
from pp_ops.errors import UserError

IMAGES = 8  # of each test, to look at
# Further test sets: how a table calls them; their TFDS name; and the classes to
# choose among.
SETS = {
  "replace": ("Replace", None, None),
  "noise": ("Noise", None, None),
  "imagenet_a": ("IN-A", "imagenet_a", "imagenet_a"),
  "imagenet_r": ("IN-R", "imagenet_r", "imagenet_r"),
  "imagenet_sketch": ("IN-Sketch", "imagenet_sketch", None),
}
IMAGENET_C = "imagenet2012_corrupted"
NONE = ("none", 0)  # what corrupted images are to be compared with
# Of corruptions that are made on the fly, unless others are asked for.
_MADE_SEVERITIES = (3,)
# For what takes long, PGD and such corruptions, unless a number is asked for.
_FEWER_EXAMPLES = 500


class Options(NamedTuple):
  """What is asked for.

  Attributes:
    max_examples: of each test; None for all.
    eps: of the attacks, of a pixel value in [0, 1].
    pgd_steps: of PGD; 0 for no PGD.
    corruptions: names of `pp_ops.corruptions`.
    severities: of the corruptions; None for all of ImageNet-C, or for one.
    sets: {name in `SETS`: a dataset's name or path}, where given.
    data_dir: of TFDS datasets; None for that of the run's evaluator.
  """

  max_examples: int | None = None
  eps: float = 8 / 255
  pgd_steps: int = 10
  corruptions: Sequence[str] = tuple(corruptions.NAMES)
  severities: Sequence[int] | None = None
  sets: dict[str, str] = {}
  data_dir: str | None = None


class Result(NamedTuple):
  """What came out of a test.

  Attributes:
    metrics: of its evaluator, as fractions.
    images: the first ones that the model got, uint8 [n, H, W, C].
  """

  metrics: dict[str, float]
  images: np.ndarray


class Measurement(NamedTuple):
  """What was found out about a run.

  Attributes:
    name: of the run.
    workdir: of the run.
    is_imagenet: whether its data have ImageNet's 1000 classes.
    results: by test: "clean", "fgsm", "pgd", the names of `SETS`, and
      corruptions as (name, severity).
    about: sentences: what the tests were, and what was left out.
  """

  name: str
  workdir: str
  is_imagenet: bool
  results: dict[str | tuple[str, int], Result]
  about: list[str]


class Suite:
  """The tests of a run, opened.

  Attributes:
    is_imagenet: see `Measurement`, as `about`.
    tests: evaluators, by test.
    about: what they are.
  """

  def __init__(self, run: parts.FinishedRun, options: Options):
    """Opens the data of all tests.

    Raises:
      ValueError: in one line, if the run has no classification evaluator, if
        its pp string has no pixels, or if what is asked for is not there.
    """
    self._run, self._options = run, options
    self._name, self._args = run.classification()
    # One function, so that all evaluators share the programs it is compiled in.
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
    """How many images there are, of which at most `most` are asked for."""
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
    """Raises unless a set's labels are, or are known to stand for, ours."""
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
    of_set = {  # as they are: 224 pixels, corrupted after their crop
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
    """Those that the op `corrupt` makes of the clean images."""
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
    """A function that appends the first images of a batch, as uint8."""
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
  """Puts a run to all tests.

  Args:
    workdir: the run's folder.
    name: what to call it.
    options: what is asked for.

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
  """A test's name to be shown."""
  if not isinstance(test, str):
    return " ".join(map(str, test))
  if test in SETS:
    return SETS[test][0]
  return {"fgsm": "FGSM", "pgd": "PGD"}.get(test, test)
