r"""How fast models classify: images per second, by batch size and resolution.

    python -m big_crop.bench infer --model vit --variant AugReg-R26+S/32 \
      AugReg-B/32 --res 224 384 --batches 1 8 32

The columns of Table 3 of "How to train your ViT?" (arXiv:2106.10270), whose
speed is that of the best batch size, here too. Images are random and on the
device. FLOPs and memory are XLA's count for one batch as it is compiled, the
memory beside parameters and images. Needs no TensorFlow.
"""

import argparse
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from big_crop import models
from big_crop.bench import output, step
from big_crop.display import tables
from pp_ops.errors import UserError


def measure(
  model_name: str, args: dict[str, Any], res: int, batch: int, num: int
) -> dict[str, float]:
  """Times a model on one device.

  Args:
    model_name: see `models.get_model`.
    args: the model's.
    res: height and width of the images.
    batch: images at a time.
    num: batches in a turn.

  Returns:
    "params" (millions), "gflop" of an image, "images_per_s", and "peak_mb", the
    memory beside parameters and images.
  """
  model = models.get_model(model_name, 1000, **args)
  image = jax.random.uniform(jax.random.key(0), (batch, res, res, 3))
  shapes = jax.eval_shape(model.init, jax.random.key(1), image[:1])
  variables = jax.tree.map(lambda s: jnp.full(s.shape, 0.01, s.dtype), shapes)
  predict = jax.jit(lambda v, x: model.apply(v, x, train=False)[0])
  compiled = predict.lower(variables, image).compile()
  memory = compiled.memory_analysis()
  # What is compiled for a GPU hides its products from XLA's count.
  flops = predict.lower(variables, image).cost_analysis()["flops"]
  params = sum(x.size for x in jax.tree.leaves(variables["params"]))
  return dict(
    params=params / 1e6,
    gflop=flops / batch / 1e9,
    images_per_s=step.rate(lambda: compiled(variables, image), batch, num),
    peak_mb=memory.temp_size_in_bytes / 1e6,
  )


def main(argv: list[str]) -> None:
  """Runs the command."""
  parser = output.parser(
    "infer", __doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--model", default="vit")
  add("--variant", nargs="+", default=["AugReg-S/32"], help="AugReg-S/32")
  add("--model_args", default="{}", metavar="DICT", help="more arguments")
  add("--res", type=int, nargs="+", default=[224])
  add("--batches", type=int, nargs="+", default=[1, 8, 32])
  add("--dtype", default="float32", choices=("float32", "bfloat16"))
  add("--steps", type=int, default=2, help="batches between two readings")
  args = parser.parse_args(argv)
  if min(args.steps, *args.res, *args.batches) < 1:
    raise UserError("--res, --batches, --steps must be at least 1.")
  more = step.literal("--model_args", args.model_args, dict)
  found = []
  for variant, res in itertools.product(args.variant, args.res):
    given = dict(variant=variant, dtype_mm=args.dtype, **more)
    for batch in args.batches:
      row = measure(args.model, given, res, batch, args.steps)
      found.append(dict(variant=variant, res=res, batch=batch, **row))
  device = jax.devices()[0].device_kind
  rows = [["model", "res", "batch", "images/s", "M params", "GFLOP", "peak MB"]]
  for place, group in itertools.groupby(
    found, key=lambda r: (r["variant"], r["res"])
  ):
    group = list(group)
    best = max(group, key=lambda r: r["images_per_s"])
    for r in group:
      mark = "*" if r is best else ""
      numbers = r["params"], r["gflop"], r["peak_mb"]
      rows.append(
        [place[0], str(r["res"]), str(r["batch"])]
        + [f"{r['images_per_s']:.1f}{mark}", *(f"{x:.1f}" for x in numbers)]
      )
  print(
    f"{tables.markdown(rows)}* the best of its batch sizes; GFLOP per image; "
    f"peak: beside parameters and images; {args.dtype} on {device}"
  )
  output.write(args, device=device, results=found)
