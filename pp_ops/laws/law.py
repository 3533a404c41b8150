"""Base class of crop laws, the choice among proposals, and NumPy samples.

A law decides where a crop falls. Each law is one frozen dataclass whose methods
take arrays and the array namespace to compute in, `xp` = `numpy`, `tensorflow`
or `jax.numpy`; this module imports neither TensorFlow nor JAX. The same
definition is therefore trained with (`pp_ops.crops`), sampled and measured.

A law proposes (h, w) from uniforms until a proposal is admissible, at most
`max_attempts` times; after that it uses a fallback window. An admitted window
is placed uniformly.

Units: areas are fractions of the image ("crop scale"), ratios are
width / height, windows are whole pixels held in the uniforms' float dtype.
Source: "You May Be Running the Wrong Inception Crop", Algorithms 1, 2 and 3.
"""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from pp_ops.errors import UserError

Array = Any


def check_range(low_name, low, high_name, high, limit=math.inf, unit=""):
  """Raises a one-line ValueError unless 0 <= low <= high <= limit, high > 0."""
  if not (0 <= low <= high <= limit and high > 0 and math.isfinite(high)):
    bounds = f"0 <= {low_name} <= {high_name}"
    bounds += f" <= {limit:g}" if math.isfinite(limit) else ""
    raise UserError(
      f"{low_name}={low:g}, {high_name}={high:g}: need {bounds} and "
      f"{high_name} > 0{unit}"
    )


def first_admissible(
  ok: Array, proposals: Sequence[Array], fallback: Sequence[Array], xp
) -> tuple[Array, ...]:
  """The first admissible proposal of each window, or its fallback.

  Args:
    ok: [..., attempts] bool: which proposals are admissible.
    proposals: arrays [..., attempts], for example h and w.
    fallback: one array for each of `proposals`, scalar or [...], used where no
      proposal is admissible.
    xp: the array namespace.

  Returns:
    An array [...] for each of `proposals`, and found: [...] bool, False where
    the fallback is used.
  """
  if ok.shape[-1] == 1:
    pick, found = lambda a: a[..., 0], ok[..., 0]
  else:
    zero = xp.zeros_like(proposals[0])
    first = ok & (xp.cumsum(xp.where(ok, zero + 1, zero), -1) == 1)
    # einsum, because sum() has another name in TensorFlow.
    pick = lambda a: xp.einsum("...a->...", xp.where(first, a, zero))
    found = pick(zero + 1) > 0
  chosen = (
    xp.where(found, pick(a), b)
    for a, b in zip(proposals, fallback, strict=True)
  )
  return *chosen, found


