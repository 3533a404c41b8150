"""How many crop windows each law samples per second of CPU time.

Measured under NumPy and JAX, and for torchvision's law also in torchvision, if
it is installed.
"""

import functools
import importlib.util
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from big_crop.bench import output
from big_crop.measure import shapes
from pp_ops import laws, registry
from pp_ops.errors import UserError

# Fewer windows than NumPy samples, because JAX computes every attempt of each.
_JAX_SAMPLES = 1 << 14


def _rate(draw, num, repeats):
  """Windows per second of CPU: the median of `repeats` draws of `num`."""
  draw(0)  # compiles
  rates = []
  for seed in range(1, repeats + 1):
    start = time.process_time()
    draw(seed)
    rates.append(num / (time.process_time() - start))
  return statistics.median(rates)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _jax_windows(law, key, num, height, width):
  u_key, v_key = jax.random.split(key)
  u = jax.random.uniform(u_key, (num, law.max_attempts, law.draws))
  v = jax.random.uniform(v_key, (num, 2))
  return law.window(u, v, height, width, jnp)


def _torchvision(law, height, width, num):
  import torch
  from torchvision.transforms import v2

  image = torch.empty((3, height, width), dtype=torch.uint8)
  scale = [law.area_min, law.area_max]
  crop = v2.RandomResizedCrop(
    1, scale=scale, ratio=(law.ratio_min, law.ratio_max)
  )
  return lambda seed: [crop.make_params([image]) for _ in range(num)]


def main(argv: list[str]) -> None:
  """Runs the command."""
  parser = output.parser("sampler", __doc__)
  add = parser.add_argument
  add("--crop", nargs="+", default=list(laws.LAWS), metavar="SPEC")
  add("--image_shape", default="375x500", metavar="HxW")
  add("--samples", type=float, default=2**21)
  add("--repeats", type=int, default=5)
  args = parser.parse_args(argv)
  if args.repeats < 1:
    raise UserError(f"--repeats {args.repeats}: need at least 1")
  height, width = shapes.parse(args.image_shape)
  num = int(args.samples)
  results = []
  for spec in tqdm(args.crop, unit="law", leave=False):
    law = registry.law_of(spec)
    draw = lambda seed, law=law: laws.sample(
      law, num, height, width, np.random.default_rng(seed)
    )
    results.append((spec, "numpy", _rate(draw, num, args.repeats)))
    draw = lambda seed, law=law: jax.block_until_ready(
      _jax_windows(law, jax.random.key(seed), _JAX_SAMPLES, height, width)
    )
    results.append((spec, "jax", _rate(draw, _JAX_SAMPLES, args.repeats)))
    if type(law) is laws.FixedLaw and importlib.util.find_spec("torchvision"):
      few = 20_000
      draw = _torchvision(law, height, width, few)
      results.append((spec, "torchvision", _rate(draw, few, args.repeats)))
  print(f"windows per second and core, {args.image_shape}")
  for spec, name, rate in results:
    print(f"{spec:32} {name:12} {rate:14,.0f}")
  keys = ("crop", "backend", "windows_per_s_per_core")
  output.write(args, results=[dict(zip(keys, r, strict=True)) for r in results])
