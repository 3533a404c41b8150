"""The configs of papers: what they say, and that they run."""

import json
import pathlib

import data_helpers
import jax
import numpy as np
import PIL.Image
import pytest
from objective_helpers import specs
from op_helpers import photo, run

from big_crop import config as configs
from big_crop import objectives, optim, recipes, step, train, trees
from big_crop.parts import build
from big_crop.runtime import checkpoint, records
from big_crop.study import grid, reference

ROOT = pathlib.Path(__file__).parents[1]
WRONG_CROP = ROOT / "configs" / "wrong_inception_crop" / "vit_s16_i1k.py"
IMAGENET = 1_281_167


def optimiser(config):
  """The optimiser's factors of each parameter's update and weight decay."""
  objective = objectives.make(config, 1000)
  shapes = step.param_shapes(objective, specs(224, 224, 3))
  steps = round(config.total_epochs * IMAGENET / config.input.batch_size)
  tx, schedules = optim.make(
    config,
    shapes,
    total_steps=steps,
    batch_size=config.input.batch_size,
    data_size=IMAGENET,
  )
  return tx, schedules[0], shapes, steps


def test_the_papers_adamw_run():
  c = configs.load(
    f"{WRONG_CROP}:crop=beta_crop,area_min=0,alpha=1.287,beta=1,epochs=300"
  )
  assert c.input.pp.startswith(
    "decode_jpeg_and_beta_crop(224, area_min=0, alpha=1.287, beta=1, "
    "antialias=True)|flip_lr|randaug(2, 10)|value_range(-1, 1)"
  )
  assert c.mixup.p == 0.2 and c.grad_clip_norm == 1.0
  assert set(c.evals) == {"val", "real", "v2", "saliency"}
  _, schedule, shapes, steps = optimiser(c)
  assert steps == 375_342
  assert schedule(10_000) == 1 and schedule(5_000) == pytest.approx(0.5)
  # timm's vit_small_patch16_224 without class token and positions.
  assert sum(x.size for _, x in trees.named_leaves(shapes)) == 21_974_632
  # The learning rate does not multiply the decay: 1e-4 and not 1e-7.
  assert c.lr == 1e-3 and c.wd == 1e-4
  assert c.wd_mults == [(".*/kernel$", 1.0)]


def test_the_papers_scion_run():
  c = configs.load(f"{WRONG_CROP}:optimiser=scion,wd=0.12,epochs=30")
  assert c.input.batch_size == 4096 and c.grad_clip_norm is None
  _, schedule, _, _ = optimiser(c)
  assert schedule(0) == 1
  gamma, gamma_head = c.lr, c.lr * dict(c.lr_mults)["head/kernel"]
  assert (gamma, gamma_head) == (0.01, pytest.approx(0.2))
  assert c.wd / gamma == pytest.approx(0.12)
  assert c.wd / gamma_head == pytest.approx(0.05 * 0.12)


def test_the_papers_recipe_with_other_numbers():
  load = lambda args: configs.load(f"{WRONG_CROP}:{args}")
  # Section 5: Scion's learning rates, and with them decay, doubled and halved.
  for factor in (0.5, 2):
    c = load(f"optimiser=scion,lr={0.01 * factor}")
    assert c.lr == 0.01 * factor and c.wd / c.lr == pytest.approx(0.08)
    assert dict(c.lr_mults)["head/kernel"] == 20
  c = load("optimiser=scion,gelu_exact=True,dtype=float32")
  assert (c.model.act, c.model.dtype_mm) == ("sqrt2_gelu_exact", "float32")
  c = load("lr=2e-3,crop=inception_crop_port")
  assert (c.lr, c.wd, c.model.act, c.model.dtype_mm) == (
    *(2e-3, 1e-4, "gelu", "bfloat16"),
  )
  assert "decode_jpeg_and_inception_crop_port(224, " in c.input.pp
  assert load("gelu_exact=True").model.act == "gelu_exact"


