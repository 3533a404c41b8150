"""What "How to train your ViT?" varies, as data for configs and studies.

Steiner et al., https://arxiv.org/abs/2106.10270. A model's name here is its
name in the paper; in a config it is "AugReg-" and that name.
"""

from typing import NamedTuple

MODELS = (
  *("R+Ti/16", "S/32", "B/32", "Ti/16", "R26+S/32", "S/16"),
  *("R50+L/32", "B/16", "L/16"),
)
# Section 3.3: RandAugment's layers (0: no RandAugment) and magnitude, mixup's
# alpha.
AUGMENTATIONS = {
  "none": (0, 0, 0.0),
  "light1": (2, 0, 0.0),
  "light2": (2, 10, 0.2),
  "medium1": (2, 15, 0.2),
  "medium2": (2, 15, 0.5),
  "strong1": (2, 20, 0.5),
  "strong2": (2, 20, 0.8),
}
FROM_SCRATCH = {"medium4": (4, 15, 0.5), "strong4": (4, 20, 0.8)}  # appendix A
PRETRAINED = (("i1k", 300), ("i21k", 30), ("i21k", 300))  # data, epochs
REGULARISATION = (0.0, 0.1)  # one rate for both dropout and stochastic depth
WEIGHT_DECAY = (0.1, 0.03)  # multiplied by the learning rate
# Model arguments for smoke runs.
SMOKE = dict(width=32, depth=1, mlp_dim=64, num_heads=2, dtype_mm="float32")


def augment(aug: str) -> tuple[str, float]:
  """RandAugment as part of a pp string, and mixup's alpha.

  RandAugment has the contrast and the rounding of TensorFlow's implementation,
  so that it changes an image even with magnitude 0.
  """
  layers, magnitude, alpha = (AUGMENTATIONS | FROM_SCRATCH)[aug]
  op = f'randaug({layers}, {magnitude}, contrast="legacy")' if layers else ""
  return op, alpha


class Task(NamedTuple):
  """A dataset to finetune on.

  Attributes:
    data: its name in TFDS.
    num_classes: number of classes.
    train, val, test: the splits to train on, to choose settings by, and to
      report.
    label: ops of a pp string that make `label`; "" if the dataset has it.
    scale: the largest pixel value of the images.
    steps: numbers of training steps to choose among; see `WARMUP`.
    lrs: learning rates to choose among.
    crops: whether training images are cropped and flipped, or only resized.
    group: the group of VTAB that it belongs to.
    held_out: if `val` is cut from the same TFDS split as `train`, the index of
      the first example of `val` in that split; for `with_1000`.
  """

  data: str
  num_classes: int
  train: str
  val: str
  test: str
  label: str = ""
  scale: int = 255
  steps: tuple[int, ...] = (500, 2_500)
  lrs: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
  crops: bool = False
  group: str = ""
  held_out: int | None = None


WARMUP = {500: 100, 2_500: 200, 10_000: 500, 20_000: 500}
_SMALL = dict(lrs=(0.001, 0.003, 0.01))
_LONG = dict(**_SMALL, steps=(2_500, 10_000), crops=True)
_OFFICIAL = ("train", "validation", "test")
_PARTS = ("train[:60%]", "train[60%:80%]", "train[80%:]")
_KITTI = ("kitti", 4, *_OFFICIAL, "kitti_distance")


def _part(percent, test="test"):
  return (f"train[:{percent}%]", f"train[{percent}%:]", test)


# Table 4. The index of the published checkpoints has runs with the learning
# rate 0.03 for all of these datasets.
TRANSFER = {
  "imagenet2012": Task(
    *("imagenet2012", 1000, *_part(99, "validation")),
    lrs=(0.01, 0.03),
    steps=(20_000,),
    crops=True,
  ),
  "oxford_iiit_pet": Task(
    "oxford_iiit_pet", 37, *_part(90), crops=True, **_SMALL
  ),
  "kitti_distance": Task(*_KITTI, **_SMALL),
  "cifar100": Task("cifar100", 100, *_part(98), **_LONG),
  "resisc45": Task("resisc45", 45, *_PARTS, **_LONG),
}

_NATURAL = dict(group="natural")
_SPECIALISED = dict(group="specialised")
_STRUCTURED = dict(group="structured")
_RETINOPATHY = "diabetic_retinopathy_detection/btgraham-300"
_DSPRITES = ("train[:80%]", "train[80%:90%]", "train[90%:]")
_ON_SPRITES = dict(scale=1, held_out=589_824, **_STRUCTURED)
_NORB = ("train", "test[:50%]", "test[50%:]")
_COARSE = "coarse_label({}, 16, inkey='label_{}', outkey='label')"

# Table 5; the splits are task_adaptation's.
VTAB = {
  "caltech101": Task("caltech101", 102, *_part(90), held_out=2753, **_NATURAL),
  "cifar100": Task("cifar100", 100, *_part(90), held_out=45_000, **_NATURAL),
  "dtd": Task("dtd", 47, *_OFFICIAL, **_NATURAL),
  "flowers102": Task("oxford_flowers102", 102, *_OFFICIAL, **_NATURAL),
  "pets": Task("oxford_iiit_pet", 37, *_part(80), held_out=2944, **_NATURAL),
  "sun397": Task("sun397/tfds", 397, *_OFFICIAL, **_NATURAL),
  "svhn": Task("svhn_cropped", 10, *_part(90), held_out=65_931, **_NATURAL),
  "camelyon": Task("patch_camelyon", 2, *_OFFICIAL, **_SPECIALISED),
  "eurosat": Task("eurosat/rgb", 10, *_PARTS, held_out=16_200, **_SPECIALISED),
  "resisc45": Task("resisc45", 45, *_PARTS, held_out=18_900, **_SPECIALISED),
  "retinopathy": Task(_RETINOPATHY, 5, *_OFFICIAL, **_SPECIALISED),
  "clevr_count": Task(
    *("clevr", 8, *_part(90, "validation"), "clevr_count"),
    held_out=63_000,
    **_STRUCTURED,
  ),
  "clevr_distance": Task(
    *("clevr", 6, *_part(90, "validation"), "clevr_distance"),
    held_out=63_000,
    **_STRUCTURED,
  ),
  "dmlab": Task("dmlab", 6, *_OFFICIAL, **_STRUCTURED),
  "dsprites_location": Task(
    *("dsprites", 16, *_DSPRITES, _COARSE.format(32, "x_position")),
    **_ON_SPRITES,
  ),
  "dsprites_orientation": Task(
    *("dsprites", 16, *_DSPRITES, _COARSE.format(40, "orientation")),
    **_ON_SPRITES,
  ),
  "kitti_distance": Task(*_KITTI, **_STRUCTURED),
  "norb_azimuth": Task(
    "smallnorb", 18, *_NORB, "copy('label_azimuth', 'label')", **_STRUCTURED
  ),
  "norb_elevation": Task(
    "smallnorb", 9, *_NORB, "copy('label_elevation', 'label')", **_STRUCTURED
  ),
}


def with_1000(task: Task) -> Task:
  """VTAB-1k's splits: 800 examples to train on, and 200 to choose by."""
  val, _, _ = task.val.partition("[")
  first = task.held_out or 0
  return task._replace(
    train=f"{task.train.partition('[')[0]}[:800]",
    val=f"{val}[{first}:{first + 200}]",
  )
