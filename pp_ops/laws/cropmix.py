"""CropMix: which windows of an image are mixed, and with which weights.

"CropMix: Sampling a Rich Input Distribution via Multi-Scale Cropping", section
3.2 and appendix A. This module computes windows, weights, boxes and
permutations from uniforms, under NumPy, TensorFlow and JAX. `pp_ops.cropmix`
and `big_crop.device_ops.cropmix` make pixels of them.
"""

import dataclasses
import functools
import inspect
import itertools
import numbers
from typing import NamedTuple

import numpy as np

from pp_ops.checks import check_method, check_size
from pp_ops.errors import UserError
from pp_ops.laws.law import Array, Law, check_range, sample
from pp_ops.registry import law_alone

MIXES = ("mixup", "cutmix")
SCALES = ("multi", "single")
# Arguments that the string of the views' law may not give, because they are
# arguments of `cropmix` itself.
_NOT_THE_LAWS = ("area_min", "area_max", "size", "method", "antialias")
_MOST_VIEWS = 8
_DRAWS_PER_STEP = 5  # weight, permutation, coin, y, x


class Steps(NamedTuple):
  """How views are mixed, one after the other; each array is [views - 1, ...].

  Step k mixes the mixture of views 0 to k with view k + 1. One of these two
  images is called the lighter one: under Mixup the one with the smaller weight,
  under CutMix the one that is pasted. Only the lighter image is augmented.

  Attributes:
    newer: bool: whether the lighter image is view k + 1.
    weight: float: the lighter image's weight under Mixup, at most 1/2.
    box: [..., 4], (top, left, bottom, right): what the pasted image covers
      under CutMix; whole pixels in a float dtype.
    permutation: index into `pp_ops.augmentations.PERMUTATIONS` for the lighter
      image's channels; whole numbers in a float dtype.
  """

  newer: Array
  weight: Array
  box: Array
  permutation: Array


@dataclasses.dataclass(frozen=True)
class CropMix:
  """The distribution that CropMix draws from.

  Attributes:
    law: law of the views. Its range of crop scales is replaced for each view.
    area_min: smallest crop scale of all views.
    area_max: largest crop scale of all views.
    num: numbers of views, one of which is drawn uniformly for each image, as
      the paper means it. The authors' code draws once for each worker.
    mix: "mixup" or "cutmix".
    alpha: parameter of the weights' distribution: Beta(alpha / N, alpha / N)
      for Mixup of N views, Beta(alpha, alpha) for CutMix.
    permute: whether the channels of the lighter image are permuted.
    scales: "multi" divides [area_min, area_max] evenly among the views;
      "single" gives the whole range to each; or one (smallest, largest) for
      each view in place of area_min and area_max; these must ascend and not
      overlap.
  """

  law: Law
  area_min: float = 0.01
  area_max: float = 1.0
  num: tuple[int, ...] = (2, 3, 4)
  mix: str = "mixup"
  alpha: float = 0.4
  permute: bool = True
  scales: str | tuple[tuple[float, float], ...] = "multi"

  def __post_init__(self):
    check_range("area_min", self.area_min, "area_max", self.area_max, 1.0)
    good = self.num and len(set(self.num)) == len(self.num)
    good = good and all(type(n) is int for n in self.num)
    if not good or not all(1 <= n <= _MOST_VIEWS for n in self.num):
      raise UserError(
        f"num={self.num!r}: need a number of views from 1 to {_MOST_VIEWS}, or "
        "several different ones to draw from"
      )
    if self.mix not in MIXES:
      raise UserError(f"mix={self.mix!r}: need one of {MIXES}")
    number = isinstance(self.alpha, numbers.Real)
    if not (number and 1e-3 <= self.alpha <= 1e3):
      raise UserError(f"alpha={self.alpha!r}: need 0.001 <= alpha <= 1000")
    if isinstance(self.scales, str):
      if self.scales not in SCALES:
        raise UserError(
          f"scales={self.scales!r}: need one of {SCALES}, or (smallest, "
          "largest) for each view"
        )
    else:
      self._check_ranges()
    for n in self.num:
      self.views(n)  # a law may refuse a range

  def _check_ranges(self):
    for low, high in self.scales:
      check_range("smallest scale", low, "largest scale", high, 1.0)
    for (_, high), (low, _) in itertools.pairwise(self.scales):
      if low < high:
        raise UserError(
          f"scales: a range ends at {high:g} and the next begins at {low:g} of "
          "the image; need ranges that ascend and do not overlap"
        )
    if set(self.num) != {len(self.scales)}:
      raise UserError(
        f"num={self.num!r} with {len(self.scales)} ranges of scales: need "
        f"num={len(self.scales)}"
      )

  @property
  def most(self) -> int:
    """The largest number of views."""
    return max(self.num)

  @property
  def draws(self) -> int:
    """How many uniforms `number`, `order` and `steps` read; 0 for one view."""
    if self.most == 1:
      return 0
    return 1 + self.most + _DRAWS_PER_STEP * (self.most - 1)

  def ranges(self, n: int) -> list[tuple[float, float]]:
    """(smallest, largest) crop scale of each of n views, ascending.

    For example, "multi" divides (0.01, 1) among three views as (0.01, 0.34),
    (0.34, 0.67) and (0.67, 1).
    """
    low, high = self.area_min, self.area_max
    if self.scales == "single":
      return [(low, high)] * n
    if self.scales != "multi":
      return list(self.scales)
    bounds = [low + k * (high - low) / n for k in range(n)]
    return list(itertools.pairwise([*bounds, high]))

  def views(self, n: int) -> list[Law]:
    """The laws of n views, in the order of `ranges`."""
    return [
      dataclasses.replace(self.law, area_min=low, area_max=high)
      for low, high in self.ranges(n)
    ]

  def number(self, u: Array, xp) -> Array:
    """Index into `num`, a whole number in u's dtype; u is uniform [draws]."""
    return xp.minimum(xp.floor(u[0] * len(self.num)), len(self.num) - 1.0)

  def order(self, n: int, u: Array, xp) -> Array:
    """int [n], the order in which views are mixed: a uniform permutation."""
    return xp.argsort(u[1 : 1 + n])

  def steps(self, n: int, u: Array, size: tuple[int, int], xp) -> Steps:
    """How n views are mixed in n - 1 steps.

    Args:
      n: the number of views, at least 2.
      u: float [draws], uniform in [0, 1).
      size: (height, width) of the views in pixels.
      xp: the array namespace.

    Returns:
      The steps.
    """
    begin = 1 + self.most
    u = u[begin : begin + _DRAWS_PER_STEP * (n - 1)]
    u = xp.reshape(u, [n - 1, _DRAWS_PER_STEP])
    alpha = self.alpha / n if self.mix == "mixup" else self.alpha
    weight, lighter = smaller_weight(u[:, 0], alpha, xp), u[:, 0] > 0.5
    permutation = xp.floor(u[:, 1] * (6.0 if self.permute else 1.0))
    if self.mix == "mixup":
      box = xp.stack([xp.zeros_like(weight)] * 4, 1)
      return Steps(lighter, weight, box, permutation)
    # The lighter image's weight is 1 - lambda where lambda is above 1/2.
    rest = xp.where(lighter, weight, 1.0 - weight)
    (top, bottom), (left, right) = (
      cut_interval(xp.floor(u[:, 3 + i] * length), rest, length, xp)
      for i, length in enumerate(size)
    )
    box = xp.stack([top, left, bottom, right], 1)
    return Steps(u[:, 2] < 0.5, weight, box, permutation)


