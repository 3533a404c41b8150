"""The benchmarks run and count right; speeds are not tested."""

import importlib
import json

import jax
import pytest

from big_crop import config as configs
from big_crop.bench import __main__ as bench
from big_crop.bench import infer, scaling, step, train, turns
from big_crop.data import critters
from big_crop.runtime import sharding

TINY = {"width": 32, "depth": 1, "num_heads": 2, "patch_size": 8}
FSDP = [(".*", "fsdp(min_size_to_shard_mb=0)")]


@pytest.mark.slow
def test_step(tmp_path, capsys):
  out = tmp_path / "step.json"
  bench.main(
    ["step", "--variant", "mu/16", "--res", "32", "--batch", "8", "--steps"]
    + ["1", "--repeats", "2", "--json", str(out)]
  )
  record = json.loads(out.read_text())
  assert len(record["all_step_ms"]) == 2
  rate = 8000 / record["step_ms"]
  assert record["images_per_s"] == pytest.approx(rate)
  assert record["mfu"] == pytest.approx(
    record["gflop_per_s"] / record["peak_gflop_per_s"]
  )
  assert record["versions"]["jax"] == jax.__version__
  assert f"{record['images_per_s']:.2f}" in capsys.readouterr().out


@pytest.mark.long
def test_flops_are_those_of_the_matrix_products():
  mesh = sharding.make_mesh([("data", 1)], jax.devices()[:1])
  flops = step.build("vit", TINY, 4, 64, mesh=mesh).flops
  tokens, d = 64, 32
  # FLOPs per token: patches, attention's projections and products, MLP.
  forward = 2 * (8 * 8 * 3 * d + 4 * d * d + 2 * tokens * d + 8 * d * d)
  # The backward pass takes twice as many, less the gradient of the images.
  expected = 4 * tokens * (3 * forward - 2 * 8 * 8 * 3 * d)
  assert expected < flops < 1.5 * expected


@pytest.mark.slow
def test_scaling_splits_the_state():
  results = scaling.measure(
    "vit", TINY, 2, 16, counts=[1, 8], strategy=FSDP, steps=1, repeats=1
  )
  one, eight = (r["state_mb_per_device"] for r in results)
  assert eight < 1.3 / 8 * one
  with pytest.raises(ValueError, match="there are 8"):
    scaling.measure(
      "vit", TINY, 2, 16, counts=[16], strategy=FSDP, steps=1, repeats=1
    )


@pytest.mark.slow
def test_train_counts_waiting(tmp_path):
  c = configs.load("configs/quickstart.py:res=16,batch=16,epochs=1")
  c.input.data.split = "train[:64]"
  c.model.width, c.model.depth, c.model.mlp_dim = 16, 1, 16
  results = train.measure(c, warmup=2, steps=5)
  assert 0 <= results["waiting"] <= 1
  assert min(results.values()) >= 0 and results["images_per_s"] > 0


def test_pipeline_beside_its_ceiling(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(turns, "_PAUSE_S", 0)
  images, _ = critters.generate("train", 0, 5)
  for i, image in enumerate(images):
    (tmp_path / f"{i}.jpg").write_bytes(image)
  crop, out = "decode_jpeg_and_inception_crop_fixed", tmp_path / "out.json"
  bench.main(
    ["pipeline", "--images", str(tmp_path), "--pp", f"{crop}(32)", "--json"]
    + [str(out), "--ceiling", "--repeats", "3", "--seconds", "0.05"]
  )
  fast, ceiling = json.loads(out.read_text())["results"]
  assert ceiling["name"] == f"{crop}(None)"
  rates = (r["all_images_per_s"] for r in (fast, ceiling))
  share = sorted(a / b for a, b in zip(*rates, strict=True))[1]
  assert fast["share_of_ceiling"] == share
  assert f"{share:.2f} times decoding alone" in capsys.readouterr().out


def test_mistakes_get_one_line():
  with pytest.raises(ValueError, match="need a dict literal"):
    step.literal("--model_args", "[1]", dict)
  with pytest.raises(SystemExit, match=r"pipeline.*scaling.*step.*train"):
    bench.main(["steps"])


def test_infer_counts_what_a_model_takes(capsys, tmp_path):
  args = "--models vit-AugReg-mu/8 --res 16 --batches 1 4 --json"
  infer.main([*args.split(), str(tmp_path / "x.json")])
  found = json.loads((tmp_path / "x.json").read_text())["results"]
  assert [r["batch"] for r in found] == [1, 4]
  assert capsys.readouterr().out.count("*") == 2  # the best, and its note
  for r in found:
    # Width 32: the patches, 5 tokens through a block, and 1000 classes.
    products = 4 * 192 * 32 + 5 * 12 * 32**2 + 2 * 25 * 32 + 32_000
    assert r["gflop"] == pytest.approx(2 * products / 1e9, rel=0.1)
    assert r["images_per_s"] > 0 < r["peak_mb"]
  with pytest.raises(ValueError, match="--res, --batches"):
    infer.main(["--res", "0"])


@pytest.mark.long
def test_costs_stand_beside_the_papers(capsys, monkeypatch):
  fixed = dict(params=25.6, gflop=8.2, images_per_s=1.0, peak_mb=2.0)
  for name, theirs in [("infer", "2536.6"), ("train_cost", "110 h on 4")]:
    module = importlib.import_module(f"big_crop.bench.{name}")
    if name == "train_cost":
      found = module.measure("vit", TINY, 16, 8, 1)
      # Parameters and two moments; batch and activations come on top.
      assert 0.05 < found["params"] < found["peak_mb"] / 12
    monkeypatch.setattr(module, "measure", lambda *_: dict(fixed))
    bench.main([name.replace("_", "-"), "--models", "resnet-50", "resnet-18"])
    rows = capsys.readouterr().out.splitlines()
    assert theirs in rows[2] and theirs not in rows[3]
    bench.main([name.replace("_", "-"), "--models", "all", "--res", "64"])
    out = capsys.readouterr().out
    assert out.count(" 64 ") == 25 and theirs not in out
