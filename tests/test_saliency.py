"""Saliency maps against NumPy and finite differences; evaluator; command."""

import dataclasses
import functools
import json
import pathlib
import shutil

import command_helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import PP, exits_with_one_line
from scipy import stats

from big_crop import evaluators, models, train
from big_crop.data import critters
from big_crop.runtime import sharding
from big_crop.saliency import __main__ as saliency
from big_crop.saliency import maps as sm
from big_crop.saliency import measurement
from big_crop.saliency.evaluator import statistics
from pp_ops.registry import get_preprocess_fn

CLASSES = 5
TINY = {
  "vit": dict(
    width=16, depth=2, mlp_dim=32, num_heads=2, patch_size=(8, 8),
    head_zeroinit=False,
  ),
  "resnet": dict(variant=18, width=4, small_stem=True),
}  # fmt: skip


@functools.cache
def make(name, **kw):
  """A model with variables that are all random, images and labels."""
  model = models.get_model(name, CLASSES, **{**TINY[name], **kw})
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)

  def draw(x):
    if x.ndim == 1:  # running variances among them
      return rng.uniform(0.1, 1, x.shape).astype(np.float32)
    fan_in = np.prod(x.shape) / x.shape[-1]
    return (rng.normal(size=x.shape) / fan_in**0.5).astype(np.float32)

  variables = jax.tree.map(draw, shapes)
  return model, variables, image, np.array([0, 3, 1, 4])


def compute(model, variables, image, label, kinds):
  maps, logits = jax.jit(sm.make_maps(model, kinds))(variables, image, label)
  return jax.tree.map(np.asarray, maps), np.asarray(logits)


def test_known_entropies():
  single = np.zeros((14, 14))
  single[3, 4] = 2e-5
  for m, expected in [
    (np.full((224, 224), 7.0), np.log(224**2)),
    (np.full((14, 14), 1e-6), np.log(14**2)),
    (single, 0.0),
    (np.array([[3.0, -5.0], [1.0, 0.0]]), stats.entropy([3, 1])),
  ]:
    s, empty = sm.entropy(jnp.asarray(m[None], jnp.float32))
    np.testing.assert_allclose(s, [expected], rtol=1e-5, atol=1e-6)
    assert not empty.any()
  assert f"{np.log(224**2):.2f} {np.log(14**2):.2f}" == "10.82 5.28"

  # Maps without a positive value are counted.
  maps = np.ones((3, 2, 2), np.float32)
  maps[0], maps[1] = 0, -1
  s, empty = map(np.asarray, sm.entropy(maps))
  np.testing.assert_array_equal(empty, [True, True, False])
  found = statistics(s, empty)
  assert found["zero_maps"] == 2
  assert found["entropy"] == pytest.approx(np.log(4))
  assert statistics(s[:2], empty[:2]) == {"zero_maps": 2}


def test_gradient_is_the_finite_difference():
  new = hasattr(jax, "enable_x64")
  x64 = jax.enable_x64 if new else jax.experimental.enable_x64
  model, variables, image, label = make("vit")
  model = model.clone(dtype_mm="float64")
  with x64(True):
    as64 = lambda x: jnp.asarray(x, jnp.float64)
    variables, image = jax.tree.map(as64, (variables, image))
    maps, logits = compute(model, variables, image, label, ("gradient",))
    assert maps["gradient"].dtype == logits.dtype == np.float64
    assert maps["gradient"].shape == (4, 32, 32)

    # All channels of a pixel move together: equation (1) sums over them.
    step, rng = 1e-5, np.random.default_rng(0)
    places = rng.integers(0, 32, (12, 2))
    moved = np.zeros((12, 32, 32, 3))
    moved[np.arange(12), places[:, 0], places[:, 1]] = step
    target = jax.jit(lambda x, c: model.apply(variables, x)[0][:, c])
    for i in range(2):
      up, down = (target(image[i] + s * moved, label[i]) for s in (1, -1))
      expected = np.maximum((up - down) / (2 * step), 0)
      found = maps["gradient"][i, places[:, 0], places[:, 1]]
      assert (expected > 0).any() and (expected == 0).any()
      np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def vit_by_hand(model, variables, image, label):
  """Grad-CAM and relevance of a gap ViT, from its activations, in float64."""
  _, out = jax.jit(model.apply)(variables, image)
  params = jax.tree.map(np.float64, variables["params"])
  norm, head = params["Transformer"]["encoder_norm"], params["head"]
  x = np.float64(out["encoder"]["pre_ln"])  # [B, N, D]
  n = x.shape[1]
  centred = x - x.mean(-1, keepdims=True)
  sigma = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  normal = centred / sigma
  # Backward through mean, scale and layer norm.
  w = head["kernel"][:, label].T[:, None] / n
  g = w * norm["scale"]
  g = g - g.mean(-1, keepdims=True) - normal * (g * normal).mean(-1)[..., None]
  alpha = (g / sigma).mean(1)
  gradcam = np.maximum((alpha[:, None] * x).sum(-1), 0)
  z = normal * norm["scale"] + norm["bias"]
  relevance = (w * z).sum(-1) + head["bias"][label][:, None] / n
  grid = lambda m: m.reshape(len(m), 4, -1)
  return grid(gradcam), grid(relevance)


