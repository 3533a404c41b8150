"""Corruptions that draw a random number for each value of the image."""

import numpy as np

from pp_ops.corruptions.arrays import to_uint8


def gaussian_noise(image, rng, scale):
  """Adds normal noise of standard deviation `scale`, where white is 1."""
  x = image / 255
  return to_uint8(x + rng.normal(size=x.shape, scale=scale))


def shot_noise(image, rng, photons):
  """Poisson noise, where white is `photons` on average."""
  return to_uint8(rng.poisson(image / 255 * photons) / photons)


def impulse_noise(image, rng, amount):
  """Sets a fraction `amount` of the values to 0 or 255: salt and pepper."""
  hit = rng.random(image.shape) <= amount
  salt = rng.random(image.shape) <= 0.5
  return np.where(hit, np.where(salt, np.uint8(255), np.uint8(0)), image)


def speckle_noise(image, rng, scale):
  """Adds normal noise in proportion to the value."""
  x = image / 255
  return to_uint8(x + x * rng.normal(size=x.shape, scale=scale))
