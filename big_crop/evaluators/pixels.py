"""Finds how a pp string normalises images, by running it on plain colours."""

from typing import NamedTuple

import numpy as np

from big_crop.data.eval_data import EvalData
from pp_ops import registry
from pp_ops.errors import UserError

_PROBES = 16  # images of one colour
_RELATIVE_ERROR = 1e-5  # relative to the range, |white - black|


class Pixels(NamedTuple):
  """A pp string, cut in two before the normalisation.

  Attributes:
    before: the string up to the last op that leaves uint8 images of one size.
    after: the rest of the string, the normalisation.
    shape: (H, W, C) of the uint8 images.
    black: the normalised value of pixel value 0, in each channel.
    white: the normalised value of pixel value 255, in each channel.
  """

  before: str
  after: str
  shape: tuple[int, int, int]
  black: tuple[float, ...]
  white: tuple[float, ...]


def find(data: EvalData) -> Pixels:
  """Finds where the pp string of `data` starts to normalise the image.

  Raises:
    ValueError: in one line, if the string leaves no uint8 image of one size at
      any place, or if what comes after it is not affine in each channel.
  """
  ops = registry.parse(data.pp_fn)
  for place in range(len(ops), 0, -1):
    before = _spec(ops[:place])
    pp = data.engine.get_preprocess_fn(before)
    try:
      specs = data.engine.feature_specs(data.source, pp, ("image",))
    except UserError:  # undecoded, or of no fixed size
      continue
    if specs["image"].dtype == np.uint8:
      break
  else:
    raise UserError(
      f"pp_fn {data.pp_fn!r} has no place where the image is uint8 and of one "
      "size: put the crop or resize before the normalisation"
    )
  shape, after = specs["image"].shape, ops[place:]
  return Pixels(
    before, _spec(after), shape, *_ends(data.engine, after, shape, data.pp_fn)
  )


def _ends(engine, ops, shape, pp_fn):
  """The normalised values of 0 and 255, from images of one colour each."""
  colours = np.random.default_rng(0).integers(0, 256, (_PROBES, shape[-1]))
  colours[0], colours[1] = 0, 255
  images = np.broadcast_to(colours[:, None, None], (_PROBES, *shape))
  out = _image_ops(engine, ops, images.astype(np.uint8)).astype(np.float64)
  if out.ndim == 4 and out.shape[-1] == shape[-1]:
    black, white = out[0, 0, 0], out[1, 0, 0]
    expected = black + (white - black) * colours / 255
    error = np.abs(out - expected[:, None, None]).max()
    if error <= _RELATIVE_ERROR * np.abs(white - black).min():
      return tuple(map(float, black)), tuple(map(float, white))
  raise UserError(
    f"pp_fn {pp_fn!r}: what follows the last uint8 image is no scale and offset"
    " of each channel, so that pixel values in [0, 1] are not known"
  )


def _image_ops(engine, ops, images):
  """Runs only those ops that change the image."""
  inkey = lambda name, kw: kw.get(
    "key", kw.get("inkey", engine.lookup(name).inkey)
  )
  changing = [op for op in ops if inkey(op[0], op[2]) == "image"]
  if not changing:
    return images
  return engine.apply(engine.get_preprocess_fn(_spec(changing)), images)


def _spec(ops):
  """The pp string of these ops, the inverse of `registry.parse`."""
  texts = []
  for name, args, kwargs in ops:
    given = [*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())]
    texts.append(f"{name}({', '.join(given)})" if given else name)
  return "|".join(texts)
