"""RandAugment: a few ops, drawn anew for each image, at one magnitude.

The line-up and the levels are those of the authors' efficientnet code
(tensorflow/tpu), which big_vision uses too: 16 ops, two more than in the paper
(Cubuk et al., 2020), and no identity. "You May Be Running the Wrong Inception
Crop", appendix D, lists them and says what is wrong with the contrast.
"""

from collections.abc import Callable

from pp_ops.checks import check_choice, check_number

MAX_LEVEL = 10  # the tables' top level; larger magnitudes are in use, too


def line_up(magnitude: float, legacy: bool) -> dict[str, Callable]:
  """The line-up of 16 ops, see `pp_ops.engines`.

  Args:
    magnitude: 0 to 30, the same for all ops.
    legacy: round as big_vision does, and use its contrast.

  Returns:
    A line-up. The policy draws the sign, 1.0 or -1.0, which gives the direction
    of the ops that have one, and y and x in [0, 1), the place of the cutout.
  """
  level = magnitude / MAX_LEVEL
  # efficientnet computes in uint8: solarize's threshold is modulo 256, and
  # posterize's shift by 8 - bits becomes a shift by 7 if it is not in 0..7.
  bits = int(level * 4)
  bits = bits if 0 < bits <= 8 else 1
  always = lambda *args: lambda sign, y, x, side: args
  either_way = lambda most: lambda sign, y, x, side: (sign * (level * most),)
  enhance = level * 1.8 + 0.1
  return {
    "autocontrast": always(),
    "equalize": always(),
    "invert": always(),
    "rotate": either_way(30),
    "posterize": always(bits),
    "solarize": always(int(level * 256) % 256),
    "color": always(enhance, legacy),
    "contrast": always(enhance, legacy),
    "brightness": always(enhance),
    "sharpness": always(enhance, legacy),
    "shear_x": either_way(0.3),
    "shear_y": either_way(0.3),
    "translate_x": either_way(100),
    "translate_y": either_way(100),
    "cutout": lambda sign, y, x, side: (int(level * 40), 128, (y, x)),
    "solarize_add": always(min(int(level * 110), 255)),
  }


def get_randaug(
  engine, num_layers: int = 2, magnitude: float = 10, contrast: str = "fixed"
):
  """Applies `num_layers` ops, each drawn uniformly from 16.

  AutoContrast, Equalize, Invert, Rotate, Posterize, Solarize, Color, Contrast,
  Brightness, Sharpness, ShearX, ShearY, TranslateX, TranslateY, Cutout and
  SolarizeAdd, which are also ops of their own. Rotate, shear and translate go
  either way with probability one half. Empty places become 128.

  Args:
    engine: see `pp_ops.engines`.
    num_layers: number of ops per image, 0 or more.
    magnitude: 0 to 30, the same for all ops. 10 is the top level of the tables;
      larger values extrapolate linearly as far as an op allows. Note that
      Color, Contrast, Brightness and Sharpness change nothing at 5. Two ops get
      weaker with the magnitude, until they wrap around like efficientnet's
      uint8 arithmetic. Posterize keeps int(0.4 magnitude) bits, but one where
      that is 0 or more than 8 (below 2.5, and from 22.5). Solarize inverts from
      int(25.6 magnitude) modulo 256 up (everything at 0, 10, 20 and 30).
    contrast: "fixed", or "legacy" for what efficientnet and big_vision compute:
      a broken contrast (`pixels.get_contrast`), and truncated grey and smoothed
      values (`pixels.get_color`, `pixels.get_sharpness`).

  Returns:
    A random op on uint8 [height, width, 3 or 1].
  """
  check_number("num_layers", num_layers, 0, whole=True)
  check_number("magnitude", magnitude, 0, 30)
  check_choice("contrast", contrast, ("fixed", "legacy"))
  ops = line_up(magnitude, contrast == "legacy")
  choose = engine.chooser(ops, *["float32"] * 3)

  def randaug(image, rng):
    for _ in range(num_layers):
      u = rng.uniform([4])
      which = engine.cast(u[0] * len(ops), "int32")
      sign = engine.xp.where(u[1] < 0.5, -1.0, 1.0)
      image = choose(which, image, sign, u[2], u[3])
    return image

  return randaug


OPS = {"randaug": get_randaug}
