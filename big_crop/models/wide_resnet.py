"""WRN-28-10 for images of 32 pixels, as CropMix's Table 1 has it.

Zagoruyko and Komodakis, "Wide Residual Networks",
https://arxiv.org/abs/1605.07146, in the form of the PyTorch code that CropMix
used: https://github.com/weiaicunzai/pytorch-cifar100, models/wideresidual.py.
Unlike in the paper, the convolutions have biases and dropout has rate 0.5.
All initial values are PyTorch's.
"""

from big_crop.models import common, preact_resnet

# WRN-d-k has (d - 4) / 6 blocks in each stage, and 16 k channels in the first.
VARIANTS = {"28-10": dict(depths=(4, 4, 4), stem=16, width=160)}


class WideResNet(preact_resnet.PreActResNet):
  """See `Model`."""

  norm_last: bool = True
  dropout: float = 0.5

  def torch_layers(self):
    blocks = []
    for i in range(1, 1 + len(self.depths)):
      blocks += preact_resnet.block_names(
        f"conv{i + 1}.*", f"layer{i}_*", conv2=6, shortcut="shortcut.0"
      )
    return [
      ("init_conv", "conv1", "dense"),
      *blocks,
      ("bn", "bn", "batch_norm"),
      ("linear", "head", "dense"),
    ]


def Model(num_classes, *, variant="28-10", **kw):
  """Builds a wide ResNet.

  Calls, activations and parameters are those of `preact_resnet.Model`, but
  there are three stages, and batch norm and ReLU come before the pooling
  instead of after the stem.

  Args:
    num_classes: size of the logits.
    variant: "28-10".
    **kw: these override the variant:
      depths: blocks of each stage, (4, 4, 4);
      stem, width: channels of the stem and of the first stage, 16 and 160;
      dropout: rate between the convolutions of a block, 0.5;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `WideResNet`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build_variant(WideResNet, num_classes, VARIANTS, variant, kw)
