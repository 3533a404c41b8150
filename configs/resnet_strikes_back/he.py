r"""He et al.'s recipe: ResNet-50, 90 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/he.py

https://arxiv.org/abs/2110.00476, Table 2, column ResNet:

Top-1 75.3 on val. No Inception crop: the shorter side is resized to 256 to 480
pixels, of which a window of 224 is cut.

`he.py:crop=inception_crop_fixed` has an Inception crop. All arguments after the
colon: `big_crop.recipes`. Needs imagenet2012 in TFDS, and for the evaluators
imagenet2012_real and imagenet_v2. `he.py:smoke` is half a minute on the
embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    schedule="step",
    wd_all=True,
    crop="scale",
    interpolation="bilinear",
    lighting=0.1,
    zero_init_last=False,
  )
