"""Corruptions that draw a number for each value."""

import numpy as np

from pp_ops.corruptions.arrays import to_uint8


def gaussian_noise(image, rng, scale):
  """Adds normal noise of standard deviation `scale`, of 1 for white."""
  x = image / 255
  return to_uint8(x + rng.normal(size=x.shape, scale=scale))


def shot_noise(image, rng, photons):
  """Poisson noise, where white is `photons` on average."""
  return to_uint8(rng.poisson(image / 255 * photons) / photons)


def impulse_noise(image, rng, amount):
  """Makes a share `amount` of the values 0 or 255; salt and pepper."""
  hit = rng.random(image.shape) <= amount
  salt = rng.random(image.shape) <= 0.5
  return np.where(hit, np.where(salt, np.uint8(255), np.uint8(0)), image)


def speckle_noise(image, rng, scale):
  """Adds normal noise in proportion to the value."""
  x = image / 255
  return to_uint8(x + x * rng.normal(size=x.shape, scale=scale))