def resnet_by_hand(model, variables, image, label):
  """By hand, because only the mean and the head follow layer4."""
  _, out = jax.jit(model.apply)(variables, image)
  head = jax.tree.map(np.float64, variables["params"]["head"])
  x = np.float64(out["layer4"])
  places = x.shape[1] * x.shape[2]
  of_place = np.einsum("bhwk,kb->bhw", x, head["kernel"][:, label]) / places
  bias = head["bias"][label][:, None, None] / places
  return np.maximum(of_place, 0), of_place + bias


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_gradcam_and_relevance_by_hand(name):
  made = make(name)
  maps, logits = compute(*made, ("gradcam", "relevance"))
  by_hand = {"vit": vit_by_hand, "resnet": resnet_by_hand}[name](*made)
  for kind, expected in zip(("gradcam", "relevance"), by_hand, strict=True):
    assert maps[kind].shape == expected.shape == (4, 4, 4)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(maps[kind], expected, atol=1e-4 * scale)
  assert (maps["gradcam"] >= 0).all()
  of_label = logits[np.arange(4), made[3]]
  total = maps["relevance"].sum((1, 2))
  np.testing.assert_allclose(total, of_label, rtol=1e-4)


def test_maps_stay_float32_in_a_bfloat16_model():
  made = make("vit", dtype_mm="bfloat16")
  maps, logits = compute(*made, sm.KINDS[1:])
  assert {m.dtype for m in maps.values()} == {np.dtype("float32")}
  of_label = logits[np.arange(4), made[3]]
  np.testing.assert_allclose(maps["relevance"].sum((1, 2)), of_label, rtol=1e-4)


def test_kinds_do_not_depend_on_each_other():
  made = make("vit", pool_type="map", depth=1)
  together, _ = compute(*made, ("gradient", "gradcam"))
  alone, _ = compute(*made, ("gradcam",))
  assert (alone["gradcam"] > 0).any()
  np.testing.assert_allclose(alone["gradcam"], together["gradcam"], rtol=1e-5)


def test_what_a_model_has():
  vit = lambda **kw: models.get_model("vit", CLASSES, **{**TINY["vit"], **kw})
  resnet = models.get_model("resnet", CLASSES, **TINY["resnet"])
  assert sm.choose_kinds(vit(), None) == sm.KINDS
  assert sm.choose_kinds(resnet, None) == sm.KINDS
  assert sm.choose_kinds(vit(), ["relevance", "gradient"]) == (
    "gradient",
    "relevance",
  )
  assert sm.choose_kinds(vit(pool_type="tok"), None) == ("gradient",)
  assert sm.choose_kinds(vit(pool_type="map"), None) == sm.KINDS[:2]
  assert sm.choose_kinds(vit(rep_size=8), None) == sm.KINDS[:2]
  for model, maps, message in [
    (vit(pool_type="tok"), ["gradcam"], "'gradcam'.*no gradient.*'gap'"),
    (vit(pool_type="tok"), ["relevance"], "'relevance'.*class token.*'gap'"),
    (vit(pool_type="map"), ["relevance"], "not linear.*pool_type='gap'"),
    (vit(rep_size=8), ["relevance"], "rep_size=8"),
    (resnet, ["gradcamm"], "did you mean 'gradcam'"),
    (resnet, [], "need a list"),
    (resnet, "gradcam", "need a list"),
    (object(), ["gradcam"], r"last_layer\(\) .*which object lacks"),
  ]:
    with pytest.raises(ValueError, match=message):
      sm.choose_kinds(model, maps)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """60 small images in five class folders."""
  root = tmp_path_factory.mktemp("images")
  for i, (data, label) in enumerate(
    zip(*critters.generate("train", 0, 60), strict=True)
  ):
    path = root / f"class_{label % CLASSES}" / f"{i}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
  return root


