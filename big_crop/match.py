r"""Finds the crop of another family that is as strong as a given one.

    python -m big_crop.match --target 'inception_crop(area_min=5)' \
      --family inception_crop_fixed --solve area_min

Strength is a low percentile of the crop scale, the 5th by default: "lower tail
of the distribution of the crop scale determines the augmentation strength"
("You May Be Running the Wrong Inception Crop", section 6.2). The command solves
for one parameter of the family, so that crops of the family are smaller than
this percentile of the target as often as the target's own crops are.

Without images the laws are ideal, as in the paper: no attempt is rejected and
nothing is rounded. With `--image_shape`, `--images` or `--dataset` the exact
distributions of the laws are used, averaged over the images.
"""

import contextlib
import dataclasses
import functools

from big_crop.runtime import commands, stop

if __name__ == "__main__":
  stop.listen()

import numpy as np
from scipy import optimize
from tqdm import tqdm

from big_crop.measure import shapes
from pp_ops import registry
from pp_ops.errors import UserError
from pp_ops.laws import arguments, exact

# Of many image shapes, about this many are solved first. Their solution is a
# first guess for all of them.
_FEW = 8


def solve(
  target: str,
  family: str,
  parameter: str,
  percentile: float = 5.0,
  images: shapes.Shapes | None = None,
) -> tuple[str, float, float]:
  """Solves for one parameter of a family.

  Args:
    target: spec of the crop to be matched.
    family: spec of the other crop; its other parameters stay as they are.
    parameter: name of the argument of `family` to solve for.
    percentile: the percentile at which the distributions shall agree, in
      (0, 100).
    images: the image shapes to average over; None for ideal laws.

  Returns:
    The solved spec, and the crop scale at that percentile under the target and
    under the solved spec.

  Raises:
    ValueError: if no value of the parameter matches.
  """
  question = target, family, parameter, percentile
  if not images:
    return _solve(*question, _Ideal)
  # One progress bar, which restarts for every value that is tried.
  with tqdm(total=len(images), unit="shape", leave=False, delay=1) as bar:
    near = None
    if len(images) > 4 * _FEW:
      few = dict(list(images.items())[:: len(images) // _FEW])
      with contextlib.suppress(UserError):
        near = _solve(*question, functools.partial(_OnImages, few, bar))
    return _solve(*question, functools.partial(_OnImages, images, bar), near)


def _solve(target, family, parameter, percentile, scale, near=None):
  """`solve`, where `scale(law, name)` gives a law's distribution.

  `near` is the result for fewer images. The solution is first searched for
  close to it, which saves attempts.
  """
  if not 0 < percentile < 100:
    raise UserError(f"--percentile {percentile:g}: need 0 < percentile < 100")
  name, args, kwargs = registry.parse(family)[0]
  law = registry.law_of(family)
  if parameter not in law.bounds:
    near = registry.did_you_mean(parameter, law.bounds)
    raise UserError(f"--solve {parameter!r}: {near}")
  wanted = scale(registry.law_of(target), target)
  level = wanted.percentile(percentile, near and near[1])
  mass = wanted.cdf(level)
  if not 0 < mass < 1:
    raise UserError(
      f"the crops of {target!r} all have one scale, {level:.5f}: give a target"
      " whose scales spread"
    )

  def law_with(value):
    value = arguments.from_percent(parameter, value)
    return dataclasses.replace(law, **{parameter: value})

  low, high = law.bounds[parameter]
  if parameter == "area_min":
    high = min(high, law.area_max * (1 - 1e-6))
  elif parameter == "area_max":
    # An op takes areas in percent, and refuses an area_max of 1 or less.
    low = max(low, law.area_min * (1 + 1e-6), 0.01 * (1 + 1e-6))
  low, high = (arguments.to_percent(parameter, v) for v in (low, high))

  @functools.cache
  def excess(value):
    tried = scale(law_with(value), f"{parameter}={value:.6g}")
    return tried.cdf(level) - mass

  if near:
    value = getattr(registry.law_of(near[0]), parameter)
    value = arguments.to_percent(parameter, value)
    close = max(low, value / 1.1), min(high, value * 1.1)
    if excess(close[0]) * excess(close[1]) <= 0:
      low, high = close
  if excess(low) * excess(high) > 0:
    raise UserError(
      f"no {parameter} of {family!r} between {low:g} and {high:g} puts as many "
      f"crops below scale {level:.5f} as {target!r} does"
    )
  value = optimize.brentq(excess, low, high, xtol=1e-9, rtol=1e-10)
  found = float(f"{value:.6g}")
  place = list(arguments.signature(type(law)).parameters).index(parameter)
  if place < len(args):
    args = [*args[:place], found, *args[place + 1 :]]
  else:
    kwargs = {**kwargs, parameter: found}
  items = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in kwargs.items()]
  spec = f"{name}({', '.join(items)})"
  reached = scale(law_with(value), spec)
  return spec, level, reached.percentile(percentile, level)


class _Ideal:
  """Distribution of the crop scale under an ideal law, without an image."""

  def __init__(self, law, name=""):
    del name
    self.cdf = lambda scale: exact.ideal_cdf(law, scale)

  def percentile(self, q: float, near: float | None = None) -> float:
    """Smallest crop scale s with P(scale <= s) >= q / 100."""
    del near
    return optimize.bisect(lambda s: self.cdf(s) - q / 100, 0, 1, xtol=1e-12)


class _OnImages:
  """The exact distribution of the crop scale, averaged over images.

  `name` is shown beside the progress bar.
  """

  def __init__(self, images, bar, law, name):
    self._images, self._bar, self._law = images, bar, law
    bar.set_description(name, refresh=False)

  def _window(self, low, high):
    """P(scale <= low); the scales in (low, high], ascending; their P."""
    total, below, parts = sum(self._images.values()), 0.0, []
    self._bar.n = self._bar.last_print_n = 0
    for shape, count in self._images.items():
      some, scale, prob = exact.scale_window(self._law, *shape, low, high)
      below += count / total * some
      parts.append((scale, count / total * prob))
      self._bar.update()
    scale, prob = (np.concatenate(x) for x in zip(*parts, strict=True))
    order = np.argsort(scale)
    return below, scale[order], prob[order]

  def cdf(self, scale: float) -> float:
    """P(crop scale <= scale)."""
    return self._window(scale, scale)[0]

  def percentile(self, q: float, near: float | None = None) -> float:
    """Smallest crop scale s with P(scale <= s) >= q / 100.

    The search starts around `near`.
    """
    wanted = q / 100 - 1e-12  # tolerance for rounding in sums of probabilities
    near = near or _Ideal(self._law).percentile(q)
    low, high = near / 1.05, near * 1.05
    while True:
      below, scale, prob = self._window(low, high)
      index = np.searchsorted(below + np.cumsum(prob), wanted)
      if 0 < below >= wanted:
        low, high = low / 1.5, low
      elif index == len(scale) and high < 1:
        low, high = high, high * 1.5
      else:
        return float(scale[min(index, len(scale) - 1)])


def main(argv=None):
  """Runs the command."""
  parser = commands.parser(__doc__)
  parser.add_argument("--target", required=True, metavar="SPEC")
  parser.add_argument("--family", required=True, metavar="SPEC")
  parser.add_argument("--solve", required=True, metavar="NAME")
  parser.add_argument("--percentile", type=float, default=5.0)
  shapes.add_arguments(parser)
  args = parser.parse_args(argv)
  for label, images in (shapes.from_arguments(args) or {"": None}).items():
    where = f"on {label}" if images else "ideal laws"
    spec, target_scale, scale = solve(
      args.target, args.family, args.solve, args.percentile, images
    )
    width = max(len(args.target), len(spec))
    rank = f"{args.percentile:g}th percentile of the crop scale"
    print(f"{spec:{width}}  {rank} {scale:.5f} ({where})")
    print(f"{args.target:{width}}  {rank} {target_scale:.5f}")


if __name__ == "__main__":
  with commands.one_line():
    main()
