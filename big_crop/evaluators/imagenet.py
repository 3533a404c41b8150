"""ImageNet's classes: their order, and which of them ImageNet-A and -R have.

imagenet_classes.csv has the 1000 classes in the order of their labels. Its
columns `imagenet_a` and `imagenet_r` are taken from
hendrycks/natural-adv-examples and hendrycks/imagenet-r.
"""

import csv
import functools
import importlib.resources
from collections.abc import Sequence

from big_crop import names
from pp_ops.checks import check_number
from pp_ops.errors import UserError

SUBSETS = ("imagenet_a", "imagenet_r")


@functools.cache
def _rows():
  place = importlib.resources.files(__package__) / "imagenet_classes.csv"
  return list(csv.DictReader(place.read_text().splitlines()))


def wnids() -> list[str]:
  """The classes' WordNet ids, which datasets and folders use as names."""
  return [row["wnid"] for row in _rows()]


def subset(classes: str | Sequence[int], num_classes: int) -> tuple[int, ...]:
  """The numbers of some of a model's classes, in ascending order.

  Args:
    classes: their numbers, or a name of `SUBSETS`, each of 200 classes.
    num_classes: the number of the model's classes.

  Raises:
    ValueError: in one line, if the model does not have these classes.
  """
  if isinstance(classes, str):
    names.check("classes", classes, SUBSETS)
    if num_classes != 1000:
      raise UserError(
        f"classes={classes!r} are some of ImageNet's 1000; the model has"
        f" {num_classes}"
      )
    return tuple(i for i, row in enumerate(_rows()) if row[classes] == "1")
  for i in classes:
    check_number("classes", i, 0, num_classes - 1, whole=True)
  if not classes:
    raise UserError("classes: need some")
  return tuple(sorted(set(classes)))


def class_of(
  class_names: Sequence[str] | None, num_classes: int
) -> tuple[int, ...] | None:
  """ImageNet's label for each class of a dataset that has only some of them.

  For example, a folder with ImageNet-A's 200 class folders numbers them 0 to
  199, while a model of all 1000 classes has other numbers for them.

  Args:
    class_names: the names of the dataset's classes.
    num_classes: the number of the model's classes.

  Returns:
    The labels; None if the dataset's labels need no translation.
  """
  known = wnids()
  if num_classes != len(known) or not class_names:
    return None
  if list(class_names) == known or not set(class_names) <= set(known):
    return None
  return tuple(known.index(name) for name in class_names)
