"""Classification: a loss of logits and labels, with optional mixing."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from big_crop import models, names
from big_crop.objectives import losses, mixing, targets
from big_crop.objectives.base import Aux
from big_crop.objectives.base import Objective as Base
from pp_ops.errors import UserError


class Objective(Base):
  """Minimises the mean of a classification loss over the global batch.

  A batch holds `image` [B, H, W, C] float, and either `label` [B] int or
  `labels` [B, num_classes] float. `config.objective.frozen_model=True`, for a
  linear probe, runs the model as in evaluation: no dropout or stochastic depth,
  and batch norm uses its running averages.

  Attributes:
    model: the Flax module, see `big_crop.models`.
    num_classes: the width of its logits.
  """

  features = ("image", ("label", "labels"))
  config_keys = ("num_classes", "loss", "targets", "mixup", "mixing")

  def __init__(self, config, num_classes):
    self.num_classes = config.num_classes or num_classes
    if not self.num_classes:
      raise UserError("the dataset does not say; set config.num_classes")
    if self.num_classes < (num_classes or 0):
      raise UserError(
        f"config.num_classes is {self.num_classes}, but the dataset has "
        f"{num_classes} classes"
      )
    if self.num_classes < 2:
      raise UserError(
        "the dataset has a single class: there is nothing to tell apart"
      )
    self.model = models.get_model(
      config.model_name, self.num_classes, **config.model
    )
    for key in config.objective:
      names.check("argument of config.objective", key, ["frozen_model"])
    self._train = not config.objective.get("frozen_model", False)
    self._loss = losses.get(config.loss)
    self._mix = mixing.make(config.mixup, config.mixing, config.input.repeats)
    self._make_targets = targets.make(**config.targets)

  def init(self, rng, specs: Mapping[str, jax.ShapeDtypeStruct]):
    image = jnp.zeros((1, *specs["image"].shape))
    return dict(self.model.init(rng, image, train=False))

  def prepare(self, batch, rng):
    image, labels = self._read(batch)
    image, labels = self._mix(rng, image, labels)
    return {"image": image, "targets": self._make_targets(labels)}

  def loss(self, params, model_state, extra, batch, rng):
    (logits, _), new_model_state = self.model.apply(
      {"params": params, **model_state},
      batch["image"],
      train=self._train,
      rngs={"dropout": rng},
      mutable=list(model_state),
    )
    value = self._loss(logits, batch["targets"]).mean()
    return value, Aux(new_model_state)

  def predict(self, variables, image):
    return self.model.apply(variables, image, train=False)

  def for_evaluators(self) -> dict[str, Any]:
    return {"model": self.model, "num_classes": self.num_classes}

  def _read(self, batch):
    """The images, and the labels [B, num_classes]."""
    image = batch["image"]
    if not jnp.issubdtype(image.dtype, jnp.floating):
      raise UserError(
        f"The images are {image.dtype}; end input.pp with a float op such as"
        " value_range(-1, 1)."
      )
    if image.ndim != 4:
      raise UserError(
        f"An image has shape {image.shape[1:]}: need (height, width, channels)."
      )
    if "labels" not in batch:
      if batch["label"].ndim != 1:
        raise UserError(
          f"label has shape {batch['label'].shape[1:]}: need one number."
        )
      return image, jax.nn.one_hot(batch["label"], self.num_classes)
    labels = batch["labels"]
    if labels.shape != (len(image), self.num_classes):
      raise UserError(
        f"labels have shape {labels.shape}; {(len(image), self.num_classes)} is"
        " (batch, num_classes)."
      )
    return image, labels
