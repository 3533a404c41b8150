r"""C.1 of "ResNet strikes back": ResNet-50, Nesterov SGD and AGC.

    python -m big_crop.train --workdir DIR \
      --config configs/resnet_strikes_back/c1.py

https://arxiv.org/abs/2110.00476, Table 10:

Top-1 79.8 on val (Table 10).
The paper does not say at which crop ratio it is tested; here it is 0.875.

The crop is that of PyTorch; `c1.py:crop=inception_crop` has
TensorFlow's. All arguments after the colon: `big_crop.recipes`. Needs
imagenet2012 in TFDS, and for the evaluators imagenet2012_real and imagenet_v2.
`c1.py:smoke` is half a minute on the embedded dataset.
"""

from big_crop import recipes


def get_config(arg=None):
  return recipes.build(
    arg,
    epochs=800,
    batch=2048,
    optimiser="nesterov",
    lr=0.88,
    warmup_epochs=5.0,
    wd=1e-05,
    smoothing=0.1,
    dropout=0.25,
    drop_path=0.1,
    agc=0.025,
    rand_augment="rand-m7-n3-mstd1.0-inc1",
    mixup=0.2,
    cutmix=1.0,
    erasing=0.4,
    mixed_precision=True,
  )