@dataclasses.dataclass(frozen=True)
class Law:
  """Base class of all laws: ranges, and the placing of an admitted window.

  Attributes:
    area_min: smallest crop scale.
    area_max: largest crop scale.
    ratio_min: smallest width / height.
    ratio_max: largest width / height.
    max_attempts: proposals before the fallback, 1 to 10,000.
  """

  area_min: float = 0.05
  area_max: float = 1.0
  ratio_min: float = 3 / 4
  ratio_max: float = 4 / 3
  max_attempts: int = 10

  draws: ClassVar[int] = 2  # uniforms consumed by one proposal
  # The parameters that `big_crop.match` can solve for, with the least and the
  # greatest value that it tries. A law adds its own parameters.
  bounds: ClassVar[dict[str, tuple[float, float]]] = {
    "area_min": (1e-8, 0.999999),
    "area_max": (1e-5, 1.0),
  }

  def __post_init__(self):
    check_range("area_min", self.area_min, "area_max", self.area_max, 1.0)
    check_range("ratio_min", self.ratio_min, "ratio_max", self.ratio_max)
    if self.ratio_min <= 0:
      raise UserError(f"ratio_min={self.ratio_min:g}: need a ratio above 0")
    whole = isinstance(self.max_attempts, numbers.Integral)
    if not whole or not 1 <= self.max_attempts <= 10_000:
      raise UserError(
        f"max_attempts={self.max_attempts}: need an integer from 1 to 10000"
      )

  def propose(
    self, u: Array, height: Array, width: Array, xp
  ) -> tuple[Array, Array, Array]:
    """One attempt.

    Args:
      u: [..., draws] uniforms in [0, 1): for the ratio, then for the size.
      height: image height in pixels, u's float dtype, broadcasts against [...].
      width: image width, likewise.
      xp: the array namespace.

    Returns:
      h, w: [...] the proposed window, and ok: [...] bool, whether it is
      admissible.
    """
    raise NotImplementedError

  def fallback(
    self, height: Array, width: Array, xp
  ) -> tuple[Array, Array, Array, Array]:
    """The window (y, x, h, w) that is used when no attempt succeeds."""
    raise NotImplementedError

  def place(
    self, u: Array, h: Array, w: Array, height: Array, width: Array, xp
  ) -> tuple[Array, Array]:
    """Places a window uniformly over its integer offsets.

    Args:
      u: [..., 2] uniforms in [0, 1), for y and x.
      h: [...] window height.
      w: [...] window width.
      height: image height.
      width: image width.
      xp: the array namespace.

    Returns:
      y, x: [...] offsets in 0..height-h and 0..width-w, ends included.
    """
    # u * n can round up to n in float32, hence the minimum.
    y = xp.minimum(xp.floor(u[..., 0] * (height - h + 1)), height - h)
    x = xp.minimum(xp.floor(u[..., 1] * (width - w + 1)), width - w)
    return y, x

  def window(
    self, u: Array, v: Array, height: Array, width: Array, xp
  ) -> tuple[Array, Array, Array, Array, Array]:
    """The whole law: the first admissible proposal, placed, or the fallback.

    Args:
      u: [..., max_attempts, draws] uniforms in [0, 1) for the proposals.
      v: [..., 2] uniforms in [0, 1) for the place.
      height: image height in pixels, u's float dtype, scalar or [...].
      width: image width, likewise.
      xp: the array namespace.

    Returns:
      y, x, h, w: [...] whole numbers of u's dtype, and fell_back: [...] bool.
    """
    ones = xp.ones_like(u[..., 0, 0])
    height, width = height * ones, width * ones
    h, w, ok = self.propose(u, height[..., None], width[..., None], xp)
    top, left, *size = self.fallback(height, width, xp)
    h, w, found = first_admissible(ok, (h, w), size, xp)
    y, x = self.place(v, h, w, height, width, xp)
    return xp.where(found, y, top), xp.where(found, x, left), h, w, ~found


def sample(
  law: Law,
  num: int,
  height: int,
  width: int,
  rng: np.random.Generator,
  chunk: int = 1 << 16,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Draws windows of one image shape with NumPy.

  It works in chunks that fit the cache, and repeats only the attempts of
  windows whose proposals were all rejected so far.

  Args:
    law: the law.
    num: how many windows.
    height: image height in pixels.
    width: image width in pixels.
    rng: source of the uniforms.
    chunk: windows per pass.

  Returns:
    y, x, h, w: [num] int32, and fell_back: [num] bool.
  """
  out = np.empty((4, num), np.int32)
  fell_back = np.zeros(num, bool)
  shape = np.float64(height), np.float64(width)
  top, left, *size = law.fallback(*shape, np)
  for start in range(0, num, chunk):
    window = out[:, start : start + chunk]
    h, w = np.empty(window[2:].shape)
    # For the first attempt `todo` is a slice, which is copied faster.
    todo, rest = slice(None), np.arange(len(h))
    for _ in range(law.max_attempts):
      u = rng.random((len(rest), 1, law.draws))
      *proposal, ok = law.propose(u, *shape, np)
      h[todo], w[todo], found = first_admissible(ok, proposal, size, np)
      todo = rest = rest[~found]
      if not len(rest):
        break
    y, x = law.place(rng.random((len(h), 2)), h, w, *shape, np)
    y[rest], x[rest] = top, left
    window[0], window[1], window[2], window[3] = y, x, h, w
    fell_back[start + rest] = True
  return (*out, fell_back)
