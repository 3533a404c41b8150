"""What a device does on packed data: one command, at most ten minutes on a GPU.

    python -m big_crop.bench device --json device.json --markdown device.md

It needs the packages of requirements-device.txt and no data, because it packs
the embedded dataset. It measures pp strings alone, training with the pipeline
in the loop and without it, several runs as one program against one run, and a
small study. MFU is the model's FLOP/s divided by those of a matrix product of
the same dtype; FLOPs are counted as in `bench step`. On CPUs the default sizes
are smaller.
"""

import itertools
import json
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import jax
import numpy as np

from big_crop import config as configs
from big_crop import pack, together, train
from big_crop.bench import output
from big_crop.bench import step as bench_step
from big_crop.data import device_pipeline, sources
from big_crop.display import tables
from big_crop.parts import build
from big_crop.runtime import sharding, stop

_CROP = "decode_jpeg_and_inception_crop_fixed({res})|flip_lr"
_END = "|vgg_value_range"
_STRINGS = {
  "fixed crop": _CROP + _END,
  "Beta crop, antialiased": "decode_jpeg_and_beta_crop({res}, alpha=2, beta=2, "
  "antialias=True)|flip_lr" + _END,
  "test image": "decode|resize_small({small})|central_crop({res})" + _END,
  "randaug(2, 10)": _CROP + "|randaug(2, 10)" + _END,
  "rand_augment, A1's": _CROP + "|rand_augment('rand-m7-mstd0.5-inc1')" + _END,
  "random_erasing": _CROP + _END + "|random_erasing(0.35, max_count=3)",
}


