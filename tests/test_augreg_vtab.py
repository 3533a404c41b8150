"""AugReg's datasets, VTAB among them: splits, labels, records of TFDS."""

import data_helpers
import jax
import numpy as np
import pytest
import tensorflow as tf
from augreg_helpers import load

from big_crop import parts
from big_crop.data import base
from big_crop.study import augreg
from pp_ops import registry

# Examples of each split in TFDS.
SPLITS = {
  "caltech101": dict(train=3059, test=6085),
  "cifar100": dict(train=50_000, test=10_000),
  "clevr": dict(train=70_000, validation=15_000, test=15_000),
  "dsprites": dict(train=737_280),
  "eurosat/rgb": dict(train=27_000),
  "imagenet2012": dict(train=1_281_167, validation=50_000),
  "oxford_iiit_pet": dict(train=3680, test=3669),
  "resisc45": dict(train=31_500),
  "smallnorb": dict(train=24_300, test=24_300),
  "svhn_cropped": dict(train=73_257, test=26_032),
}
# (train, val) of the paper, section 3.1, and of task_adaptation.
PARTS = {
  ("transfer", "cifar100"): (49_000, 1_000, 10_000),
  ("transfer", "imagenet2012"): (1_268_355, 12_812, 50_000),
  ("transfer", "oxford_iiit_pet"): (3312, 368, 3669),
  ("transfer", "resisc45"): (18_900, 6300, 6300),
  ("vtab", "caltech101"): (2753, 306, 6085),
  ("vtab", "cifar100"): (45_000, 5000, 10_000),
  ("vtab", "clevr_count"): (63_000, 7000, 15_000),
  ("vtab", "dsprites_location"): (589_824, 73_728, 73_728),
  ("vtab", "eurosat"): (16_200, 5400, 5400),
  ("vtab", "norb_azimuth"): (24_300, 12_150, 12_150),
  ("vtab", "pets"): (2944, 736, 3669),
  ("vtab", "resisc45"): (18_900, 6300, 6300),
  ("vtab", "svhn"): (65_931, 7326, 26_032),
}
TASKS = {("transfer", k): t for k, t in augreg.TRANSFER.items()}
TASKS |= {("vtab", k): t for k, t in augreg.VTAB.items()}
OFFICIAL = dict(train=4000, validation=1000, test=2000)


@pytest.mark.parametrize("key", TASKS, ids="-".join)
def test_splits_are_disjoint_and_of_the_right_size(key):
  task = TASKS[key]
  sizes = SPLITS.get(task.data, OFFICIAL)
  expected = PARTS.get(key)
  if sizes is OFFICIAL:
    expected = (4000, 1000, 2000)
  variants = [(task, expected or PARTS.get(("vtab", "clevr_count")))]
  if key[1] in ("dsprites_orientation", "norb_elevation"):
    twin = {"dsprites_orientation": "dsprites_location"}
    variants = [(task, PARTS["vtab", twin.get(key[1], "norb_azimuth")])]
  if task.group:
    variants.append((augreg.with_1000(task), (800, 200, variants[0][1][2])))
  for t, wanted in variants:
    taken = []
    for split, size in zip((t.train, t.val, t.test), wanted, strict=True):
      [part] = base.check_split(split, sizes, t.data)
      name, first, end = part
      assert end - first == size
      for other, start, stop in taken:
        assert other != name or end <= start or stop <= first
      taken.append(part)


def test_vtab_has_its_19_tasks():
  groups = [t.group for t in augreg.VTAB.values()]
  counts = {g: groups.count(g) for g in groups}
  assert counts == {"natural": 7, "specialised": 4, "structured": 8}
  sweep = sum(len(t.lrs) * len(t.steps) for t in augreg.TRANSFER.values())
  assert sweep == 26  # Table 4; 34 with the learning rate 0.03 for all


def label(op, **features):
  return int(registry.get_preprocess_fn(op)(features)["label"])


