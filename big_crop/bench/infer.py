r"""How fast models classify, and how much memory they take.

    python -m big_crop.bench infer --models all --batches 128
    python -m big_crop.bench infer --res 224 384 --batches 1 8 32 \
      --models vit-AugReg-R26+S/32 vit-AugReg-B/32

The first command measures the columns of Table 4 of "ResNet strikes back"
(arXiv:2110.00476): `all` means its 25 models, each by default at its test
resolution. The paper's numbers stand beside ours: on a V100, in FP16, with
batches of 128. The second measures the speed of Table 3 of "How to train your
ViT?" (arXiv:2106.10270), which is that of the best batch size; the paper's
numbers are not shown. Images are random and on the device. FLOPs are XLA's
count for one image, with two for a multiplication and an addition, which the
first paper counts as one. Needs no TensorFlow.
"""

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from big_crop import models
from big_crop.bench import output, step
from big_crop.display import tables
from big_crop.study import reference
from pp_ops.errors import UserError


def measure(
  model_name: str, args: dict[str, Any], res: int, batch: int, num: int
) -> dict[str, float]:
  """Times a model on one device.

  Args:
    model_name: see `models.get_model`.
    args: the model's arguments.
    res: height and width of the images in pixels.
    batch: images in a batch.
    num: batches between two readings of the clock.

  Returns:
    "params", in millions; "gflop", for one image; "images_per_s"; and
    "peak_mb", the memory that XLA plans for, parameters and images included.
  """
  model = models.get_model(model_name, 1000, **args)
  image = jax.random.uniform(jax.random.key(0), (batch, res, res, 3))
  shapes = jax.eval_shape(model.init, jax.random.key(1), image[:1])
  variables = jax.tree.map(lambda s: jnp.full(s.shape, 0.01, s.dtype), shapes)
  predict = jax.jit(lambda v, x: model.apply(v, x, train=False)[0])
  compiled = predict.lower(variables, image).compile()
  # Counted before compilation, because a program compiled for a GPU has its
  # matrix products in calls that XLA does not count; and for the CPU, because
  # other backends count only compiled programs.
  with jax.default_device(jax.devices("cpu")[0]):
    image_shape = jax.ShapeDtypeStruct(image.shape, image.dtype)
    flops = predict.lower(shapes, image_shape).cost_analysis()["flops"]
  return dict(
    params=sum(x.size for x in jax.tree.leaves(shapes["params"])) / 1e6,
    gflop=flops / batch / 1e9,
    images_per_s=step.rate(lambda: compiled(variables, image), batch, num),
    peak_mb=peak_mb(compiled),
  )


def peak_mb(compiled: Any) -> float:
  """The megabytes that XLA plans for a compiled program on a device."""
  memory = compiled.memory_analysis()
  return (
    memory.temp_size_in_bytes
    + memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
  ) / 1e6


def of_device() -> float | None:
  """The most megabytes that the first device has held so far, if known."""
  peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
  return peak and peak / 1e6


def report(
  name: str,
  doc: str,
  argv: list[str],
  measure: Callable,
  theirs: Callable,
  res_key: str = "test_res",
) -> None:
  """Runs a command that measures models.

  Args:
    name: of the command.
    doc: the command's description.
    argv: the command's arguments.
    measure: a function like `measure` above.
    theirs: a function from a row of resnet_strikes_back_costs.csv to the
      paper's columns {title: value}; {} if the command does not show the row.
    res_key: the row's entry that is the default resolution.
  """
  rows_of = {}
  for row in reference.rows("resnet_strikes_back_costs"):
    if columns := theirs(row):
      res, found = rows_of.setdefault(row["model"], (row[res_key], {}))
      found |= columns
  parser = output.parser(
    name, doc, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  half = jax.default_backend() != "cpu"
  add("--models", nargs="+", default=["resnet-50"], help="MODEL-VARIANT or all")
  add("--model_args", default="{}", metavar="DICT", help="more arguments")
  add("--res", type=int, nargs="+", help="the paper's, or 224")
  add("--batches", type=int, nargs="+", default=[128 if half else 16])
  add("--dtype", default="bfloat16" if half else "float32",
      choices=("float32", "bfloat16"))  # fmt: skip
  add("--steps", type=int, default=2, help="batches between two readings")
  args = parser.parse_args(argv)
  if min(args.steps, *(args.res or ()), *args.batches) < 1:
    raise UserError("--res, --batches, --steps must be at least 1.")
  more = step.literal("--model_args", args.model_args, dict)
  names = list(rows_of) if args.models == ["all"] else args.models
  found = []
  for name in names:
    family, _, variant = name.partition("-")
    given = dict(variant=variant, dtype_mm=args.dtype, **more)
    for res in args.res or [int(rows_of.get(name, (224,))[0])]:
      for batch in args.batches:
        before = of_device()
        row = measure(family, given, res, batch, args.steps)
        # The device remembers only its highest peak: if an earlier model needed
        # more, the peak of this one is unknown.
        peak = of_device()
        row["device_mb"] = peak if peak != before else None
        found.append(dict(model=name, res=res, batch=batch, **row))
  device = jax.devices()[0].device_kind
  titles = list(dict.fromkeys(t for _, v in rows_of.values() for t in v))
  head = ["model", "res", "batch", "images/s", "M params", "GFLOP", "peak MB"]
  rows = [[*head, "device MB", *titles]]
  for place, group in itertools.groupby(
    found, key=lambda r: (r["model"], r["res"])
  ):
    group = list(group)
    best = max(group, key=lambda r: r["images_per_s"])
    for r in group:
      mark = "*" if r is best and group[1:] else ""
      numbers = r["params"], r["gflop"], r["peak_mb"], r["device_mb"]
      theirs_at, paper = rows_of.get(place[0], ("", {}))
      paper = paper if theirs_at == str(place[1]) else {}
      rows.append(
        [place[0], str(r["res"]), str(r["batch"])]
        + [f"{r['images_per_s']:.1f}{mark}"]
        + ["" if x is None else f"{x:.1f}" for x in numbers]
        + [paper.get(t, "") for t in titles]
      )
  print(
    f"{tables.markdown(rows)}* the best of its batch sizes; GFLOP per image; "
    f"peak: XLA's plan; device: the most it held; {args.dtype} on {device}"
  )
  output.write(args, device=device, results=found)


def main(argv: list[str]) -> None:
  """Runs the command."""

  def theirs(row):
    if row["source"] != "Table 4":
      return {}
    return {
      "V100 images/s": row["images_per_s"], "V100 MB": row["peak_mb"],
    }  # fmt: skip

  report("infer", __doc__, argv, measure, theirs)