# Quick: these runs without compiling or running their programs.
@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["adamw", "scion"])
def test_smoke(optimiser, tmp_path):
  spec = f"{WRONG_CROP}:smoke,crop=inception_crop,optimiser={optimiser}"
  summary = train.run(configs.load(spec), tmp_path)
  measured = summary["metrics"]
  assert summary["step"] == 8
  assert measured["val/count"] == measured["saliency/count"] == 100
  assert 0 < measured["saliency/gradient_entropy"] < 8.32  # log(64^2)
  config = json.loads((tmp_path / "config.json").read_text())
  assert "randaug(2, 10)" in config["input"]["pp"]


@pytest.mark.parametrize(
  ("optimiser", "rule"),
  [("adamw", "scale_by_adam"), ("scion", "scale_by_scion")],
)
@pytest.mark.first(1)
def test_the_run_fits_together(optimiser, rule):
  spec = f"{WRONG_CROP}:smoke,crop=inception_crop,optimiser={optimiser}"
  c = configs.load(spec)
  assert c.optax_name == rule and "randaug(2, 10)" in c.input.pp
  trace(c, 64)


def test_unknown_optimiser():
  with pytest.raises(ValueError, match="choose adamw or scion"):
    configs.load(f"{WRONG_CROP}:optimiser=muon")


# "ResNet strikes back": the seven recipes, and Table 2's older columns.
STRIKES_BACK = ROOT / "configs" / "resnet_strikes_back"
RECIPES = ["a1", "a2", "a3", "b", "c1", "c2", "d"]
OLDER = ["he", "pytorch", "fixres", "deit", "fams"]


def recipe(name, args=""):
  return configs.load(f"{STRIKES_BACK / name}.py:{args}")


# Tables 2 and 10: forward passes in thousands, to the digits they have.
@pytest.mark.parametrize(
  ("name", "steps"),
  [("a1", 375), ("a2", 188), ("a3", 63), ("b", 375), ("c1", 500), ("c2", 500)]
  + [("d", 2000), ("he", 450), ("pytorch", 450), ("fixres", 300)]
  + [("deit", 375), ("fams", 500)],
)
def test_a_recipes_optimiser_and_length(name, steps):
  c = recipe(name)
  _, schedule, shapes, total = optimiser(c)
  assert total / 1000 == pytest.approx(steps, rel=1e-3, abs=0.5)
  assert sum(x.size for _, x in trees.named_leaves(shapes)) == 25_557_032
  warm = 0 if name in ("he", "pytorch", "fixres") else 5
  assert c.schedule.get("warmup_epochs", 0) == warm
  if c.schedule.decay_type == "cosine":
    assert schedule(total - 1) < 1e-3
  assert {"val", "real", "v2"} == set(c.evals)


def test_what_a1_says():
  c = recipe("a1", "crop=beta_crop,alpha=2,beta=1")
  assert c.input.pp == (
    "decode_jpeg_and_beta_crop(224, area_min=8, alpha=2, beta=1, "
    'method="bicubic", antialias=True)|flip_lr'
    '|rand_augment("rand-m7-mstd0.5-inc1", interpolation="bicubic")'
    '|vgg_value_range|keep("image", "label")'
  )
  assert c.input.repeats == 3 and c.loss == "mean_sigmoid_xent"
  assert c.targets.kind == "present" and c.targets.smoothing == 0.1
  assert c.mixing.mixup_alpha == 0.2 and c.mixing.cutmix_alpha == 1
  assert (c.lr, c.wd, c.wd_in) == (5e-3, 0.01, "rule")
  assert "resize_small(235" in c.evals.val.pp_fn  # floor(224 / 0.95)
  assert c.model.drop_path == 0.05 and c.model.dtype_mm == "bfloat16"


def test_one_setting_for_the_interpolation_of_crop_and_rand_augment():
  for name in [*RECIPES, "deit"]:
    ops = recipe(name, "interpolation=bilinear").input.pp.split("|")
    chosen = [op for op in ops if "bilinear" in op]
    assert [op.partition("(")[0] for op in chosen] == [
      "decode_jpeg_and_inception_crop_fixed", "rand_augment",
    ]  # fmt: skip
    assert "bicubic" in recipe(name, "interpolation=bilinear").evals.val.pp_fn


def test_the_later_recipes_are_tested_at_095():
  for name in ("b", "c1", "c2", "d"):
    assert "resize_small(235" in recipe(name).evals.val.pp_fn


