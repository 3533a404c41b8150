"""The corruptions by name, with the constants of their five severities."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pp_ops.corruptions import blur, digital, noise, weather
from pp_ops.corruptions.spatter import spatter


class Corruption(NamedTuple):
  """A corruption.

  Attributes:
    function: (image, rng, *constants of one severity) -> corrupted image. Both
      images are uint8 [H, W, 3], rng is a `numpy.random.Generator`.
    constants: benchmark -> the constants of severities 1 to 5. Key 224 is
      ImageNet-C, 64 Tiny-ImageNet-C, 32 CIFAR-10-C and CIFAR-100-C.
    in_mce: whether the mean corruption error (mCE) averages over this one. It
      averages over 15; the other four are for validation.
  """

  function: Callable[..., np.ndarray]
  constants: dict[int, tuple]
  in_mce: bool = True


def _elastic(*rows, side=1.0):
  """The constants of `rows`, fractions of the image's side, times `side`."""
  return tuple(tuple(c * side for c in row) for row in rows)


# Names and order are from "Benchmarking Neural Network Robustness to Common
# Corruptions and Perturbations" (Hendrycks & Dietterich, ICLR 2019), numbers
# from its authors' scripts.
NAMES: dict[str, Corruption] = {
  "gaussian_noise": Corruption(
    noise.gaussian_noise,
    {
      224: (0.08, 0.12, 0.18, 0.26, 0.38),
      64: (0.04, 0.08, 0.12, 0.15, 0.18),
      32: (0.04, 0.06, 0.08, 0.09, 0.10),
    },
  ),
  "shot_noise": Corruption(
    noise.shot_noise,
    {
      224: (60, 25, 12, 5, 3),
      64: (250, 100, 50, 30, 15),
      32: (500, 250, 100, 75, 50),
    },
  ),
  "impulse_noise": Corruption(
    noise.impulse_noise,
    {
      224: (0.03, 0.06, 0.09, 0.17, 0.27),
      64: (0.01, 0.02, 0.05, 0.08, 0.14),
      32: (0.01, 0.02, 0.03, 0.05, 0.07),
    },
  ),
  "defocus_blur": Corruption(
    blur.defocus_blur,
    {
      224: ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
      64: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
      32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    },
  ),
  "glass_blur": Corruption(
    blur.glass_blur,
    {
      224: ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
      64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
      32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    },
  ),
  "motion_blur": Corruption(
    blur.motion_blur,
    {
      224: ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
      64: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
      32: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    },
  ),
  "zoom_blur": Corruption(
    blur.zoom_blur,
    {
      224: (
        (1.11, 0.01),
        (1.16, 0.01),
        (1.21, 0.02),
        (1.26, 0.02),
        (1.31, 0.03),
      ),
      64: (
        (1.06, 0.01),
        (1.11, 0.01),
        (1.16, 0.01),
        (1.21, 0.01),
        (1.26, 0.01),
      ),
      32: (
        (1.06, 0.01),
        (1.11, 0.01),
        (1.16, 0.01),
        (1.21, 0.01),
        (1.26, 0.01),
      ),
    },
  ),
  "snow": Corruption(
    weather.snow,
    {
      224: (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
      ),
      64: (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
      ),
      32: (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
      ),
    },
  ),
  "frost": Corruption(
    weather.frost,
    {
      224: (
        (1, 0.4, 1),
        (0.8, 0.6, 1),
        (0.7, 0.7, 1),
        (0.65, 0.7, 1),
        (0.6, 0.75, 1),
      ),
      64: (
        (1, 0.3, 0.3),
        (0.9, 0.4, 0.3),
        (0.8, 0.45, 0.3),
        (0.75, 0.5, 0.3),
        (0.7, 0.55, 0.3),
      ),
      32: (
        (1, 0.2, 0.2),
        (1, 0.3, 0.2),
        (0.9, 0.4, 0.2),
        (0.85, 0.4, 0.2),
        (0.75, 0.45, 0.2),
      ),
    },
  ),
  "fog": Corruption(
    weather.fog,
    {
      224: ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
      64: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
      32: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    },
  ),
  "brightness": Corruption(
    digital.brightness,
    {
      224: (0.1, 0.2, 0.3, 0.4, 0.5),
      64: (0.1, 0.2, 0.3, 0.4, 0.5),
      32: (0.05, 0.1, 0.15, 0.2, 0.3),
    },
  ),
  "contrast": Corruption(
    digital.contrast,
    {
      224: (0.4, 0.3, 0.2, 0.1, 0.05),
      64: (0.4, 0.3, 0.2, 0.1, 0.05),
      32: (0.75, 0.5, 0.4, 0.3, 0.15),
    },
  ),
  "elastic_transform": Corruption(
    digital.elastic_transform,
    {
      # The authors' script takes the fractions of 244 pixels, although images
      # have a side of 224.
      224: _elastic(
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
        side=244 / 224,
      ),
      64: _elastic(
        (0, 0, 0.08),
        (0.05, 0.3, 0.06),
        (0.1, 0.08, 0.06),
        (0.1, 0.03, 0.03),
        (0.16, 0.03, 0.02),
      ),
      32: _elastic(
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
      ),
    },
  ),
  "pixelate": Corruption(
    digital.pixelate,
    {
      224: (0.6, 0.5, 0.4, 0.3, 0.25),
      64: (0.9, 0.8, 0.7, 0.6, 0.5),
      32: (0.95, 0.9, 0.85, 0.75, 0.65),
    },
  ),
  "jpeg_compression": Corruption(
    digital.jpeg_compression,
    {
      224: (25, 18, 15, 10, 7),
      64: (65, 58, 50, 40, 25),
      32: (80, 65, 58, 50, 40),
    },
  ),
  "speckle_noise": Corruption(
    noise.speckle_noise,
    {
      224: (0.15, 0.2, 0.35, 0.45, 0.6),
      64: (0.15, 0.2, 0.25, 0.3, 0.35),
      32: (0.06, 0.1, 0.12, 0.16, 0.2),
    },
    in_mce=False,
  ),
  "gaussian_blur": Corruption(
    blur.gaussian_blur,
    {
      224: (1, 2, 3, 4, 6),
      64: (0.5, 0.75, 1, 1.25, 1.5),
      32: (0.4, 0.6, 0.7, 0.8, 1),
    },
    in_mce=False,
  ),
  "spatter": Corruption(
    spatter,
    {
      224: (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
      ),
      64: (
        (0.62, 0.1, 0.7, 0.7, 0.6, 0),
        (0.65, 0.1, 0.8, 0.7, 0.6, 0),
        (0.65, 0.3, 1, 0.69, 0.6, 0),
        (0.65, 0.1, 0.7, 0.68, 0.6, 1),
        (0.65, 0.1, 0.5, 0.67, 0.6, 1),
      ),
      32: (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
      ),
    },
    in_mce=False,
  ),
  "saturate": Corruption(
    digital.saturate,
    {
      224: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
      64: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
      32: ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    },
    in_mce=False,
  ),
}
