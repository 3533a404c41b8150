r"""CropMix on CIFAR: the runs of Table 1.

    python -m big_crop.train --workdir DIR --config \
      configs/cropmix/cifar.py:model=preact_resnet-18,data=cifar10,area_min=1

https://arxiv.org/abs/2205.15955, section 4.1: 300 epochs of SGD, learning rate
0.1, divided by 10 after each third of the run, batches of 100, weight decay
1e-4 on every parameter, random flips and no other augmentation. All of this but
the epochs, SGD and the flip is from the authors' code. Test top-1 error at the
best epoch, mean of 5 runs, of PreResNet18 on CIFAR-10: 4.92 with CropMix, 5.50
with `crop=inception_crop_fixed` (RRC in the paper), both for area_min=1.
docs/cropmix.md has the other numbers, and why not to expect them.

Arguments, besides `big_crop.recipes.ARGUMENTS` and `CROPMIX`:

    model     preact_resnet-18, xception-cifar, densenet-121, resnet-x50_32x4d,
              wide_resnet-28-10, small_vit, swin-cifar, resnet-18
    data      cifar10, cifar100, another TFDS dataset, a folder of class folders
              or packed data
    crop      cropmix, inception_crop_fixed or another crop op
    area_min  percent: 75, 25, 1
    num, mix, alpha, permute  of CropMix; the paper has num=2
    res       pixels of the model's input (32)
    width     channels of a ResNet's first stage, to make it small
    small_stem  False: a ResNet-18 with ImageNet's stem, in a fifth of the time
    engine    tf.data, or device, for packed data
"""

from big_crop import recipes

# Arguments that some models need for images of 32 pixels.
SMALL = {
  "densenet-121": dict(small_stem=True),
  "resnet-18": dict(small_stem=True),
  "resnet-x50_32x4d": dict(small_stem=True, grouped_reduce=True),
}
NORM = "vgg_value_range((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))"


def get_config(arg=None):
  arg = recipes.parse_cropmix(
    arg,
    model="preact_resnet-18",
    data="cifar10",
    num="2",
    area_min=1.0,
    res=32,
    epochs=300.0,
    batch=100,
    warmup_epochs=0.0,
    interpolation="bilinear",
    test_crop=1.0,
    width=None,
    small_stem=True,
    engine="tf.data",
  )
  c = recipes.start(arg)
  recipes.set_model(c, arg, zero_init_last=False)
  if arg.small_stem:
    c.model.update(SMALL.get(arg.model, {}))
  if arg.width:
    c.model.width = arg.width

  c.input.engine = arg.engine
  c.input.pp = f'{recipes.cropped(arg)}|{NORM}|keep("image", "label")'
  recipes.sgd(c, arg, batch=100, wd=1e-4, **recipes.steps(arg.epochs / 3))
  recipes.add_evals(c, arg, arg.interpolation, NORM)
  del c.evals.val.log_percent
  c.evals.val.log_epochs = 1.0
  return c
