r"""B of "ResNet strikes back": ResNet-50, RMSProp, averaged weights.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/b.py

https://arxiv.org/abs/2110.00476, Table 10:

Top-1 79.4 on val (Table 10). Table 10 gives random erasing a count of 3, Table
11 of 1; here it is 3.
The paper does not say at which crop ratio it is tested; here it is 0.875.

The crop is that of PyTorch; `b.py:crop=inception_crop` has
TensorFlow's. All arguments after the colon: `big_crop.recipes`. Needs
imagenet2012 in TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
`b.py:smoke` is half a minute on the embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    epochs=600,
    batch=2048,
    optimiser="rmsprop_tf",
    lr=0.18,
    schedule="step",
    decay_rate=0.988,
    decay_epochs=1.0,
    warmup_epochs=5.0,
    lr_noise=0.45,
    wd=7e-06,
    smoothing=0.1,
    dropout=0.2,
    drop_path=0.1,
    rand_augment="rand-m8-n2-mstd1.0-inc1",
    mixup=0.2,
    erasing=0.35,
    erasing_count=3,
    ema=0.9999,
    mixed_precision=True,
  )
