"""Draws docs/crop_area.png: the crop area under three laws."""

import pathlib

import matplotlib
import numpy as np

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from pp_ops import windows

HEIGHT, WIDTH, NUM = 375, 500, 10**6
LAWS = {
  "inception_crop (TensorFlow)": windows.NativeLaw(),
  "inception_crop_fixed": windows.FixedLaw(),
  "beta_crop(alpha=2)": windows.BetaLaw(alpha=2),
}

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for name, law in LAWS.items():
  rng = np.random.default_rng(0)
  _, _, h, w, _ = windows.sample(law, NUM, HEIGHT, WIDTH, rng)
  scale = h * w / (HEIGHT * WIDTH)
  ax.hist(
    scale,
    np.linspace(0, 1, 101),
    density=True,
    histtype="step",
    label=name,
    linewidth=1.5,
  )
ax.set(xlabel="crop area / image area", ylabel="density", xlim=(0, 1))
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=150)