def evaluator(folder, model, devices=8, batch_size=8, **kw):
  arguments = {
    "data": {"name": str(folder), "split": "train[:27]"},
    "pp_fn": PP,
    "batch_size": batch_size,
    "type": "saliency",
  }
  mesh = sharding.make_mesh([("data", devices)], jax.devices()[:devices])
  return evaluators.make(
    "saliency",
    {**arguments, **kw},
    model=model,
    predict=None,
    mesh=mesh,
    num_classes=CLASSES,
    seed=0,
  )


@pytest.mark.long
def test_evaluator_sees_each_example_once_on_any_devices(folder):
  model, variables, _, _ = make("vit")
  found = evaluator(folder, model).run(variables)
  alone = evaluator(folder, model, devices=1, batch_size=27)
  assert found == pytest.approx(alone.run(variables), rel=1e-4, abs=1e-6)
  assert found["count"] == 27  # five of the last eight are padding

  assert alone.data.source.class_names == [f"class_{i}" for i in range(CLASSES)]
  (batch,) = alone.batches(variables)
  for kind in sm.KINDS:
    p = np.asarray(batch.maps[kind], np.float64).reshape(27, -1)
    p = np.maximum(p, 0)
    p = p[p.sum(1) > 0]
    expected = stats.entropy(p, axis=1)
    assert found[f"{kind}_zero_maps"] == 27 - len(p)
    for key, value in [
      ("entropy", expected.mean()),
      ("entropy_std", expected.std()),
      ("entropy_p05", np.percentile(expected, 5)),
      ("entropy_p95", np.percentile(expected, 95)),
    ]:
      assert found[f"{kind}_{key}"] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_evaluator_of_a_new_model_has_zero_maps_only(folder):
  model, variables, _, _ = make("vit")
  zeros = jax.tree.map(np.zeros_like, variables["params"]["head"])
  variables = {"params": {**variables["params"], "head": zeros}}
  one = evaluator(folder, model, devices=1, maps=["gradient", "gradcam"])
  found = one.run(variables)
  assert found == {
    "count": 27,
    "gradient_zero_maps": 27,
    "gradcam_zero_maps": 27,
  }


def test_evaluator_refuses(folder):
  model, *_ = make("vit")
  tok, *_ = make("vit", pool_type="tok")
  onehot = f'onehot({CLASSES}, inkey="label", outkey="labels")'
  sets = f'{PP}|{onehot}|keep("image", "labels")'
  for of, kw, message in [
    (tok, {"maps": ["gradcam"]}, "config.evals.saliency: map 'gradcam'"),
    (model, {"pp_fn": sets}, "set of 'labels'"),
    (model, {"kinds": ["gradient"]}, "did you mean"),
    (model, {"batch_size": 9}, "not divisible"),
  ]:
    with pytest.raises(ValueError, match=message):
      evaluator(folder, of, **kw)


def measured(monkeypatch, tmp_path, made, variables, **kw):
  opened = made, variables, "beta_crop"
  monkeypatch.setattr(measurement, "open_run", lambda *_: opened)
  return measurement.measure(str(tmp_path), "a", **kw)


