"""Calibration, attacks and subsets against NumPy and torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from command_helpers import PP
from PIL import Image
from scipy import special

from big_crop import evaluators, models, weights
from big_crop.evaluators import imagenet, pixels
from big_crop.evaluators.calibration import rms_error
from big_crop.runtime import sharding

CLASSES = 20


def pixmix(confidence, correct, bin_size=100):
  """PixMix's calib_err, and the same with all bins, transcribed."""
  order = np.argsort(confidence)
  confidence, correct = confidence[order], correct[order]
  n = len(order)
  bins = [[i * bin_size, (i + 1) * bin_size] for i in range(n // bin_size)]
  bins[-1][1] = n
  squares = [
    (end - first)
    / n
    * (confidence[first:end].mean() - correct[first:end].mean()) ** 2
    for first, end in bins
  ]
  return sum(squares[:-1]) ** 0.5, sum(squares) ** 0.5


def test_rms_calibration_is_pixmixs():
  rng = np.random.default_rng(0)
  for n in (100, 199, 200, 250, 1234, 5000):
    confidence = rng.random(n)
    correct = (rng.random(n) < confidence**2).astype(float)
    without_last, whole = pixmix(confidence, correct)
    found = rms_error(confidence, correct, without_last=True)
    assert found == pytest.approx(without_last, abs=1e-9)
    found = rms_error(confidence, correct)
    assert found == pytest.approx(whole, abs=1e-9)
  # Fewer images than a bin holds, for which PixMix's code raises IndexError.
  found = rms_error(np.array([0.5, 0.9]), np.array([1.0, 1.0]))
  assert found == pytest.approx(0.3)


MATRIX = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)


def linear(variables, image):
  """Logits that depend on the mean colour."""
  return 4 * image.mean((1, 2)) @ variables, {}


def evaluator(kind, devices=8, predict=linear, num_classes=CLASSES, **kw):
  mesh = sharding.make_mesh([("data", devices)], jax.devices()[:devices])
  arguments = {
    "data": {"name": "critters", "split": "validation[:150]"},
    "pp_fn": PP,
    "batch_size": 64,
    "type": kind,
  }
  return evaluators.make(
    "val",
    arguments | kw,
    predict=predict,
    mesh=mesh,
    num_classes=num_classes,
    seed=3,
  )


@functools.cache
def examples():
  """All images as the model sees them, float64, and the labels."""
  made = evaluator("classification", devices=1, batch_size=150)
  [(batch, _)] = made.data.batches()
  return np.float64(batch["image"]), np.asarray(batch["label"])


def logits_of(image):
  return 4 * image.mean((1, 2)) @ MATRIX.astype(np.float64)


@pytest.mark.long
def test_evaluators_on_eight_devices_against_numpy():
  image, label = examples()
  logits = logits_of(image)
  found = evaluator("calibration", bin_size=40).run(MATRIX)
  hits = logits.argmax(-1) == label
  confidence = special.softmax(logits, -1).max(-1)
  without_last, whole = pixmix(confidence, hits, 40)
  assert found["count"] == 150  # 42 of the last 64 are padding
  assert found["top1"] == pytest.approx(hits.mean())
  assert found["rms_calibration"] == pytest.approx(whole, abs=1e-6)
  assert found["rms_calibration_pixmix"] == pytest.approx(
    without_last, abs=1e-6
  )
  alone = evaluator("calibration", devices=1, batch_size=150, bin_size=40).run(
    MATRIX
  )
  assert alone == pytest.approx(found, abs=1e-6)

  first = evaluator("classification", max_examples=70).run(MATRIX)
  assert first["count"] == 70
  assert first["top1"] == pytest.approx(hits[:70].mean())

  # The best of some columns; images of other classes do not count.
  some = [4, 7, 1, 13]
  found = evaluator("classification", classes=some).run(MATRIX)
  kept = np.isin(label, some)
  best = np.array(sorted(some))[logits[:, sorted(some)].argmax(-1)]
  assert found["count"] == kept.sum()
  assert found["top1"] == pytest.approx((best == label)[kept].mean())


def by_hand(x, label, eps, steps, size, scale):
  """PGD from x in [0, 1] on `linear`; (x - 0.5) / scale is what it sees."""
  start = x
  for _ in range(steps):
    p = special.softmax(logits_of((x - 0.5) / scale), -1)
    slope = (p - np.eye(CLASSES)[label]) @ MATRIX.T.astype(np.float64)
    moved = x + size * np.sign(slope / scale)[:, None, None]
    x = np.clip(np.clip(moved, start - eps, start + eps), 0, 1)
  return x


@pytest.mark.parametrize(
  ("pp_end", "scale", "attack"),
  [
    ("value_range(-1, 1)", 0.5, dict(eps=8 / 255)),
    (
      "value_range(2, -2)|keep('image', 'label')",
      -0.25,
      dict(eps=0.3, steps=3, step_size=0.2),
    ),
    (
      "vgg_value_range((127.5, 127.5, 127.5), (51, 102, 204))",
      (0.2, 0.4, 0.8),
      dict(eps=0.3, steps=2),
    ),
  ],
)
def test_attacks_on_eight_devices_against_numpy(pp_end, scale, attack):
  image, label = examples()
  scale, seen = np.array(scale), []
  pp_fn = f"decode|resize(32)|{pp_end}"
  found = evaluator("adversarial", pp_fn=pp_fn, **attack)
  metrics = found.run(MATRIX, seen.append)
  eps, steps = attack["eps"], attack.get("steps", 1)
  size = attack.get("step_size", 2.5 * eps / steps if steps > 1 else eps)
  expected = by_hand(image / 2 + 0.5, label, eps, steps, size, scale)
  np.testing.assert_allclose(
    np.asarray(seen[0]) * scale + 0.5, expected[:64], atol=1e-5
  )
  assert steps == 1 or (expected.min() == 0 and expected.max() == 1)
  hits = logits_of((expected - 0.5) / scale).argmax(-1) == label
  assert metrics["top1"] == pytest.approx(hits.mean(), abs=1e-9)


def test_a_random_start_is_the_seeds_and_within_reach():
  image, _ = examples()
  starts = []
  for devices in (8, 1):
    made = evaluator(
      "adversarial", devices, random_start=True, steps=1, step_size=0.0
    )
    made.run(MATRIX, starts.append)
  a, b = map(np.asarray, starts)
  np.testing.assert_allclose(a, b, atol=1e-6)
  moved = (a - image[:64]) / 2 * 255
  assert np.abs(moved).max() <= 8.001
  assert np.abs(moved).mean() == pytest.approx(4, abs=0.3)


def test_evaluators_share_their_programs():
  """Evaluators of 95 corruptions have other data, but the same model."""
  traces = []

  def predict(variables, image):
    traces.append(image.shape)
    return linear(variables, image)

  first = evaluator("calibration", predict=predict)
  first.run(MATRIX)
  for severity in (1, 5):
    pp = f"decode|resize(32)|corrupt('contrast', {severity})|value_range"
    data = first.data.through(pp, "tf.data")
    evaluator("classification", predict=predict, data=data).run(MATRIX)
  assert len(traces) == 1


@pytest.mark.parametrize(
  ("kind", "kw", "message"),
  [
    ("adversarial", {"eps": -0.1}, "eps=-0.1: need a number"),
    ("adversarial", {"steps": 0}, "steps=0"),
    ("adversarial", {"pp_fn": f"{PP}|per_image"}, "unknown op 'per_image'"),
    (
      "adversarial",
      {"pp_fn": "decode|resize(32)|value_range(-1, 1)|vgg_value_range|squared"},
      "no scale and offset of each channel",
    ),
    (
      "adversarial",
      {"pp_fn": "decode|value_range(-1, 1)|resize(32)"},
      "no place where the image is uint8",
    ),
    ("classification", {"classes": "imagenet_a"}, "the model has 20"),
    (
      "classification",
      {"classes": "imagenet_b"},
      "choices: imagenet_a, imagenet_r",
    ),
    ("classification", {"classes": [20]}, "classes=20: need a whole number"),
    ("classification", {"classes": []}, "need some"),
    ("classification", {"max_examples": 0}, "max_examples=0"),
    ("calibration", {"bin_size": 0}, "bin_size=0"),
    ("calibration", {"bins": 3}, "did you mean 'bin_size'"),
  ],
)
def test_evaluators_refuse(kind, kw, message, monkeypatch):
  from pp_ops import registry

  registry.lookup("decode")
  square = registry.Op(lambda: lambda x: x * x, "image", "image", None)
  monkeypatch.setitem(registry._OPS, "squared", square)
  with pytest.raises(ValueError, match=message) as e:
    evaluator(kind, **kw)
  assert "\n" not in str(e.value) and "config.evals.val" in str(e.value)


def test_imagenets_classes():
  known = imagenet.wnids()
  place = tfds.core.tfds_path() / "datasets/imagenet2012/labels.txt"
  assert known == place.read_text().split()
  a, r = (imagenet.subset(name, 1000) for name in imagenet.SUBSETS)
  assert len(a) == len(r) == 200 and len(set(a) & set(r)) == 86
  assert a[:5] == (6, 11, 13, 15, 17)  # the authors' first indices
  assert r[:5] == (1, 2, 4, 6, 8)
  assert imagenet.class_of(known, 1000) is None
  assert imagenet.class_of(["cat", "dog"], 1000) is None
  assert imagenet.class_of([known[7], known[3]], 1000) == (7, 3)
  assert imagenet.class_of([known[7], known[3]], 20) is None


def test_a_folder_of_some_of_imagenets_classes(tmp_path):
  """As ImageNet-A is unpacked: labels 0, 1, ... number its own folders."""
  known, some = imagenet.wnids(), (11, 15, 17)
  for label in some:
    (tmp_path / known[label]).mkdir()
    for i in range(3):
      grey = Image.new("RGB", (40, 40), (label + i,) * 3)
      grey.save(tmp_path / known[label] / f"{i}.png")

  def predict(_, image):
    """Logits fall with the class's distance from the image's grey level."""
    level = jnp.round((image.mean((1, 2, 3)) + 1) * 127.5)
    return -jnp.abs(jnp.arange(1000) - level[:, None]), {}

  data = {"name": str(tmp_path), "split": "all"}
  kw = dict(predict=predict, num_classes=1000, data=data, batch_size=8)
  found = evaluator("classification", **kw).run({})
  assert found["count"] == 9 and found["top1"] == pytest.approx(1 / 3)
  # ImageNet-A's classes nearest to level 12 are 11 and 13, of which 11 comes
  # first. 13 is a class itself, 16 is midway between two, and 18 is not.
  found = evaluator("classification", classes="imagenet_a", **kw).run({})
  subset = np.array(imagenet.subset("imagenet_a", 1000))
  hits = [
    subset[np.abs(subset - label - i).argmin()] == label
    for label in some
    for i in range(3)
  ]
  assert found["top1"] == pytest.approx(np.mean(hits)) and np.mean(hits) > 1 / 3


def _attacked_by_torch(reference, pixels_, label, eps=8 / 255):
  import torch

  x = torch.from_numpy(pixels_.transpose(0, 3, 1, 2).copy())
  x.requires_grad_()
  mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
  std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
  logits = lambda x: reference((x - mean) / std)
  loss = torch.nn.functional.cross_entropy(
    logits(x), torch.from_numpy(np.int64(label)), reduction="sum"
  )
  (gradient,) = torch.autograd.grad(loss, x)
  attacked = (x + eps * gradient.sign()).clamp(0, 1).detach()
  with torch.no_grad():
    hits = logits(attacked).argmax(-1).numpy() == label
  back = lambda x: x.numpy().transpose(0, 2, 3, 1)
  return back(attacked), back(gradient), hits


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_fgsm_is_torchs(name):
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  if name == "resnet":
    torchvision = pytest.importorskip("torchvision")
    reference = torchvision.models.resnet18(num_classes=CLASSES)
    with torch.no_grad():
      for _ in range(20):  # so that running averages are not initial
        reference.train()(1 + 2 * torch.randn(16, 3, 32, 32))
    convert = weights.from_torchvision
    model = models.get_model("resnet", CLASSES, variant=18)
  else:
    timm = pytest.importorskip("timm")
    kw = dict(num_classes=CLASSES, img_size=32, depth=2)
    reference = timm.create_model("deit_tiny_patch16_224", **kw)
    with torch.no_grad():
      for p in reference.parameters():
        p.add_(0.05 * torch.randn_like(p))
    convert = weights.from_timm
    model = models.get_model("vit", CLASSES, variant="DeiT-Ti/16", depth=2)
  reference.eval()
  state = {k: v.numpy().copy() for k, v in reference.state_dict().items()}
  variables = jax.tree.map(jnp.asarray, convert(state))
  made = evaluator(
    "adversarial",
    devices=1,
    predict=functools.partial(model.apply, train=False),
    data={"name": "critters", "split": "validation[:500]"},
    pp_fn="decode|resize(32)|vgg_value_range",
    batch_size=500,
  )
  [(batch, _)] = made.data.batches()
  black, white = (np.array(x) for x in pixels.find(made.data)[3:])
  in_pixels = lambda x: (np.asarray(x, np.float64) - black) / (white - black)
  clean = np.round(255 * in_pixels(batch["image"])) / 255
  label = np.asarray(batch["label"])
  seen = []
  metrics = made.run(variables, seen.append)
  expected, gradient, hits = _attacked_by_torch(
    reference, clean.astype(np.float32), label
  )
  found = in_pixels(seen[0])
  slope = gradient != 0
  # Unless it is clipped to the range, the change is the gradient's sign.
  same = np.abs(found - expected) < 1e-4
  assert same[slope].mean() >= 0.999, same[slope].mean()
  assert slope.mean() > 0.5 and not np.allclose(found, clean)
  assert metrics["top1"] == hits.mean()
