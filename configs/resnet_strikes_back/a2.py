r"""A2 of "ResNet strikes back": ResNet-50, 300 epochs.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/a2.py

https://arxiv.org/abs/2110.00476, Table 2:

Top-1 79.8 on val, 85.4 on ReaL, 67.9 on V2 (Table 1); 79.72 +- 0.10, 85.37 +-
0.08 and 67.99 +- 0.23 over a hundred seeds (Figure 1). 188k steps.

The crop is that of PyTorch; `a2.py:crop=inception_crop` has
TensorFlow's. All arguments after the colon: `big_crop.recipes`. Needs
imagenet2012 in TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
`a2.py:smoke` is half a minute on the embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    epochs=300,
    batch=2048,
    optimiser="lamb",
    lr=0.005,
    warmup_epochs=5.0,
    wd=0.02,
    drop_path=0.05,
    repeated_aug=3,
    rand_augment="rand-m7-mstd0.5-inc1",
    mixup=0.1,
    cutmix=1.0,
    test_crop=0.95,
    loss="bce",
    mixed_precision=True,
  )
