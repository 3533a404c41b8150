"""TrivialAugment and AutoAugment as torchvision has them, on Pillow images.

TrivialAugment applies one op at a random strength. AutoAugment applies a pair
of ops whose probabilities and strengths were found by a search on one dataset.
Both draw from about the same ops.

The ops differ from efficientnet's of the same names (`pp_ops.randaug`): shears
fix the image's corner, AutoAugment translates by a fraction of the image rather
than by a number of pixels, brightness and the like go up or down from the
original image, empty places are black, and the levels of posterize and solarize
never wrap around.
"""

from collections.abc import Callable

import numpy as np

from pp_ops.autoaugment_tables import AUTOAUGMENT
from pp_ops.checks import (
  check_choice,
  check_fill,
  check_interpolation,
  check_number,
)

AUTOAUGMENT_BINS = 10  # magnitudes, numbered 0 to 9 in the policies


def _linspace(start: float, end: float, num: int) -> np.ndarray:
  """`torch.linspace` to the bit: float32 steps from both ends to the middle."""
  start, end = np.float32(start), np.float32(end)
  i, step = np.arange(num, dtype=float), (end - start) / np.float32(num - 1)
  values = np.where(i < num // 2, start + step * i, end - step * i[::-1])
  return values.astype(np.float32)


def _pick(table: np.ndarray, k, cast):
  """The k-th entry of a table; k is an int32 scalar that was drawn."""
  return cast(table, table.dtype)[k]


def _line_up(num, most, translate, fill, interpolation, cast):
  """The 13 ops that both policies have, at one of `num` magnitudes.

  Args:
    num: how many magnitudes.
    most: (shear, degrees, distance of a factor from 1, bits that are lost) at
      the greatest magnitude.
    translate: (k, side of the image in pixels) -> pixels to the right or down.
    fill: what the ops that move pixels fill empty places with.
    interpolation: what the ops that move pixels interpolate by.
    cast: see `Engine`.

  Returns:
    A line-up, see `Engine`. The policy draws k: the number of the magnitude for
    one direction, that number plus `num` for the opposite direction.
  """
  check_fill(fill)
  check_interpolation(interpolation, ("nearest", "bilinear", "bicubic"))
  # "nearest_pillow" gives torchvision's pixels.
  how = fill, {"nearest": "nearest_pillow"}.get(interpolation, interpolation)
  shear, degrees, distance, lost = most
  twice = lambda table: np.concatenate([table, table])
  signs = np.repeat(np.float32([1, -1]), num)
  shears, turns, distances = (
    signs * twice(_linspace(0, m, num)) for m in (shear, degrees, distance)
  )
  factors = (1.0 + distances.astype(np.float64)).astype(np.float32)
  lost = np.arange(num, dtype=np.float32) / np.float32((num - 1) / lost)
  bits = twice(8 - np.round(lost).astype(np.int32))
  # Rounded up, because a whole grey level is below 246.5 iff it is below 247.
  thresholds = twice(np.ceil(_linspace(255, 0, num)).astype(np.int32))

  by = lambda table, *more: lambda k, side: (_pick(table, k, cast), *more)
  slide = lambda axis: lambda k, side: (-translate(k, side(axis)), *how)
  none = lambda k, side: ()
  return {
    "shear_x": by(shears, *how, True),
    "shear_y": by(shears, *how, True),
    "translate_x": slide(1),
    "translate_y": slide(0),
    "rotate": by(turns, *how),
    **dict.fromkeys(["brightness", "color", "contrast"], by(factors)),
    "sharpness": by(factors),
    "posterize": by(bits),
    "solarize": by(thresholds),
    "autocontrast": none,
    "equalize": none,
  }


def wide_line_up(num: int, fill, interpolation, cast) -> dict[str, Callable]:
  """The ops of `trivial_augment_wide` except the identity; see `_line_up`."""
  check_number("num_magnitude_bins", num, 2, 1000, whole=True)
  pixels = _linspace(0, 32, num).astype(np.int32)
  pixels = np.concatenate([pixels, -pixels])
  translate = lambda k, side: _pick(pixels, k, cast)
  most = (0.99, 135, 0.99, 6)
  return _line_up(num, most, translate, fill, interpolation, cast)


def autoaugment_line_up(fill, interpolation, cast) -> dict[str, Callable]:
  """The 14 ops of `autoaugment`, at ten magnitudes; see `_line_up`."""
  num = AUTOAUGMENT_BINS
  signs = np.repeat(np.int32([1, -1]), num)
  bins = np.tile(np.arange(num, dtype=np.int32), 2)

  # The most is 150 pixels of 331, the side of NASNet's images.
  def translate(k, side):
    whole = _pick(bins, k, cast) * (150 * side) // (331 * (num - 1))
    return _pick(signs, k, cast) * whole

  most = (0.3, 30, 0.9, 4)
  ops = _line_up(num, most, translate, fill, interpolation, cast)
  return {**ops, "invert": lambda k, side: ()}


def autoaugment_tables(policy: str) -> tuple[np.ndarray, ...]:
  """Which ops an AutoAugment policy applies, and how.

  Returns:
    Three arrays [25, 2], for the two ops of each of 25 sub-policies: the op's
    place in `autoaugment_line_up`, int32; the probability that it is applied,
    float32; the number of its magnitude, int32.
  """
  check_choice("policy", policy, [*AUTOAUGMENT])
  names = [*autoaugment_line_up(0, "nearest", None)]
  entries = [
    op.split() for pair in AUTOAUGMENT[policy] for op in pair.split(", ")
  ]
  which, chance, number = (
    np.array(column).reshape(-1, 2) for column in zip(*entries, strict=True)
  )
  which = np.vectorize(names.index)(which)
  return which.astype(np.int32), np.float32(chance), number.astype(np.int32)


def get_trivial_augment_wide(
  engine,
  num_magnitude_bins: int = 31,
  fill=0,
  interpolation: str = "nearest",
):
  """One op of 14 at a random magnitude; torchvision's `TrivialAugmentWide`.

  Identity, ShearX and ShearY (by up to 0.99), TranslateX and TranslateY (32
  pixels), Rotate (135 degrees), Brightness, Color, Contrast and Sharpness
  (factor 1 +- 0.99), Posterize (to 2 bits), Solarize, AutoContrast and Equalize
  are equally likely, and so are the magnitudes. Ops that have a direction go
  either way with probability one half. Mueller and Hutter, 2021, table 1.

  Args:
    engine: see `pp_ops.engines`.
    num_magnitude_bins: how many magnitudes there are, 0 and the greatest ones
      included.
    fill: what comes from outside the image, a grey level or one per channel.
    interpolation: "nearest", "bilinear" or "bicubic".

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  num, cast = num_magnitude_bins, engine.cast
  ops = wide_line_up(num, fill, interpolation, cast)
  choose = engine.chooser(ops, "int32")

  def trivial_augment_wide(image, rng):
    u = rng.uniform([3])
    which = cast(u[0] * (len(ops) + 1), "int32")  # the last is the identity
    k = cast(u[1] * num, "int32") + num * cast(u[2] < 0.5, "int32")
    return choose(which, image, k)

  return trivial_augment_wide


def get_autoaugment(
  engine, policy: str = "imagenet", fill=0, interpolation: str = "nearest"
):
  """Two ops, by one of a policy's 25 sub-policies; torchvision's `AutoAugment`.

  The sub-policy gives the probability that each of its ops is applied. Ops that
  have a direction go either way with probability one half. Cubuk et al., 2019;
  the tables are in `pp_ops.autoaugment_tables`.

  Args:
    engine: see `pp_ops.engines`.
    policy: the dataset that it was found on: "imagenet", "cifar10" or "svhn".
    fill: what comes from outside the image, a grey level or one per channel.
    interpolation: "nearest", "bilinear" or "bicubic".

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  tables = autoaugment_tables(policy)
  xp, cast = engine.xp, engine.cast
  ops = autoaugment_line_up(fill, interpolation, cast)
  choose = engine.chooser(ops, "int32")

  def autoaugment(image, rng):
    u = rng.uniform([5])
    row = cast(u[0] * len(tables[0]), "int32")
    which, chance, magnitude = (_pick(table, row, cast) for table in tables)
    for i in range(2):
      applied, way = u[1 + i], u[3 + i]
      at = xp.where(applied < chance[i], which[i], len(ops))
      k = magnitude[i] + AUTOAUGMENT_BINS * cast(way < 0.5, "int32")
      image = choose(at, image, k)
    return image

  return autoaugment


OPS = {
  "trivial_augment_wide": get_trivial_augment_wide,
  "autoaugment": get_autoaugment,
}
