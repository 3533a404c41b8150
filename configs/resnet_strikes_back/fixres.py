r"""FixRes recipe: ResNet-50, 120 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/fixres.py

https://arxiv.org/abs/2110.00476, Table 2, column FixRes:

Top-1 77.0 on val, at the training resolution. How strong the color jitter is
the paper does not say: 0.4.

The crop is that of PyTorch; `fixres.py:crop=inception_crop` has
TensorFlow's. All arguments after the colon: `big_crop.recipes`. Needs
imagenet2012 in TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
`fixres.py:smoke` is half a minute on the embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    epochs=120,
    batch=512,
    lr=0.2,
    schedule="step",
    wd_all=True,
    repeated_aug=3,
    interpolation="bilinear",
    color_jitter=0.4,
    zero_init_last=False,
  )