def test_another_batch_size_scales_the_learning_rate():
  assert recipe("c1", "batch=512").lr == pytest.approx(0.22)
  assert recipe("d", "batch=1536").lr == pytest.approx(0.0066)
  assert recipe("d", "batch=1536,lr=1e-3").lr == 1e-3
  assert recipe("deit", "lr=2e-3").wd == pytest.approx(2e-3 * 0.05)
  assert recipe("he", "batch=512").lr == pytest.approx(0.2)


# Also a learning rate that equals he's, or the recipe's own default.
@pytest.mark.parametrize("name", RECIPES + OLDER)
@pytest.mark.parametrize("lr", [0.1, 0.005, 0.0])
def test_a_learning_rate_that_is_given_is_not_scaled(name, lr):
  own = recipe(name)
  assert recipe(name, f"lr={lr},batch=512").lr == lr
  assert recipe(name, f"lr={own.lr},batch=512").lr == own.lr


def test_fams_falls_after_each_epoch():
  c = recipe("fams")
  sizes = dict(total_steps=500_000, batch_size=1024, data_size=IMAGENET)
  schedule = optim.schedules.make(c.schedule, **sizes)
  for epoch in (6, 7, 200, 399):
    step = round(epoch * IMAGENET / 1024) + 1
    assert schedule(step) == pytest.approx(0.02 ** (epoch / 400), rel=1e-4)
  assert c.lr == 2 and c.input.pp.count("autoaugment(") == 1
  assert recipe("fams", "epochs=100").schedule.decay_rate ** 100 == (
    pytest.approx(0.02)
  )
  assert c.swa.to_dict() == dict(start_percent=0.75, every_epochs=1.0)


def test_ablations_change_one_thing():
  c = recipe("a2", "loss=ce")
  assert c.loss == "softmax_xent" and c.targets.kind == "distribution"
  c = recipe("a2", "bce_target=mixed,smoothing=0.1,repeated_aug=1")
  assert c.loss == "mean_sigmoid_xent" and c.targets.kind == "distribution"
  assert c.input.repeats == 1
  c = recipe("a3", "test_crops,real=False")
  assert set(c.evals) >= {"val", "v2", "val_crop875", "val_crop1000"}
  assert "central_crop(224, " in c.evals["val_crop900"].pp_fn
  assert "resize_small(248" in c.evals["val_crop900"].pp_fn
  with pytest.raises(ValueError, match="unknown loss 'cee': did you mean 'ce'"):
    recipe("a2", "loss=cee")
  with pytest.raises(ValueError, match="unknown bce_target 'mix'"):
    recipe("a2", "bce_target=mix")
  with pytest.raises(ValueError, match="unknown config argument 'optimiser'"):
    recipe("a2", "optimiser=lamb")


def is_a_smoke_test_of(smoke, full):
  """A smoke run must keep all that characterises its recipe."""
  same = ("loss", "targets", "mixing", "optax_name", "ema_decay", "swa", "agc")
  for key in same:
    assert smoke[key] == full[key]
  assert smoke.input.repeats == full.input.repeats
  after_crop = lambda pp: pp[pp.index("flip_lr") :]
  assert after_crop(smoke.input.pp) == after_crop(full.input.pp)


def trace(config, res=32):
  """Builds a run's graphs and traces its step, without compiling it."""
  parts = build(config)
  state = parts.abstract
  size = config.input.batch_size
  batch = {
    "image": jax.ShapeDtypeStruct((size, res, res, 3), np.float32),
    "label": jax.ShapeDtypeStruct((size,), np.int32),
  }
  after, metrics = jax.eval_shape(parts.train_step, state, batch)
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert shapes(after) == shapes(state)
  assert "training_loss" in metrics


@pytest.mark.parametrize("name", RECIPES + OLDER)
def test_a_smoke_run_is_of_the_recipe(name):
  is_a_smoke_test_of(recipe(name, "smoke"), recipe(name))


