"""Measurements of crop laws: exact, sampled, and against each other."""

import concurrent.futures
import itertools
import os
from typing import Any

import numpy as np
from scipy import sparse
from tqdm import tqdm

from big_crop.display import tables
from big_crop.measure import shapes
from pp_ops import laws as crop_laws
from pp_ops import registry
from pp_ops.errors import UserError
from pp_ops.laws import cropmix, exact

_BLOCK = 1 << 20  # windows that one job samples
PERCENTILES = (1, 5, 50)


class Measurement:
  """One law on one set of shapes: its exact and its sampled distribution.

  Each sample gives one number, and numbers are counted. In this class the
  number is the place of the window's size in a table [h + 1, w + 1].

  Attributes:
    crop: the op's spec.
    law: the law.
    images: label of the shapes.
    shapes: {(height, width): number of images}.
    weights: {(height, width): fraction of the images}.
    exact: an `exact.Mixture` of the exact distribution for each shape, or None
      for a law that has none.
    sampled: an `exact.Mixture` of the sampled distribution for each shape.
    fallback: fraction of the samples that are fallbacks; None if the law has no
      fallback.
    has_sizes: whether window sizes are known, and not only areas.
  """

  has_sizes = True

  def __init__(self, crop, law, images, image_shapes):
    self.crop, self.law, self.images = crop, law, images
    self.shapes = image_shapes
    total = sum(image_shapes.values())
    self.weights = {s: n / total for s, n in image_shapes.items()}
    cells = lambda h, w: sparse.csr_array((1, (h + 1) * (w + 1)), dtype=int)
    self._counts = {s: cells(*s) for s in image_shapes}
    self._fallbacks = 0
    self.exact = self.sampled = self.fallback = None

  def integrate(self, bar):
    """Computes `exact`; updates the progress bar after each shape."""
    parts = []
    try:
      for shape, weight in self.weights.items():
        parts.append((weight, exact.size_distribution(self.law, *shape)))
        bar.update()
    except UserError:
      return
    self.exact = exact.Mixture(parts)

  def sample(self, shape, num, seed):
    """Draws `num` samples: their numbers, int [num], and how many fell back."""
    rng = np.random.default_rng(seed)
    _, _, h, w, fell_back = crop_laws.sample(self.law, num, *shape, rng)
    return h.astype(np.int64) * (shape[1] + 1) + w, int(fell_back.sum())

  def count(self, shape, num, seed):
    """Draws a block; returns the counts, sparse [1, N], and the fallbacks."""
    numbers, fallbacks = self.sample(shape, num, seed)
    counts = np.bincount(numbers, minlength=self._counts[shape].shape[1])
    return sparse.csr_array(counts[None]), fallbacks

  def add(self, shape, counts, fallbacks):
    """Adds a block's counts."""
    self._counts[shape] += counts
    self._fallbacks += fallbacks

  def finish(self):
    """Turns counts into frequencies."""
    total = sum(int(c.sum()) for c in self._counts.values())
    self.fallback = self._fallbacks / max(total, 1)
    self.sampled = exact.Mixture(
      [
        (weight, self._table(shape, counts.toarray()[0] / counts.sum()))
        for shape, weight in self.weights.items()
        if (counts := self._counts[shape]).sum()
      ]
    )

  def _table(self, shape, prob):
    h, w = shape
    return exact.SizeTable(h, w, prob.reshape(h + 1, w + 1))

  def best(self):
    """The exact distribution where there is one, else the sampled one."""
    return self.exact or self.sampled

  def row(self) -> dict[str, Any]:
    """The statistics that the table and summary.json show."""
    row: dict[str, Any] = {"law": self.crop, "images": self.images}
    for kind in ("exact", "sampled"):
      d = getattr(self, kind)
      values = {"mean": None, "fallback": None}
      values |= {f"p{q}": None for q in PERCENTILES}
      if d is not None:
        values["mean"] = d.mean_scale()
        values |= {f"p{q}": d.percentile(q) for q in PERCENTILES}
        values["fallback"] = d.fallback if kind == "exact" else self.fallback
      row[kind] = values
    return row


class UnionMeasurement(Measurement):
  """The area that the views of CropMix cover together; there are no sizes.

  The number that a sample gives is that of the covered pixels.
  """

  has_sizes = False

  def integrate(self, bar):
    """Does nothing, because there is no exact distribution."""
    bar.update(len(self.shapes))

  def sample(self, shape, num, seed):
    """See `Measurement.sample`."""
    rng = np.random.default_rng(seed)
    return cropmix.sample_union(self.law, num, *shape, rng), 0

  def _table(self, shape, prob):
    there = np.flatnonzero(prob)
    return exact.ScaleTable(there / (shape[0] * shape[1]), prob[there])

  def finish(self):
    """See `Measurement.finish`; a union of views has no fallback."""
    super().finish()
    self.fallback = None


