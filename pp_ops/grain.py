"""The crop laws for Grain, for pipelines that are not tf.data.

    import grain
    from pp_ops.grain import RandomResizedCrop

    data = grain.MapDataset.source(source).seed(0).shuffle().repeat(90)
    data = data.random_map(RandomResizedCrop("beta_crop(alpha=2)", 224))

The pixels are those of torchvision's `RandomResizedCrop` on Pillow images: the
window is cut out, then Pillow resizes it, antialiased.

Needs Grain and Pillow. Neither TensorFlow nor JAX is imported here; Grain
imports JAX if JAX is installed.
"""

import dataclasses
import io
from typing import Any

import grain
import numpy as np
from PIL import Image

from pp_ops import registry
from pp_ops.checks import check_choice, check_size
from pp_ops.errors import UserError
from pp_ops.laws import Law

_RESAMPLING = {
  "bilinear": Image.Resampling.BILINEAR,
  "bicubic": Image.Resampling.BICUBIC,
}
# What a crop op takes besides its law's arguments. In a string they are an
# error, because `registry.law_of` would ignore them silently.
_NOT_THE_LAWS = ("size", "method", "antialias", "key", "inkey", "outkey")


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(grain.transforms.RandomMap):
  """Crops one feature of an element by a law, and resizes the crop.

  The window is a function of the random generator that Grain passes in and of
  the image's shape. TensorFlow's own law, `"inception_crop"`, is computed in
  NumPy like the others: it has the distribution of TensorFlow's op but uses
  other random numbers.

  Attributes:
    law: a `pp_ops.laws` law, or a crop op's string without a size, as in
      `"beta_crop(alpha=2, area_min=10)"` (areas in percent of the image).
    size: side of the result in pixels, or (height, width); None keeps the size
      of the window.
    method: "bilinear" or "bicubic", always antialiased, because Pillow's
      resize always antialiases.
    key: name of the feature, which holds a uint8 array [height, width, 1 or 3]
      or the bytes of an encoded image (JPEG, PNG, ...) that Pillow decodes to
      RGB.

  Raises:
    ValueError: in one line, for a wrong argument, and from `random_map` for an
      element without such a feature.
  """

  law: Law | str
  size: int | tuple[int, int] | None = None
  method: str = "bilinear"
  key: str = "image"

  def __post_init__(self):
    own = registry.law_alone(
      self.law, _NOT_THE_LAWS, "RandomResizedCrop itself"
    )
    object.__setattr__(self, "law", own)
    if self.size is not None:
      object.__setattr__(self, "size", check_size(self.size))
    check_choice("resize method", self.method, _RESAMPLING)

  def random_map(
    self, element: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """Returns a copy of `element` with its image cropped, uint8 [h, w, C]."""
    image = self._image(element)
    encoded = isinstance(image, Image.Image)
    shape = (image.height, image.width) if encoded else image.shape[:2]
    y, x, h, w = self._window(*shape, rng)
    # Not `resize(box=...)`: near the window's edges Pillow's filter would then
    # read pixels outside of the window, which torchvision's crop never sees.
    if encoded:
      crop = image.crop((x, y, x + w, y + h)).convert("RGB")
    else:
      crop = image[y : y + h, x : x + w]
      crop = Image.fromarray(crop[..., 0] if crop.shape[2] == 1 else crop)
    if self.size is not None:
      crop = crop.resize(self.size[::-1], _RESAMPLING[self.method])
    crop = np.array(crop)
    return {**element, self.key: crop if crop.ndim == 3 else crop[..., None]}

  def _window(self, height, width, rng):
    # The place is drawn before the attempts, so that a law of ten attempts and
    # a law of a hundred use the same numbers for the place and for the first
    # ten attempts: common random numbers, for paired comparisons.
    v = rng.random(2)
    u = rng.random((self.law.max_attempts, self.law.draws))
    shape = np.float64(height), np.float64(width)
    *window, _ = self.law.window(u, v, *shape, np)
    return map(int, window)

  def _image(self, element):
    """The feature: an array, or a decoded Pillow image."""
    if not isinstance(element, dict) or self.key not in element:
      there = ", ".join(map(repr, element)) if isinstance(element, dict) else ""
      raise UserError(
        f"RandomResizedCrop: no feature {self.key!r}; "
        + (f"there are {there}" if there else f"got a {_kind(element)}")
      )
    image = element[self.key]
    if isinstance(image, bytes):
      return self._decode(image)
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8
    good = good and image.ndim == 3 and image.shape[2] in (1, 3)
    if not (good and image.size):
      raise UserError(
        f"RandomResizedCrop: feature {self.key!r} is {_kind(image)}: need "
        "bytes or a uint8 array [height, width, 1 or 3]"
      )
    return image

  def _decode(self, data):
    try:
      image = Image.open(io.BytesIO(data))
      image.load()
    except Exception as e:  # Pillow's decoders raise all sorts.
      raise UserError(
        f"RandomResizedCrop: feature {self.key!r}: Pillow cannot decode these "
        f"{len(data)} bytes: {e}"
      ) from e
    if image.mode[0] in "IF":
      # Pillow's conversion to RGB would clip all values above 255 to white.
      raise UserError(
        f"RandomResizedCrop: feature {self.key!r} has Pillow's mode "
        f"{image.mode!r}: need 8 bits a channel"
      )
    return image


def _kind(value):
  """Describes a wrong value in a few words, for an error message."""
  if isinstance(value, np.ndarray):
    return f"{value.dtype} {list(value.shape)}"
  return type(value).__name__