def _strings(folder, mesh, res, batch):
  """Yields (name, images/s) of each pp string alone."""
  source = sources.get_source(folder, "train")
  for name, spec in _STRINGS.items():
    pp = device_pipeline.get_preprocess_fn(
      spec.format(res=res, small=res * 8 // 7)
    )
    batches = device_pipeline.device_batches(
      source, pp, ("image",), batch, mesh=mesh, seed=0, hold=True
    )
    yield name, bench_step.rate(lambda: next(batches)[0], batch, 5)


def _train_config(folder, model, variant, res, batch, dtype):
  config = configs.load(
    f"configs/quickstart.py:data={folder},engine=device,epochs=1,res={res},"
    f"batch={batch},model={model}-{variant}"
  )
  config.evals = {}
  config.input.hold = True
  config.model.dtype_mm = dtype
  return config


def _training(config):
  """Measures training with the pipeline in the loop, and the step alone."""
  parts = build(config)
  batch_size = config.input.batch_size
  batches, state = parts.device_batches(), parts.init()
  batch, _ = next(batches)

  def alone():
    nonlocal state
    state, metrics = parts.train_step(state, batch)
    return metrics

  def looped():
    nonlocal state
    state, metrics = parts.train_step(state, next(batches)[0])
    return metrics

  jax.block_until_ready(alone())
  rates = {"step": [], "loop": []}
  for _ in range(3):  # in turns, so that a change of clock affects both
    rates["step"].append(bench_step.rate(alone, batch_size, 5, 1))
    rates["loop"].append(bench_step.rate(looped, batch_size, 5, 1))
  memory = jax.local_devices()[0].memory_stats() or {}
  return {
    "images_per_s": statistics.median(rates["loop"]),
    "step_images_per_s": statistics.median(rates["step"]),
    "pipeline_costs": statistics.median(
      1 - a / b for a, b in zip(rates["loop"], rates["step"], strict=True)
    ),
    "peak_memory_gb": memory.get("peak_bytes_in_use", 0) / 1e9,
  }


def _small_config(folder, seed, crop, steps):
  return configs.load(
    f"configs/quickstart.py:data={folder},engine=device,epochs=1,seed={seed},"
    f"crop={crop}",
    [
      "--config.total_epochs=None",
      f"--config.total_steps={steps}",
      # Three times, because the run reports the median images/s of these.
      f"--config.log_training_steps={steps // 3}",
      f"--config.ckpt_steps={steps}",
      "--config.evals.val.log_percent=1.0",
    ],
  )


def _timed(run):
  start = time.perf_counter()
  results = run()
  return time.perf_counter() - start, results


def _together(folder, workdir, num, steps):
  """Times one run, and `num` runs as one program, each with compilation."""
  made = [
    _small_config(folder, i, "inception_crop_fixed", steps) for i in range(num)
  ]
  alone, _ = _timed(lambda: train.run(made[0], f"{workdir}/alone"))
  paths = [f"{workdir}/together{i}" for i in range(num)]
  at_once, results = _timed(lambda: together.run(made, paths))
  rate = statistics.median(r["images_per_s"] for r in results)
  one = json.loads(pathlib.Path(workdir, "alone", "summary.json").read_text())
  return {
    "runs": num,
    "one_s": alone,
    "together_s": at_once,
    "one_images_per_s": one["images_per_s"],
    "together_images_per_s": num * rate,
  }


def _study(folder, workdir, steps, seeds):
  """Top-1 of each seed, under TensorFlow's law and under the fixed law."""
  crops = ("inception_crop_coupled", "inception_crop_fixed")
  pairs = list(itertools.product(crops, range(seeds)))
  made = [_small_config(folder, seed, crop, steps) for crop, seed in pairs]
  paths = [f"{workdir}/study_{crop}_{seed}" for crop, seed in pairs]
  seconds, results = _timed(lambda: together.run(made, paths))
  top1 = [r["metrics"]["val/top1"] for r in results]
  return {
    "seconds": seconds,
    "epochs": results[0]["metrics"]["epoch"],
    **{c: top1[i * seeds : (i + 1) * seeds] for i, c in enumerate(crops)},
  }


def markdown(results) -> str:
  """The results so far as Markdown."""
  sizes = f"{results['res']} pixels, batch {results['batch']}"
  rows = [(f"pp string, {sizes}", "images/s")]
  rows += [(k, f"{v:,.0f}") for k, v in results["strings"].items()]
  text = f"{results['device']}, {results['peak_tflop_per_s']:.1f} TFLOP/s in "
  text += f"a matrix product of {results['dtype']}\n\n" + tables.markdown(rows)
  head = f"training, {results['dtype']}, {sizes}"
  rows = [
    (head, "images/s", "step alone", "MFU", "pipeline costs", "peak memory")
  ]
  rows += [
    (
      name,
      f"{r['images_per_s']:,.0f}",
      f"{r['step_images_per_s']:,.0f}",
      f"{100 * r['mfu']:.1f}%",
      f"{100 * r['pipeline_costs']:.1f}%",
      f"{r['peak_memory_gb']:.1f} GB" if r["peak_memory_gb"] > 0 else "",
    )
    for name, r in results["training"].items()
  ]
  text += "\n" + tables.markdown(rows)
  if t := results.get("together"):
    text += (
      f"\n{t['runs']} runs of the quickstart's model as one program:"
      f" {t['together_images_per_s']:,.0f} images/s in all, one alone"
      f" {t['one_images_per_s']:,.0f}; with start and compilation"
      f" {t['together_s']:.0f} s against {t['one_s']:.0f} s for one.\n"
    )
  if s := results.get("study"):
    native, fixed = (
      100 * np.array(s[f"inception_crop_{law}"]) for law in ("coupled", "fixed")
    )
    top1 = lambda x: f"{x.mean():.2f} +- {x.std(ddof=1):.2f}"
    text += (
      f"\nThe quickstart, {s['epochs']:.1f} epochs, {len(fixed)} seeds: top-1"
      f" {top1(native)} under TensorFlow's law, {top1(fixed)} under the fixed"
      f" one; {s['seconds']:.0f} s in all.\n"
    )
  return text


def main(argv: list[str]) -> None:
  """Runs the command."""
  parser = output.parser("device", __doc__)
  on_cpu = jax.default_backend() == "cpu"
  add = parser.add_argument
  add("--res", type=int, default=64 if on_cpu else 224)
  add("--batch", type=int, default=16 if on_cpu else 512)
  add("--models", nargs="+", default=["vit-S/16", "resnet-50"])
  add("--together", type=int, default=4, help="runs as one program")
  add("--steps", type=int, default=24 if on_cpu else 480, help="of small runs")
  add("--markdown", help="file for the tables")
  args = parser.parse_args(argv)
  start = time.time()
  mesh = sharding.make_mesh([("data", -1)], jax.devices()[:1])
  # A CPU's bfloat16 is slow.
  dtype = "float32" if on_cpu else "bfloat16"
  peak = bench_step.peak_flops(mesh, dtype)
  results = {
    "device": jax.devices()[0].device_kind,
    "dtype": dtype,
    "res": args.res,
    "batch": args.batch,
    "peak_tflop_per_s": peak / 1e12,
    "strings": {},
    "training": {},
  }

  def say(what):
    """Shows progress, and writes the results so far to the files."""
    print(f"[{time.time() - start:.0f} s] {what}", file=sys.stderr)
    if args.markdown:
      pathlib.Path(args.markdown).write_text(markdown(results))
    output.write(args, **results)

  say("packing, then pp strings")
  with (
    tempfile.TemporaryDirectory() as folder,
    stop.cleaning(lambda: shutil.rmtree(folder)),
  ):
    large, small = f"{folder}/large", f"{folder}/small"
    with output.quiet():
      pack.pack("critters", pathlib.Path(large), 160)
      pack.pack("critters", pathlib.Path(small), 64)
    for name, rate in _strings(large, mesh, args.res, args.batch):
      results["strings"][name] = rate
      say(f"{name}: {rate:,.0f} images/s")
    for name in args.models:
      model, _, variant = name.partition("-")
      found = _training(
        _train_config(large, model, variant, args.res, args.batch, dtype)
      )
      flops = bench_step.count_flops(
        model, {"variant": variant}, args.batch, args.res
      )
      flops /= args.batch
      found["gflop_per_image"] = flops / 1e9
      found["mfu"] = flops * found["step_images_per_s"] / peak
      results["training"][name] = found
      say(f"{name}: {found['images_per_s']:,.0f} images/s")
    with output.quiet():
      results["together"] = _together(small, folder, args.together, args.steps)
    say(f"{args.together} runs as one program, then a small study")
    with output.quiet():
      results["study"] = _study(small, folder, args.steps, 3)
  say("done")
  print(markdown(results))