def _measurements(crop, law, images, image_shapes):
  """One measurement of a law; of CropMix, one per view and one of the union."""
  if not isinstance(law, cropmix.CropMix):
    return [Measurement(crop, law, images, image_shapes)]
  found = [
    Measurement(f"{crop}: view {k} of {n}", view, images, image_shapes)
    for n in law.num
    for k, view in enumerate(law.views(n), 1)
  ]
  union = UnionMeasurement(f"{crop}: all views", law, images, image_shapes)
  return [*found, union]


def measure(
  crops: list[str],
  images: dict[str, shapes.Shapes],
  samples: int,
  seed: int = 0,
) -> list[Measurement]:
  """Measures every crop on every set of shapes.

  Args:
    crops: specs of crop ops.
    images: {label: shapes}.
    samples: windows to draw for each pair of crop and label.
    seed: seed of the samples.

  Returns:
    The measurements, crops varying fastest.

  Raises:
    ValueError: in one line, if a spec is not that of a crop.
  """
  laws = {crop: registry.law_of(crop, several=True) for crop in crops}
  found = [
    m
    for label, s in images.items()
    for crop, law in laws.items()
    for m in _measurements(crop, law, label, s)
  ]
  num_shapes = sum(len(m.shapes) for m in found)
  with tqdm(total=num_shapes, desc="exact", unit="shape") as bar:
    for m in found:
      m.integrate(bar)
  jobs = [
    (m, shape, min(_BLOCK, num - start))
    for m in found
    for shape, weight in m.weights.items()
    for num in [max(1, round(samples * weight))]
    for start in range(0, num, _BLOCK)
  ]
  seeds = np.random.SeedSequence(seed).spawn(len(jobs))
  bar = tqdm(
    total=sum(num for _, _, num in jobs),
    desc="sampled",
    unit="window",
    unit_scale=True,
  )
  # Threads suffice, because the NumPy calls that take most of the time release
  # the GIL.
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool, bar:
    work = lambda job, s: (job, job[0].count(*job[1:], s))
    for (m, shape, num), counts in pool.map(work, jobs, seeds):
      m.add(shape, *counts)
      bar.update(num)
  for m in found:
    m.finish()
  return found


def distances(found: list[Measurement]) -> list[dict[str, Any]]:
  """Distances between laws on the same images, and between transposed images.

  Args:
    found: the measurements.

  Returns:
    A dict for each pair of laws on the same images, and for each law on a pair
    of transposed shapes (with the second one transposed back). "ks" is the
    Kolmogorov-Smirnov distance of the crop scale, "tv" the total-variation
    distance of the window size.
  """
  rows = []
  for a, b in itertools.combinations([m for m in found if m.has_sizes], 2):
    if a.images == b.images:
      pair, other = (a.crop, b.crop), b.best()
    elif a.crop == b.crop and set(a.shapes) == {s[::-1] for s in b.shapes}:
      pair, other = (a.crop, f"transposed {b.images}"), b.best().transposed()
    else:
      continue
    rows.append(
      {
        "images": a.images,
        "a": pair[0],
        "b": pair[1],
        "ks": a.best().ks_distance(other),
        "tv": a.best().tv_distance(other),
      }
    )
  return rows


def table(found: list[Measurement]) -> str:
  """The measurements and their distances as aligned Markdown."""
  number = lambda x, digits=4: "-" if x is None else f"{x:.{digits}f}"
  head = ["law", "images", "", "mean", *(f"{q}%" for q in PERCENTILES)]
  rows = [[*head, "fallback"]]
  for m in found:
    row = m.row()
    for kind in ("exact", "sampled"):
      values = row[kind]
      first = [row["law"], row["images"]] if kind == "exact" else ["", ""]
      rows.append(
        [
          *first,
          kind,
          number(values["mean"]),
          *(number(values[f"p{q}"]) for q in PERCENTILES),
          "-" if values["fallback"] is None else f"{values['fallback']:.3e}",
        ]
      )
  text = tables.markdown(rows)
  pairs = distances(found)
  if pairs:
    text += "\n" + tables.markdown(
      [
        ["images", "between", "and", "KS of scale", "TV of size"],
        *(
          [r["images"], r["a"], r["b"], number(r["ks"]), number(r["tv"])]
          for r in pairs
        ),
      ]
    )
  return text
