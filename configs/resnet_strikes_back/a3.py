r"""A3 of "ResNet strikes back": ResNet-50, 100 epochs at 160 pixels.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/a3.py

https://arxiv.org/abs/2110.00476, Table 2:

Top-1 78.1 on val, 84.5 on ReaL, 66.1 on V2, tested at 224 pixels (Table 1);
78.00 +- 0.09 over ten seeds (Table 9). 63k steps; 15 hours on four V100.

The crop is that of PyTorch; `a3.py:crop=inception_crop` has
TensorFlow's. All arguments after the colon: `big_crop.recipes`. Needs
imagenet2012 in TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
`a3.py:smoke` is half a minute on the embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    train_res=160,
    epochs=100,
    batch=2048,
    optimiser="lamb",
    lr=0.008,
    warmup_epochs=5.0,
    wd=0.02,
    rand_augment="rand-m6-mstd0.5-inc1",
    mixup=0.1,
    cutmix=1.0,
    test_crop=0.95,
    loss="bce",
    mixed_precision=True,
  )