@pytest.mark.slow
def test_pictures_are_the_first_by_file_name(folder, tmp_path, monkeypatch):
  """As torchvision.datasets.ImageNet sorts them, not as they are stored."""
  model, variables, _, _ = make("vit")
  made = evaluator(folder, model, devices=1, maps=["gradient"])
  stored = [
    (int(e["label"]), pathlib.Path(e["file_name"].decode()))
    for e in made.data.source.epoch(None).as_numpy_iterator()
  ]
  pp = get_preprocess_fn(PP)
  moved = 0
  for wanted, kw in ((3, {}), (2, {"max_examples": 10})):
    m = measured(
      monkeypatch, tmp_path, made, variables, num_images=wanted, **kw
    )
    some = stored[: kw.get("max_examples", 27)]
    for label, picture in enumerate(m.pictures):
      paths = [p for c, p in some if c == label]
      moved += paths[0] != min(paths)
      assert m.class_name("label", picture.place) == f"class_{label}"
      expected = pp({"image": min(paths).read_bytes()})["image"]
      np.testing.assert_array_equal(picture.image, expected)
    assert len(m.pictures) == wanted
  assert moved
  # Skipped examples would shift the places of all later ones.
  monkeypatch.setattr(made.data, "skip_corrupt", True)
  assert measurement.file_names(made.data, 27) is None
  m = measured(monkeypatch, tmp_path, made, variables, num_images=1)
  first = next(p for c, p in stored if c == 0)
  expected = pp({"image": first.read_bytes()})["image"]
  np.testing.assert_array_equal(m.pictures[0].image, expected)

  # Another run on the same data, which is right where m errs and vice versa.
  turned = m.rows["label"] + m.hits
  other = dataclasses.replace(m, rows={**m.rows, "prediction": turned})
  other.rows["prediction"][7] = m.rows["prediction"][7]
  monkeypatch.setattr(measurement, "_MOST_DIFFERENT", 3)
  again = measured(monkeypatch, tmp_path, made, variables, first=other)
  right, wrong = (
    [i for i in np.flatnonzero(m.hits == hit) if i != 7][:3] for hit in (1, 0)
  )
  assert [p.place for p in again.differing] == [*right, *wrong]
  np.testing.assert_array_equal(m.pictures[0].image, expected)
  other.data = {"name": "elsewhere"}
  again = measured(monkeypatch, tmp_path, made, variables, first=other)
  assert not again.differing


def run_config(folder, **model):
  data = {"name": "folder", "data_dir": str(folder)}
  c = command_helpers.run_config(
    {**data, "split": "train"}, {**data, "split": "train[:27]"}
  )
  c.model = {**TINY["vit"], "depth": 1, **model}
  c.evals.saliency = {**c.evals.val, "type": "saliency", "maps": ["gradcam"]}
  return c


@pytest.mark.slow
def test_command(folder, tmp_path, capsys):
  metrics = train.run(run_config(folder), tmp_path / "a")["metrics"]
  shutil.copytree(tmp_path / "a", tmp_path / "b")
  assert metrics["saliency/gradcam_entropy"] > 0

  out = tmp_path / "out"
  workdirs = [str(tmp_path / name) for name in ("a", "b")]
  options = ["--num_images=4", "--split=train[:40]", "--max_examples=27"]
  saliency.main(["--workdir", *workdirs, "--out", str(out), *options])
  names = {str(p.relative_to(out)) for p in out.rglob("*.*")}
  assert names == {
    *("table.md", "summary.json", "entropies.png", "gradcam.png"),
    *(f"{run}/{x}" for run in "ab" for x in ("maps.png", "entropies.npz")),
  }
  assert (out / "table.md").read_text() in capsys.readouterr().out

  summary = json.loads((out / "summary.json").read_text())
  runs = summary["runs"]
  assert [r["run"] for r in runs] == ["a", "b"]
  assert summary["comparisons"][0]["both_right"] == runs[0]["top1"] * 27
  b = runs[1]
  # The same numbers as the two evaluators of the run.
  assert b["count"] == 27
  assert b["top1"] == pytest.approx(metrics["val/top1"])
  for key in ("entropy", "entropy_p25", "zero_maps"):
    value = metrics[f"saliency/gradcam_{key}"]
    assert b["maps"]["gradcam"][key] == pytest.approx(value, rel=1e-4, abs=1e-6)
  assert b["epochs"] == pytest.approx(2 * 16 / 54)
  assert b["maps"]["gradient"]["largest_entropy"] == pytest.approx(np.log(1024))
  saved = np.load(out / "b" / "entropies.npz")
  for kind in sm.KINDS:
    entropies = saved[f"{kind}_entropy"]
    assert len(entropies) == len(saved[f"{kind}_index"])
    assert len(entropies) + b["maps"][kind]["zero_maps"] == 27
    assert entropies.mean() == pytest.approx(b["maps"][kind]["entropy"])
  assert (saved["prediction"] == saved["label"]).mean() == b["top1"]

  for argv, message in [
    ([str(folder)], "no config.json"),
    ([workdirs[0], workdirs[0]], "twice"),
    ([workdirs[0], "--split", "test"], "no such split"),
    ([workdirs[0], "--max_examples", "0"], "need at least 1"),
  ]:
    with exits_with_one_line(capsys, message):
      saliency.main(["--out", str(tmp_path / "x"), "--workdir", *argv])