# Slow, because in CI test_models_strikes_back.py trains with a2.
@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES + OLDER)
def test_a_recipe_fits_together(name):
  trace(recipe(name, "smoke"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES + OLDER)
def test_a_recipe_runs(name, tmp_path):
  c = recipe(name, "smoke")
  c.model.width = 4
  summary = train.run(c, tmp_path)
  assert summary["step"] == 4 and summary["metrics"]["val/count"] == 50


@pytest.mark.slow
def test_finetuning_starts_from_a_run_with_a_new_head(tmp_path):
  args = "smoke,model=resnet-10"
  small = ["--config.model.width=8", "--config.model.small_stem=True"]
  path = STRIKES_BACK / "transfer.py"
  first = configs.load(
    f"{path}:{args}",
    [*small, "--config.num_classes=25"],
  )
  trained = build(first)
  state = trained.init()
  # Statistics that a new model has not.
  state = state.replace(
    model_state=jax.tree.map(lambda x: x + 0.5, state.model_state)
  )
  checkpoints = checkpoint.Checkpoints(tmp_path / "run")
  checkpoints.save(1, state, {})
  checkpoints.close()
  records.write_config(tmp_path / "run", configs.as_json(first))
  spec = f"{path}:smoke,init={tmp_path / 'run'}"
  c = configs.load(spec, ["--config.total_epochs=0.5"])
  parts = build(c)
  state, _, checkpoints = train.start_or_resume(c, tmp_path / "new", parts, 0)
  checkpoints.close()
  old = checkpoint.load_variables(tmp_path / "run")
  fresh = trees.named_leaves(parts.init().params)
  new = dict(trees.named_leaves(state.params))
  before = dict(trees.named_leaves(old["params"]))
  for name, value in fresh:
    expected = value if name.startswith("head/") else before[name]
    np.testing.assert_array_equal(new[name], expected, err_msg=name)
  statistics = trees.named_leaves(old["batch_stats"])
  kept = dict(trees.named_leaves(state.model_state["batch_stats"]))
  for name, value in statistics:
    np.testing.assert_array_equal(kept[name], value, err_msg=name)
  trace(c)


def test_transfer_is_deits():
  """The authors' values, see the docstring of transfer.py."""
  for dataset in ("cifar10", "cifar100", "cars", "flowers"):
    c = recipe("transfer", f"dataset={dataset}")
    assert (c.total_epochs, c.lr, c.wd, c.wd_in) == (
      *(1000, 0.01, 1e-4, "gradient"),
    )
    assert c.optax_name == "trace" and c.optax.nesterov
    assert c.model.drop_path == 0 and "erasing" not in c.input.pp
  for dataset in ("inat2018", "inat2019"):
    c = recipe("transfer", f"dataset={dataset},folder=/somewhere")
    assert (c.total_epochs, c.lr, c.wd_in) == (360, 7.5e-5, "update")
    assert c.wd == pytest.approx(7.5e-5 * 0.05)  # PyTorch multiplies it by lr
    assert c.optax_name == "scale_by_adam"
    assert c.model.drop_path == 0.1 and "random_erasing(0.1)" in c.input.pp
  assert c.input.data.name == "folder"
  assert c.evals.val.data.data_dir == "/somewhere"
  for c in (recipe("transfer", f"dataset={d}") for d in ("inat2018", "cars")):
    assert c.input.batch_size == 768 and c.input.repeats == 3
    assert 'rand_augment("rand-m9-mstd0.5-inc1"' in c.input.pp
    assert c.mixing.to_dict() == dict(mixup_alpha=0.8, cutmix_alpha=1.0)
    assert c.targets.smoothing == 0.1 and c.loss == "softmax_xent"
    assert c.schedule.decay_type == "cosine"
    assert c.schedule.warmup_epochs == 5
    assert c.grad_clip_norm is None
  assert recipe("transfer", "batch=96").lr == pytest.approx(0.01 / 8)
  with pytest.raises(ValueError, match="give train= and test=, its splits"):
    recipe("transfer", "dataset=eurosat")
  c = recipe("transfer", "dataset=eurosat,train=train[:90%],test=train[90%:]")
  assert c.input.data.split == "train[:90%]"
  assert c.evals.val.data.split == "train[90%:]"


def test_the_study_of_table_5_finds_its_runs(tmp_path):
  for name in ("a1", "a2", "a3"):
    run = tmp_path / f"runs/recipe={name},model=resnet-50,seed=0"
    run.mkdir(parents=True)
    model = dict(variant="50", drop_path=0.05)
    text = json.dumps(dict(model_name="resnet", model=model))
    (run / "config.json").write_text(text)
  path = ROOT / "configs/studies/resnet_strikes_back_transfer.py"
  runs = grid.load(f"{path}:init={tmp_path},folder=/inat").runs
  assert len(runs) == 3 * 5
  for r in runs:
    assert f"recipe={r.factors['recipe']},model" in r.config.model_init
    inat = r.factors["dataset"] == "inat2019"
    assert r.config.model.drop_path == (0.1 if inat else 0)
    assert r.config.input.data.data_dir == ("/inat" if inat else None)
  theirs = reference.rows("resnet_strikes_back_transfer")
  known = {(r["recipe"], r["dataset"]) for r in theirs}
  assert {(r.factors["recipe"], r.factors["dataset"]) for r in runs} < known


def test_the_study_of_all_recipes():
  path = ROOT / "configs/studies/resnet_strikes_back_recipes.py"
  runs = grid.load(str(path)).runs
  assert {r.factors["recipe"] for r in runs} == {*RECIPES, *OLDER}
  assert all({"val", "real", "v2"} == set(r.config.evals) for r in runs)


TRANSFER = dict(
  cifar10="cifar10",
  cifar100="cifar100",
  cars="cars196",
  flowers="oxford_flowers102",
  inat2018="i_naturalist2018",
  inat2019="",
)


def test_the_small_study_of_two_recipes():
  path = ROOT / "configs/studies/resnet_strikes_back_quick.py"
  runs = grid.load(f"{path}:seeds=1,epochs=6:24").runs
  found = {}
  for r in runs:
    c, f = r.config, r.factors
    drop = c.schedule.get("decay_epochs")
    found[f["recipe"], f["loss"], f["epochs"]] = (c.loss, c.total_epochs, drop)
  assert found == {
    ("pytorch", "ce", 6): ("softmax_xent", 6, 2),
    ("pytorch", "ce", 24): ("softmax_xent", 24, 8),
    ("a3", "ce", 6): ("softmax_xent", 6, None),
    ("a3", "ce", 24): ("softmax_xent", 24, None),
    ("a3", "bce", 6): ("mean_sigmoid_xent", 6, None),
    ("a3", "bce", 24): ("mean_sigmoid_xent", 24, None),
  }


@pytest.mark.slow
@pytest.mark.parametrize("dataset", TRANSFER)
def test_transfer_trains_on_records_of_tfds_schema(dataset, tmp_path):
  if name := TRANSFER[dataset]:
    splits = ("train", "validation", "test")
    data_helpers.mocked(name, tmp_path, 14, splits)
  for i in range(0 if name else 12):
    path = tmp_path / ("train" if i < 8 else "val") / f"{i % 2}" / f"{i}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data_helpers.grey(i).getvalue())
  c = recipe(
    "transfer",
    f"dataset={dataset},model=resnet-10,res=32,data_dir={tmp_path},"
    f"folder={tmp_path},batch=8,warmup_epochs=0.1",
  )
  c.model.width, c.num_classes = 4, 8142  # iNaturalist 2018's, for all
  c.total_epochs, c.total_steps = None, 2
  summary = train.run(c, tmp_path / "run")
  assert summary["step"] == 2 and summary["metrics"]["val/count"]


@pytest.mark.parametrize(("res", "crop"), [(224, 0.95), (224, 0.875)])
@pytest.mark.first(1)
@pytest.mark.long
def test_test_views_are_timms(res, crop):
  """A1 to D, and He et al.'s crop, on images of 50 shapes."""
  create = pytest.importorskip("timm.data").create_transform
  theirs = create(
    res, is_training=False, interpolation="bicubic", crop_pct=crop,
    mean=(0, 0, 0), std=(1, 1, 1),
  )  # fmt: skip
  view = recipes.test_view(res, crop, "bicubic")
  spec = view.removeprefix("decode|").removesuffix("|vgg_value_range")
  rng = np.random.default_rng(0)
  for i in range(50):
    image = photo(*rng.integers(180, 520, 2), seed=i)
    a = theirs(PIL.Image.fromarray(image)).numpy().transpose(1, 2, 0)
    difference = np.abs(run(spec, image) - np.round(255 * a))
    assert (difference == 0).mean() >= 0.99
    assert difference.max() <= 2
