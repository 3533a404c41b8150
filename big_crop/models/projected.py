"""A backbone with a projection head, as contrastive learning trains it."""

import functools

import flax.linen as nn

from big_crop.models import common, convolution


class Projected(nn.Module):
  """A backbone with an MLP in place of its own head.

  The MLP is the one that AsymSiam (arXiv:2203.16822) trains MoCo v2 with: a
  hidden layer of width `hidden` with batch norm, another without, and `out`
  outputs. The backbone's parameters have the same names as without the MLP, so
  that other runs can start from them; the MLP's are below "projector".

  Attributes:
    backbone: a model with num_classes=0.
    hidden: width of the hidden layers.
    out: width of the output.
  """

  backbone: nn.Module
  hidden: int
  out: int

  beside = "projector"  # key of the parameters besides the encoder's

  def setup(self):
    nn.share_scope(self, self.backbone)
    self.projector = Projector(self.hidden, self.out)

  def __call__(self, image, *, train=False):
    """Projects images [B, H, W, 3] to float32 [B, out]."""
    x, _ = self.backbone(image, train=train)
    return self.projector(x, train=train)

  def encode(self, image):
    """The backbone's features [B, D], and its dict of activations."""
    return self.backbone(image)

  def last_layer(self):
    return self.backbone.last_layer()

  def torch_layers(self):
    """The backbone's names; no PyTorch checkpoint has this projector."""
    return self.backbone.torch_layers()


class Projector(nn.Module):
  """The MLP; see `Projected`."""

  hidden: int
  out: int

  @nn.compact
  def __call__(self, x, *, train):
    dense = functools.partial(nn.Dense, kernel_init=common.torch_linear)
    x = dense(self.hidden, name="fc1")(x)
    x = convolution.BatchNorm("float32", name="bn1")(x, train=train)
    x = dense(self.hidden, name="fc2")(nn.relu(x))
    return dense(self.out, name="fc3")(nn.relu(x))
