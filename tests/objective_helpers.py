"""Objectives around models that no config names."""

import jax
import jax.numpy as jnp

from big_crop.config import default_config
from big_crop.objectives import classification

# What batches of labelled images hold.
LABELLED = ("image", ("label", "labels"))


def classify(model, num_classes, **keys):
  """The classification of a Flax module; `keys` are of the config."""
  config = default_config()
  config.update(keys)
  objective = classification.Objective(config, num_classes)
  objective.model = model
  return objective


def specs(*shape):
  """Of an example that is an image."""
  return {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}
