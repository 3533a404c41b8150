r"""DeiT's recipe: ResNet-50, 300 epochs with AdamW.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/deit.py

https://arxiv.org/abs/2110.00476, Table 2, column DeiT:

Top-1 78.4 on val; model=vit-DeiT-S/16, for which it was made, 79.8
(section 4.4).

The crop is that of PyTorch; `deit.py:crop=inception_crop` has
TensorFlow's. All arguments after the colon: `big_crop.recipes`. Needs
imagenet2012 in TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
`deit.py:smoke` is half a minute on the embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    epochs=300,
    batch=1024,
    optimiser="adamw",
    lr=0.001,
    warmup_epochs=5.0,
    wd=0.05,
    smoothing=0.1,
    drop_path=0.1,
    repeated_aug=3,
    rand_augment="rand-m9-mstd0.5-inc1",
    mixup=0.8,
    cutmix=1.0,
    erasing=0.25,
    mixed_precision=True,
  )
