"""torchvision's ColorJitter and RandomGrayscale, as on Pillow images."""

import math

import numpy as np

from pp_ops.checks import check_number
from pp_ops.errors import UserError


def _range(name, value, centre, low, high):
  """(least, most) factor from an amount or a pair."""
  if isinstance(value, (tuple, list)):
    if len(value) != 2:
      raise UserError(f"{name}={value!r}: need a number or (least, most)")
    check_number(f"{name}[0]", value[0], low, high)
    check_number(f"{name}[1]", value[1], value[0], high)
    return tuple(map(float, value))
  check_number(name, value, 0, high)
  return float(max(low, centre - value)), float(centre + value)


def get_color_jitter(engine, brightness=0, contrast=0, saturation=0, hue=0):
  """Jitters brightness, contrast, saturation and hue in random order.

  This is torchvision's `ColorJitter`.

  Args:
    engine: see `pp_ops.engines`.
    brightness: the factor of the op `brightness` is uniform in
      [max(0, 1 - brightness), 1 + brightness], or in a given (least, most).
    contrast: the same for the op `contrast`.
    saturation: the same for the op `color`.
    hue: the factor of the op `hue` is uniform in [-hue, hue], at most 0.5, or
      in a given (least, most).

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  ranges = {
    "brightness": _range("brightness", brightness, 1, 0, math.inf),
    "contrast": _range("contrast", contrast, 1, 0, math.inf),
    "color": _range("saturation", saturation, 1, 0, math.inf),
    "hue": _range("hue", hue, 0, -0.5, 0.5),
  }
  # Ops with these ranges are left out. They would change nothing, except that
  # `hue` loses grey levels even at factor 0.
  nothing = dict.fromkeys(ranges, (1, 1)) | {"hue": (0, 0)}
  used = {k: v for k, v in ranges.items() if v != nothing[k]}
  ops = dict.fromkeys(used, lambda factor, side: (factor,))
  choose = engine.chooser(ops, "float32")

  def color_jitter(image, rng):
    if not used:
      return image
    low, high = np.float32(list(used.values())).T
    u = rng.uniform([2, len(used)])
    factors, order = low + u[0] * (high - low), engine.xp.argsort(u[1])
    for i in range(len(used)):
      image = choose(order[i], image, factors[order[i]])
    return image

  return color_jitter


def get_random_grayscale(engine, p: float = 0.1):
  """Makes the image grey with probability `p`; torchvision's `RandomGrayscale`.

  All three channels become Pillow's grey. An image of one channel stays as it
  is.
  """
  check_number("p", p, 0, 1)
  choose = engine.chooser({"color": lambda side: (0,)})

  def random_grayscale(image, rng):
    return choose(engine.cast(rng.uniform() >= p, "int32"), image)

  return random_grayscale


OPS = {
  "color_jitter": get_color_jitter,
  "random_grayscale": get_random_grayscale,
}
