r"""A1 of "ResNet strikes back": ResNet-50, 600 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/a1.py

https://arxiv.org/abs/2110.00476, Table 2:

Top-1 80.4 on val, 85.7 on ReaL, 68.7 on V2 (Table 1); 80.24 +- 0.14 over ten
seeds (Table 9). 375k steps; 4.6 days on four V100.

The crop is that of PyTorch; `a1.py:crop=inception_crop` has
TensorFlow's. All arguments after the colon: `big_crop.recipes`. Needs
imagenet2012 in TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
`a1.py:smoke` is half a minute on the embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    epochs=600,
    batch=2048,
    optimiser="lamb",
    lr=0.005,
    warmup_epochs=5.0,
    wd=0.01,
    smoothing=0.1,
    drop_path=0.05,
    repeated_aug=3,
    rand_augment="rand-m7-mstd0.5-inc1",
    mixup=0.2,
    cutmix=1.0,
    test_crop=0.95,
    loss="bce",
    mixed_precision=True,
  )
