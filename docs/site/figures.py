"""Draws the figures of README.md and docs/ again, but for way.svg, by commands.

python docs/site/figures.py
"""

import pathlib
import shutil
import tempfile

from PIL import Image

from big_crop.data import critters
from big_crop.measure import __main__ as measure
from big_crop.study import __main__ as study

DOCS = pathlib.Path(__file__).parents[1]
LAWS = ["inception_crop", "inception_crop_fixed"]


def main():
  """Draws them."""
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder)
    picture = out / "critter.jpg"
    picture.write_bytes(critters.example("train", 14)[0])
    measure.main(
      ["--crop", *LAWS, "beta_crop(alpha=2)", "--image_shape", "375x500"]
      + ["--out", str(out)]
    )
    measure.main(
      ["--crop", *LAWS, "--image_shape", "256x512", "512x256"]
      + ["--picture", str(picture), "--out", str(out)]
    )
    study.main(["report", "--reference", "--out", str(out)])
    gap = "difference-TensorFlow_against_PyTorch_Inception_crop-val_top1.svg"
    for made, name in (
      ("areas_375x500.png", "crop_area.png"),
      ("sizes_inception_crop.png", "sizes_native.png"),
      ("sizes_inception_crop_fixed.png", "sizes_fixed.png"),
      ("windows.png", "windows.png"),
      (f"figures/{gap}", "gap.svg"),
    ):
      shutil.copy(out / made, DOCS / name)
  windows = Image.open(DOCS / "windows.png").convert("RGB")
  windows.quantize(96).save(DOCS / "windows.png", optimize=True)  # a quarter


if __name__ == "__main__":
  main()
