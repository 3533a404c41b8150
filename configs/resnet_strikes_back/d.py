r"""D of "ResNet strikes back": ResNet-50, 600 epochs with AdamP.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/d.py

https://arxiv.org/abs/2110.00476, Table 10:

Top-1 79.8 on val (Table 10). 2,000k steps.
The paper does not say at which crop ratio it is tested; here it is 0.875.

The crop is that of PyTorch; `d.py:crop=inception_crop` has
TensorFlow's. All arguments after the colon: `big_crop.recipes`. Needs
imagenet2012 in TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
`d.py:smoke` is half a minute on the embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    epochs=600,
    batch=384,
    optimiser="adamp",
    lr=0.0033,
    warmup_epochs=5.0,
    wd=0.01,
    smoothing=0.1,
    dropout=0.1,
    drop_path=0.05,
    rand_augment="rand-m7-n3-mstd1.0-inc1",
    mixup=0.2,
    cutmix=1.0,
    erasing=0.35,
    loss="bce",
    mixed_precision=True,
  )
