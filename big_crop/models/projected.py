"""A backbone with a projection head, as contrastive learning trains it."""

import functools

import flax.linen as nn

from big_crop.models import common, convolution


class Projected(nn.Module):
  """A backbone without its own head, and an MLP in its place.

  The MLP is that of MoCo v2 as AsymSiam trains it (arXiv:2203.16822): a hidden
  layer of `hidden` with batch norm, another without, and `out` outputs. The
  backbone's parameters have the names that they have alone, so that others
  start from them; those of the MLP are below "projector".

  Attributes:
    backbone: a model with num_classes=0.
    hidden: width of the hidden layers.
    out: width of the output.
  """

  backbone: nn.Module
  hidden: int
  out: int

  beside = "projector"  # the parameters that are not the encoder's

  def setup(self):
    nn.share_scope(self, self.backbone)
    self.projector = Projector(self.hidden, self.out)

  def __call__(self, image, *, train=False):
    """float32 [B, out] for images [B, H, W, 3]."""
    x, _ = self.backbone(image, train=train)
    return self.projector(x, train=train)

  def encode(self, image):
    """The backbone's own outputs: the vector before a head, and others."""
    return self.backbone(image)

  def last_layer(self):
    return self.backbone.last_layer()

  def torch_layers(self):
    """The backbone's; the projector has no name elsewhere."""
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
