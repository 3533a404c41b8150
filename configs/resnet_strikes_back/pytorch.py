r"""PyTorch's recipe: ResNet-50, 90 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/pytorch.py

https://arxiv.org/abs/2110.00476, Table 2, column PyTorch:

Top-1 76.1 on val. That it has color jitter is the paper's word; how much it is
not said: 0.4, as in the training code of Torch 7.

The crop is that of PyTorch; `pytorch.py:crop=inception_crop` has
TensorFlow's. All arguments after the colon: `big_crop.recipes`. Needs
imagenet2012 in TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
`pytorch.py:smoke` is half a minute on the embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    schedule="step",
    wd_all=True,
    interpolation="bilinear",
    color_jitter=0.4,
    zero_init_last=False,
  )
