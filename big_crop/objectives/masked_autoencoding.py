"""Masked autoencoding: predicts the pixels of hidden patches of an image.

He et al., https://arxiv.org/abs/2111.06377. CropMix pretrains with it (section
6): there the pp string leaves a mixed view as `image`, and patches of this view
are hidden and predicted.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from big_crop import models, names
from big_crop.models import mae, vit
from big_crop.objectives.base import Aux
from big_crop.objectives.base import Objective as Base
from pp_ops.checks import check_number
from pp_ops.errors import UserError


def statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The mean and the standard deviation of patches [..., D], both [..., 1].

  MAE, section 4 ("Reconstruction target"); the variance is the unbiased one and
  1e-6 is added to it, as in the authors' code.
  """
  variance = x.var(-1, keepdims=True, ddof=1)
  return x.mean(-1, keepdims=True), jnp.sqrt(variance + 1e-6)


class Objective(Base):
  """Minimises the mean squared error of the hidden patches' pixels.

  `config.model` defines the encoder, a `vit` with a class token, for example
  variant "MAE-B/16". `config.objective` may hold

    mask_ratio: the fraction of patches that are hidden; 0.75.
    norm_pix: whether the targets are the pixels of each patch normalised by the
      patch's own mean and standard deviation; True. In patches of little
      contrast this makes the noise as large as the signal.
    decoder: dict with its width, depth and num_heads; 512, 8 and 16.

  A batch holds `image` [B, H, W, 3] float. Which patches are hidden is drawn
  anew for each image in each step: those with the largest random numbers.

  Attributes:
    model: a `big_crop.models.mae.MAE`.
  """

  features = ("image",)

  def __init__(self, config, num_classes):
    del num_classes
    given = config.objective.to_dict()
    usual = {"mask_ratio": 0.75, "norm_pix": True, "decoder": {}}
    for key in given:
      names.check("argument of config.objective", key, usual)
    given = usual | given
    sizes = {"width": 512, "depth": 8, "num_heads": 16}
    for key, value in given["decoder"].items():
      names.check("argument of config.objective.decoder", key, sizes)
      check_number(f"config.objective.decoder.{key}", value, 1, whole=True)
    sizes |= given["decoder"]
    if sizes["width"] % sizes["num_heads"]:
      raise UserError(
        f"config.objective.decoder: width={sizes['width']} is not a multiple "
        f"of num_heads={sizes['num_heads']}"
      )
    self._norm_pix = given["norm_pix"]
    names.check_kind("config.objective.norm_pix", self._norm_pix, bool)
    self._mask_ratio = given["mask_ratio"]
    names.check_kind("config.objective.mask_ratio", self._mask_ratio, float)
    if not 0 < self._mask_ratio < 1:
      raise UserError(
        f"config.objective.mask_ratio is {self._mask_ratio}: need a number "
        "between 0 and 1, as nothing is learnt where no patch is hidden, and "
        "from none where all are"
      )
    encoder = models.get_model(config.model_name, 0, **config.model)
    if not isinstance(encoder, vit.ViT) or encoder.pool_type != "tok":
      raise UserError(
        "masked autoencoding needs the model 'vit' with a class token, for "
        "example config.model = dict(variant='MAE-B/16')"
      )
    decoder = mae.Decoder(
      **sizes, patch_size=encoder.patch_size, dtype=encoder.dtype_mm
    )
    self.model = mae.MAE(encoder, decoder)

  def init(self, rng, specs: Mapping[str, jax.ShapeDtypeStruct]):
    image = jnp.zeros((1, *specs["image"].shape))
    noise = jnp.zeros((1, self._num_patches(image)))
    visible = self._num_visible(noise.shape[1])
    return dict(self.model.init(rng, image, noise, visible))

  def prepare(self, batch, rng):
    image = batch["image"]
    if not jnp.issubdtype(image.dtype, jnp.floating) or image.ndim != 4:
      raise UserError(
        f"The images are {image.dtype} {image.shape[1:]}: end input.pp with a "
        "float op such as vgg_value_range, and one size for all."
      )
    shape = len(image), self._num_patches(image)
    return {"image": image, "noise": jax.random.uniform(rng, shape)}

  def loss(self, params, model_state, extra, batch, rng):
    image, noise = batch["image"], batch["noise"]
    pixels, mask = self.model.apply(
      {"params": params},
      image,
      noise,
      self._num_visible(noise.shape[1]),
      train=True,
      rngs={"dropout": rng},
    )
    mean, deviation, x = self._targets(image)
    error = jnp.square(pixels - (x - mean) / deviation).mean(-1)
    # This is also the mean of the images' losses, because each image hides the
    # same number of patches.
    return (error * mask).sum() / mask.sum(), Aux(model_state)

  def _targets(self, image):
    """Mean, standard deviation and pixels [B, N, D] of each patch.

    Without `norm_pix` the mean is 0 and the standard deviation 1.
    """
    x = mae.patches(image, self.model.encoder.patch_size)
    return (*(statistics(x) if self._norm_pix else (0.0, 1.0)), x)

  def predict(self, variables, image):
    """The class token [B, D] after the final norm, and a dict of activations.

    No patch is hidden.
    """
    return self.model.apply(variables, image, method="encode")

  def for_evaluators(self) -> dict[str, Any]:
    return {"reconstruct": self.reconstruct}

  def reconstruct(
    self, variables: dict[str, Any], image: jax.Array, rng: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hides patches of images and puts the predictions in their place.

    With `norm_pix` a prediction is turned back into pixels with the mean and
    the standard deviation of the true patch.

    Args:
      variables: what `TrainState.variables()` returns.
      image: [B, H, W, 3] float.
      rng: a key.

    Returns:
      The images with the hidden patches set to zero, and with the hidden
      patches predicted, both [B, H, W, 3]; and the loss of each image [B].
    """
    size, grid = self.model.encoder.patch_size, self.model.grid(image)
    noise = self.prepare({"image": image}, rng)["noise"]
    visible = self._num_visible(noise.shape[1])
    pixels, mask = self.model.apply(variables, image, noise, visible)
    mean, deviation, x = self._targets(image)
    error = jnp.square(pixels - (x - mean) / deviation).mean(-1)
    error = (error * mask).sum(-1) / mask.sum(-1)
    mask = mask[..., None]
    predicted = pixels * deviation + mean
    hidden = mae.images(x * (1 - mask), grid, size)
    filled = mae.images(x * (1 - mask) + predicted * mask, grid, size)
    return hidden, filled, error

  def _num_patches(self, image):
    rows, columns = self.model.grid(image)
    return rows * columns

  def _num_visible(self, num_patches):
    visible = int(num_patches * (1 - self._mask_ratio))
    if not 0 < visible < num_patches:
      raise UserError(
        f"config.objective.mask_ratio is {self._mask_ratio}: of {num_patches} "
        f"patches it leaves {visible} visible; need at least 1, and 1 hidden"
      )
    return visible