def test_labels_of_clevr():
  def objects(distances):
    xyz = np.zeros((len(distances), 3), np.float32)
    xyz[:, 2] = distances
    return dict(size=tf.zeros(len(distances), tf.int64), pixel_coords=xyz)

  for n in range(3, 11):
    assert label("clevr_count", objects=objects([9.0] * n)) == n - 3
  for distance, expected in [
    *((7.99, 0), (8.0, 0), (8.01, 1), (8.5, 1), (8.6, 2), (9.2, 3)),
    *((9.5, 3), (9.6, 4), (10.0, 4), (10.5, 5), (50.0, 5)),
  ]:
    found = label("clevr_distance", objects=objects([99.0, distance, 60.0]))
    assert found == expected, distance


def test_labels_of_kitti():
  def nearest(*found):
    kinds, z = zip(*found, strict=True) if found else ((), ())
    xyz = np.zeros((len(z), 3), np.float32)
    xyz[:, 2] = z
    kinds = tf.constant(kinds, tf.int64, [len(z)])
    return label("kitti_distance", objects=dict(type=kinds, location=xyz))

  # A pedestrian (type 3) in front of the cars does not count.
  assert nearest((0, 7.9), (3, 2.0)) == 0 == nearest((2, -5.0))
  assert nearest((1, 8.1), (0, 30.0)) == 1 == nearest((0, 20.0))
  assert nearest((2, 20.1)) == 2 == nearest((0, 500.0), (5, 1.0))
  assert nearest((3, 5.0), (7, 9.0)) == 3 == nearest()


def test_labels_of_dsprites_and_norb():
  for values, task in [
    (32, "dsprites_location"),
    (40, "dsprites_orientation"),
  ]:
    op = augreg.VTAB[task].label
    key = op.split("inkey='")[1].split("'")[0]
    for i in range(values):
      expected = int(np.float32(i) // np.float32(values / 16))
      assert label(op, **{key: tf.constant(i, tf.int64)}) == expected
  op = augreg.VTAB["norb_azimuth"].label
  assert label(op, label_azimuth=tf.constant(17, tf.int64)) == 17
  with pytest.raises(ValueError, match="classes=40"):
    registry.get_preprocess_fn("coarse_label(32, 40)")


def test_images_of_dsprites_are_black_and_white():
  pp = load("transfer", "dataset=vtab/dsprites_location,res=32").input.pp
  image = np.zeros((64, 64, 1), np.uint8)
  image[:32] = 1
  png = tf.io.encode_png(image)
  features = {"image": png, "label_x_position": tf.constant(3, tf.int64)}
  out = registry.get_preprocess_fn(pp)(features)["image"].numpy()
  assert out.shape == (32, 32, 3)
  assert (out[0] == 1).all() and (out[-1] == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", augreg.VTAB)
def test_vtab_trains_on_records_of_tfds_schema(name, tmp_path_factory):
  task = augreg.VTAB[name]
  data_dir = tmp_path_factory.getbasetemp() / "tfds"
  if not (data_dir / task.data).exists():
    splits = SPLITS.get(task.data, OFFICIAL)
    data_helpers.mocked(task.data, data_dir, 14, splits)
  c = load("transfer", f"dataset=vtab/{name},res=16,data_dir={data_dir}")
  assert c.num_classes == task.num_classes
  c.num_classes = 400  # so that one program is compiled for all
  c.total_steps, c.input.batch_size, c.schedule.warmup_steps = 2, 8, 1
  c.model = dict(variant="AugReg-mu/16")
  for e in c.evals.values():
    e.batch_size = 8
  built = parts.build(c)
  state, batches = built.init(), built.device_batches()
  for _ in range(2):
    batch, _ = next(batches)
    assert batch["image"].shape == (8, 16, 16, 3)
    labels = np.asarray(batch["label"])
    assert ((labels >= 0) & (labels < task.num_classes)).all(), labels
    state, metrics = built.train_step(state, batch)
  assert np.isfinite(float(metrics["training_loss"]))
  assert int(jax.device_get(state.step)) == 2
