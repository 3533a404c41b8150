r"""Which crop of another family is as strong as the one that you have?

    python -m big_crop.match --target 'inception_crop(area_min=5)' \\
      --family inception_crop_fixed --solve area_min

Strength is a low percentile of the crop scale, the 5th by default: "lower tail
of the distribution of the crop scale determines the augmentation strength"
("You May Be Running the Wrong Inception Crop", section 6.2). One parameter of
the family is solved so that as much of its crop scale lies below the target's
percentile as of the target's own.

Without an image the laws are ideal, as in the paper: no attempt is rejected and
nothing is rounded. With `--image_shape`, `--images` or `--dataset` the laws'
exact distributions are used, averaged over the images.
"""

import argparse
import dataclasses

from scipy import optimize

from big_crop import errors
from big_crop.measure import shapes
from pp_ops import registry
from pp_ops.errors import UserError
from pp_ops.laws import arguments, exact


def solve(
  target: str,
  family: str,
  parameter: str,
  percentile: float = 5.0,
  images: shapes.Shapes | None = None,
) -> tuple[str, float, float]:
  """Solves one parameter of a family.

  Args:
    target: spec of the crop to be matched.
    family: spec of the other one; its other parameters stay as they are.
    parameter: name of the argument of `family` to solve for.
    percentile: where the distributions shall agree, in (0, 100).
    images: on which; None for ideal laws.

  Returns:
    The spec, and the crop scale at that percentile under the target and under
    the spec.

  Raises:
    ValueError: if no value of the parameter matches.
  """
  if not 0 < percentile < 100:
    raise UserError(f"--percentile {percentile:g}: need 0 < percentile < 100")
  name, args, kwargs = registry.parse(family)[0]
  law = registry.law_of(family)
  if parameter not in law.bounds:
    near = registry.did_you_mean(parameter, law.bounds)
    raise UserError(f"--solve {parameter!r}: {near}")
  wanted = _scale(registry.law_of(target), images)
  level = wanted.percentile(percentile)
  mass = wanted.cdf(level)

  def law_with(value):
    value = arguments.from_percent(parameter, value)
    return dataclasses.replace(law, **{parameter: value})

  low, high = law.bounds[parameter]
  if parameter == "area_min":
    high = min(high, law.area_max * (1 - 1e-6))
  elif parameter == "area_max":
    low = max(low, law.area_min * (1 + 1e-6))
  low, high = (arguments.to_percent(parameter, v) for v in (low, high))
  excess = lambda value: _scale(law_with(value), images).cdf(level) - mass
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
  spec = _spec(name, args, kwargs)
  return spec, level, _scale(law_with(value), images).percentile(percentile)


def _spec(name, args, kwargs):
  items = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in kwargs.items()]
  return f"{name}({', '.join(items)})"


class _Ideal:
  """Distribution of the crop scale under a law without an image."""

  def __init__(self, law):
    self.cdf = lambda scale: exact.ideal_cdf(law, scale)

  def percentile(self, q: float) -> float:
    """Smallest crop scale s with P(scale <= s) >= q / 100."""
    return optimize.bisect(lambda s: self.cdf(s) - q / 100, 0, 1, xtol=1e-12)


def _scale(law, images):
  if not images:
    return _Ideal(law)
  total = sum(images.values())
  return exact.Mixture(
    [
      (count / total, exact.size_distribution(law, *shape))
      for shape, count in images.items()
    ]
  )


def main(argv=None):
  """Runs the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--target", required=True, metavar="SPEC")
  parser.add_argument("--family", required=True, metavar="SPEC")
  parser.add_argument("--solve", required=True, metavar="NAME")
  parser.add_argument("--percentile", type=float, default=5.0)
  parser.add_argument(
    "--pp_modules",
    nargs="*",
    default=[],
    metavar="MODULE",
    help="modules of your own that register crops",
  )
  shapes.add_arguments(parser)
  args = parser.parse_args(argv)
  registry.import_modules(args.pp_modules)
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
  with errors.one_line():
    main()