def sample_union(
  law: CropMix, num: int, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
  """Samples how many pixels of an image its views cover together.

  Args:
    law: what to draw.
    num: how many images.
    height: height of each image in pixels.
    width: width of each image in pixels.
    rng: source of the windows.

  Returns:
    int64 [num].
  """
  chosen = rng.multinomial(num, [1 / len(law.num)] * len(law.num))
  out = []
  for n, count in zip(law.num, chosen, strict=True):
    total = np.zeros(count, np.int64)
    windows = [
      np.stack(sample(view, count, height, width, rng)[:4]).astype(np.int64)
      for view in law.views(n)
    ]
    corners = [np.concatenate([w[:2], w[:2] + w[2:]]) for w in windows]
    # Inclusion-exclusion over single windows, pairs, triples and so on.
    for size in range(1, n + 1):
      for some in itertools.combinations(corners, size):
        begin = np.max([c[:2] for c in some], 0)
        end = np.min([c[2:] for c in some], 0)
        total -= (-1) ** size * np.prod(np.maximum(end - begin, 0), 0)
    out.append(total)
  return rng.permutation(np.concatenate(out))


def cut_interval(centre: Array, rest: Array, length: int, xp) -> tuple:
  """Where CutMix's box begins and ends along one side of the image.

  The box has floor(length sqrt(rest)) pixels around the centre, of which those
  outside the image are cut off.

  Args:
    centre: whole numbers in a float dtype, 0 to length - 1.
    rest: 1 - lambda, the fraction of the image that the uncut box covers.
    length: length of the image's side in pixels.
    xp: the array namespace.

  Returns:
    First pixel, and the pixel after the last one, like `centre`.
  """
  cut = xp.floor(length * xp.sqrt(rest))
  begin = centre - xp.floor(cut / 2)
  zero = xp.zeros_like(centre)
  return xp.maximum(begin, zero), xp.minimum(begin + cut, zero + length)


def box_of(u: Array, size: tuple[int, int], xp) -> Array:
  """Mask of the pixels that CutMix of two views takes from the second view.

  Args:
    u: [3], uniform in [0, 1): 1 - lambda, which is uniform for alpha = 1, and
      the box's centre.
    size: (height, width) of the views.
    xp: the array namespace.

  Returns:
    bool [height, width, 1].
  """
  (top, bottom), (left, right) = (
    cut_interval(xp.floor(u[1 + i] * n), u[0], n, xp)
    for i, n in enumerate(size)
  )
  y, x = (np.arange(n, dtype=np.float32) for n in size)
  y, x = y[:, None, None], x[:, None]
  return (top <= y) & (y < bottom) & (left <= x) & (x < right)


@functools.lru_cache(maxsize=32)
def _log_nodes(alpha, dtype):
  """log x and log CDF of Beta(alpha, alpha) for x up to 1/2, ascending."""
  from scipy import special

  x = np.concatenate([np.geomspace(1e-9, 0.01, 256), np.arange(11, 501) / 1000])
  cdf = special.betainc(alpha, alpha, x)
  there = cdf > np.finfo(np.float64).tiny
  return np.log(x[there]).astype(dtype), np.log(cdf[there]).astype(dtype)


def smaller_weight(u: Array, alpha: float, xp) -> Array:
  """The smaller of lambda and 1 - lambda, with lambda ~ Beta(alpha, alpha).

  The weight is computed by the inverse CDF. log x is interpolated as a function
  of log CDF, because then tiny weights have no larger relative error than other
  weights. They matter: with alpha 0.1 one weight in six is below 1e-8.

  Args:
    u: [n] uniforms; lambda is the u-quantile, so that lambda is the smaller one
      where u < 1/2.
    alpha: parameter of the distribution.
    xp: the array namespace.

  Returns:
    [n], 0 to 1/2.
  """
  dtype = np.dtype(getattr(u.dtype, "as_numpy_dtype", u.dtype))
  log_x, log_cdf = _log_nodes(float(alpha), dtype)
  take = xp.gather if hasattr(xp, "gather") else xp.take
  log = getattr(xp, "log", None) or xp.math.log  # TensorFlow has the latter
  tail = log(xp.minimum(u, 1 - u))
  # Below the first node the CDF is a power of x, so the line through the first
  # two logarithms extrapolates it.
  i = xp.searchsorted(log_cdf[1:-1], tail, side="right")
  x0, x1, c0, c1 = (take(a, j) for a in (log_x, log_cdf) for j in (i, i + 1))
  return xp.exp(x0 + (tail - c0) / (c1 - c0) * (x1 - x0))


class Arguments(NamedTuple):
  """Arguments of the op `cropmix`: the law, and how to make the views."""

  law: CropMix
  size: tuple[int, int]
  method: str
  antialias: bool
  before: str


def read_arguments(
  size,
  area_min: float = 1,
  area_max: float = 100,
  num=(2, 3, 4),
  mix: str = "mixup",
  alpha: float | None = None,
  permute: bool = True,
  scales="multi",
  law: str = "inception_crop_fixed",
  method: str = "bilinear",
  antialias: bool = True,
  before: str = "",
) -> Arguments:
  """The arguments of the op `cropmix` in a pp string; areas are in percent.

  Args:
    size: size of the result in pixels, or (height, width).
    area_min: smallest crop scale of all views.
    area_max: largest crop scale.
    num: how many views, or several numbers to draw from for each image; 1 is a
      plain crop.
    mix: "mixup" or "cutmix".
    alpha: parameter of the weights' distribution, see `CropMix`; None for the
      paper's, 0.4 for Mixup and 1 for CutMix.
    permute: whether the channels of the lighter image of each step (`Steps`)
      are permuted.
    scales: "multi", "single", or (smallest, largest) percent for each view,
      see `CropMix`.
    law: law of the views, as a crop op's string without areas, for example
      "beta_crop(alpha=2)", which then draws within each view's range of areas.
    method: method of the resizes, see the op `resize`.
    antialias: whether the resizes antialias, see the op `resize`.
    before: a pp string for the lighter image of each step, run before its
      channels are permuted ("intermediate augmentation", Table 5f).

  Returns:
    The checked arguments.

  Raises:
    ValueError: in one line, for a wrong argument.
  """
  check_range("area_min", area_min, "area_max", area_max, 100, " (percent)")
  size = check_size(size)
  check_method(method)
  if not isinstance(before, str):
    raise UserError(f"before={before!r}: need a pp string")
  if not isinstance(scales, str):
    if (area_min, area_max) != (1, 100):
      raise UserError(
        "give area_min and area_max, or ranges of scales, not both"
      )
    try:
      scales = tuple((low / 100, high / 100) for low, high in scales)
    except (TypeError, ValueError):
      raise UserError(
        f"scales={scales!r}: need one of {SCALES}, or a list of (smallest, "
        "largest) in percent of the image"
      ) from None
  if alpha is None:
    alpha = 1.0 if mix == "cutmix" else 0.4
  cropmix = CropMix(
    law=law_alone(law, _NOT_THE_LAWS, "cropmix itself"),
    area_min=area_min / 100,
    area_max=area_max / 100,
    num=tuple(num) if isinstance(num, list | tuple) else (num,),
    mix=mix,
    alpha=alpha,
    permute=permute,
    scales=scales,
  )
  return Arguments(cropmix, size, method, antialias, before)


def read_law(*args, **kwargs) -> CropMix:
  """The law that these arguments of the op `cropmix` describe."""
  return read_arguments(*args, **kwargs).law


read_law.__signature__ = inspect.signature(read_arguments)
