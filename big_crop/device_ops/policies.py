"""RandAugment, TrivialAugment and AutoAugment on the accelerator.

Each layer draws an op for each image and runs the stages of all ops once; see
`uint8_op`.
"""

import math

import jax.numpy as jnp

from big_crop.device_ops import geometry, pixels
from big_crop.device_ops.uint8_op import register_uint8, run_one_of
from pp_ops.checks import INTERPOLATIONS, check_fill, check_interpolation
from pp_ops.policies import (
  AUTOAUGMENT_BINS,
  MAX_LEVEL,
  autoaugment_line_up,
  autoaugment_tables,
  check_randaug,
  parse_config,
  randaug_line_up,
  timm_moves,
  timm_values,
  wide_line_up,
)


def _factory(name):
  """The factory of the parts that an op is made of."""
  module = pixels if hasattr(pixels, f"get_{name}") else geometry
  return getattr(module, f"get_{name}")


def _run(line_up, which, image, *drawn):
  """Applies op `which` of a line-up, or nothing; see `uint8_op.run_one_of`."""
  side = lambda axis: image.shape[axis]
  parts = [
    _factory(name)(*args_at(*drawn, side)) for name, args_at in line_up.items()
  ]
  return run_one_of(parts, which, image)


@register_uint8("randaug")
def get_randaug(
  num_layers: int = 2, magnitude: float = 10, contrast: str = "fixed"
):
  """Applies ops drawn from 16; see `pp_ops.randaug.get_randaug`."""
  check_randaug(num_layers, magnitude, contrast)
  line_up = randaug_line_up(magnitude, contrast == "legacy")

  def layer(image, which, sign, place):
    def part(name, args):
      if name == "cutout":
        return geometry.cut_out(*args, place, fill=128)
      return _factory(name)(*args)

    parts = [part(name, args_at(sign)) for name, args_at in line_up.items()]
    return run_one_of(parts, which, image)

  def randaug(image, rng):
    for _ in range(num_layers):
      u = rng.uniform([4])
      which = (u[0] * len(line_up)).astype(jnp.int32)
      image = layer(image, which, jnp.where(u[1] < 0.5, -1.0, 1.0), u[2:])
    return image

  return randaug


def _levels(config, num, rng):
  """Magnitudes for `num` ops, float32 [num], as fractions of the tables' 10."""
  magnitude = jnp.full([num], config["m"], jnp.float32)
  if config["mstd"] == math.inf:
    magnitude *= rng.uniform([num], "float64")
  elif config["mstd"]:
    magnitude += config["mstd"] * rng.normal([num], "float64")
  return jnp.clip(magnitude, 0, config["mmax"]) / MAX_LEVEL


@register_uint8("rand_augment")
def get_rand_augment(
  config: str, fill=(124, 116, 104), interpolation: str = "random"
):
  """timm's RandAugment; see `pp_ops.timm_randaug.get_rand_augment`."""
  values = parse_config(config)
  check_fill(fill)
  check_interpolation(interpolation, ("random", *INTERPOLATIONS))
  still = timm_values(bool(values["inc"]), jnp, jnp.asarray)

  def layer(image, which, level, sign, cubic):
    how = cubic if interpolation == "random" else interpolation
    line_up = {**still, **timm_moves(fill, how, jnp.asarray)}
    # Where the op is not to be applied, `which` is none of them.
    return _run(line_up, which, image, level, sign)

  def rand_augment(image, rng):
    levels = _levels(values, values["n"], rng)
    draws = rng.uniform([values["n"], 4], "float64")
    for level, (which, way, applied, method) in zip(levels, draws, strict=True):
      which = (which * 15).astype(jnp.int32)
      which = jnp.where(applied < values["p"], which, -1)
      sign = jnp.where(way < 0.5, -1.0, 1.0)
      image = layer(image, which, level, sign, method >= 0.5)
    return image

  return rand_augment


def _pick(table, k):
  return jnp.asarray(table)[k]


@register_uint8("trivial_augment_wide")
def get_trivial_augment_wide(
  num_magnitude_bins: int = 31, fill=0, interpolation: str = "nearest"
):
  """One op; see `pp_ops.autoaugment.get_trivial_augment_wide`."""
  num = num_magnitude_bins
  line_up = wide_line_up(num, fill, interpolation, _pick)

  def trivial_augment_wide(image, rng):
    which, magnitude, way = rng.uniform([3])
    which = (which * (len(line_up) + 1)).astype(jnp.int32)
    k = (magnitude * num).astype(jnp.int32) + jnp.where(way < 0.5, num, 0)
    return _run(line_up, which, image, k)

  return trivial_augment_wide


@register_uint8("autoaugment")
def get_autoaugment(
  policy: str = "imagenet", fill=0, interpolation: str = "nearest"
):
  """Two ops of a policy; see `pp_ops.autoaugment.get_autoaugment`."""
  tables = autoaugment_tables(policy)
  line_up = autoaugment_line_up(fill, interpolation, _pick)

  def autoaugment(image, rng):
    u = rng.uniform([5])
    row = (u[0] * len(tables[0])).astype(jnp.int32)
    which, chance, magnitude = (_pick(table, row) for table in tables)
    which = jnp.where(u[1:3] < chance, which, len(line_up))
    k = magnitude + jnp.where(u[3:] < 0.5, AUTOAUGMENT_BINS, 0)
    for i in range(2):
      image = _run(line_up, which[i], image, k[i])
    return image

  return autoaugment
