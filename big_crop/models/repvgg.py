"""RepVGG, whose training-time branches become one plain 3x3 convolution.

Ding et al., https://arxiv.org/abs/2101.03697, with timm's initial values,
because CropMix's code imports timm's `create_model`.

To re-parametrise a finished run, so that it computes the same logits faster:

    run = parts.open_run(workdir)
    model = run.objective.model.clone(deploy=True)
    variables = repvgg.reparametrise(run.variables)
    logits, _ = model.apply(variables, image)

`weights.to_torch(model, variables)` then gives the parameter names of timm's
model after its `reparameterize_model`, and a config with
`model=dict(variant="A2", deploy=True)` accepts such weights as `model_init`.
"""

import functools

import flax.linen as nn
import numpy as np
from flax import traverse_util

from big_crop.models import common, convolution

# Blocks and channels of each stage.
VARIANTS = {
  "A0": dict(depths=(2, 4, 14, 1), widths=(48, 96, 192, 1280)),
  "A1": dict(depths=(2, 4, 14, 1), widths=(64, 128, 256, 1280)),
  "A2": dict(depths=(2, 4, 14, 1), widths=(96, 192, 384, 1408)),
  "B0": dict(depths=(4, 6, 16, 1), widths=(64, 128, 256, 1280)),
  "B1": dict(depths=(4, 6, 16, 1), widths=(128, 256, 512, 2048)),
  "B2": dict(depths=(4, 6, 16, 1), widths=(160, 320, 640, 2560)),
  "B3": dict(depths=(4, 6, 16, 1), widths=(192, 384, 768, 2560)),
}


class Block(nn.Module):
  """relu(BN(3x3) + BN(1x1) + BN(identity)).

  The identity branch exists only where input and output have the same shape.
  """

  width: int
  stride: int
  deploy: bool
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    conv = functools.partial(
      convolution.Conv, self.width, stride=self.stride, dtype=self.dtype
    )
    norm = functools.partial(
      convolution.BatchNorm,
      dtype=self.dtype,
      scale_init=lambda *args: 0.1 + nn.initializers.normal(0.1)(*args),
      bias_init=nn.initializers.normal(0.1),
    )
    if self.deploy:
      return nn.relu(conv(kernel=3, use_bias=True, name="reparam")(x))
    y = norm(name="bn3x3")(conv(kernel=3, name="conv3x3")(x), train=train)
    y += norm(name="bn1x1")(conv(kernel=1, name="conv1x1")(x), train=train)
    if self.stride == 1 and x.shape[-1] == self.width:
      y += norm(name="identity")(x, train=train)
    return nn.relu(y)


class RepVGG(nn.Module):
  """See `Model`."""

  num_classes: int
  depths: tuple[int, ...]
  widths: tuple[int, ...]
  deploy: bool = False
  dtype_mm: str = "float32"

  def last_layer(self):
    stage = len(self.depths)
    return common.LastLayer(
      f"stages_{stage - 1}_{self.depths[-1] - 1}", pooled=f"stage{stage}"
    )

  def torch_layers(self):
    block = [
      ("conv_kxk.conv", "conv3x3", "conv"),
      ("conv_kxk.bn", "bn3x3", "batch_norm"),
      ("conv_1x1.conv", "conv1x1", "conv"),
      ("conv_1x1.bn", "bn1x1", "batch_norm"),
      ("identity", "identity", "batch_norm"),
      ("reparam_conv", "reparam", "dense"),
    ]
    return [
      *((f"stem.{a}", f"stem/{b}", kind) for a, b, kind in block),
      *((f"stages.*.*.{a}", f"stages_*_*/{b}", kind) for a, b, kind in block),
      ("head.fc", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    block = functools.partial(Block, deploy=self.deploy, dtype=self.dtype_mm)
    out = {}
    x = block(min(64, self.widths[0]), 2, name="stem")(image, train=train)
    out["stem"] = x
    for i, (depth, width) in enumerate(
      zip(self.depths, self.widths, strict=True)
    ):
      for j in range(depth):
        stride = 1 if j else 2
        x = block(width, stride, name=f"stages_{i}_{j}")(x, train=train)
      out[f"stage{i + 1}"] = x
    init = nn.initializers.normal(0.01)
    return convolution.classify(x, self.num_classes, out, init=init)


def reparametrise(variables):
  """Folds the branches of all blocks into one convolution each.

  Section 3.3 of the paper. A batch norm is folded into the convolution before
  it: the kernel is multiplied by scale / std, and the rest becomes a bias. A
  1x1 kernel is a 3x3 kernel that is zero around its centre, and the identity is
  a 1x1 kernel. The kernels of the branches are then summed.

  Args:
    variables: {"params": ..., "batch_stats": ...} of a `RepVGG`.

  Returns:
    {"params": ...} for the same model with `deploy=True`, as NumPy arrays.
  """
  params, stats = (
    {
      key: np.asarray(x, np.float64)
      for key, x in traverse_util.flatten_dict(variables[c], sep="/").items()
    }
    for c in ("params", "batch_stats")
  )

  def fold(kernel, norm):
    factor = params[f"{norm}/scale"] / np.sqrt(stats[f"{norm}/var"] + 1e-5)
    return kernel * factor, params[f"{norm}/bias"] - stats[
      f"{norm}/mean"
    ] * factor

  new = {key: x for key, x in params.items() if key.startswith("head/")}
  for block in {key.split("/")[0] for key in stats}:
    kernel, bias = fold(params[f"{block}/conv3x3/kernel"], f"{block}/bn3x3")
    branches = [(params[f"{block}/conv1x1/kernel"][0, 0], f"{block}/bn1x1")]
    if f"{block}/identity/mean" in stats:
      branches.append((np.eye(len(branches[0][0])), f"{block}/identity"))
    for pointwise, norm in branches:
      centre, more = fold(pointwise, norm)
      kernel[1, 1] += centre
      bias = bias + more
    new |= {f"{block}/reparam/kernel": kernel, f"{block}/reparam/bias": bias}
  dtype = variables["params"]["head"]["kernel"].dtype
  new = {key: x.astype(dtype) for key, x in new.items()}
  return {"params": traverse_util.unflatten_dict(new, sep="/")}


def Model(num_classes, *, variant="A2", **kw):
  """Builds a RepVGG.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "stage1" to "stage4" [B, h, w, c],
  "pre_logits" [B, c], "logits". Running statistics are in "batch_stats".

  Args:
    num_classes: size of the logits; 0 for no head: "pre_logits" is returned.
    variant: a name of `VARIANTS`; timm's repvgg_a2 is "A2".
    **kw: these override the variant:
      depths, widths: blocks and channels of each stage;
      deploy: one plain convolution per block, for weights from `reparametrise`;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `RepVGG`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build_variant(RepVGG, num_classes, VARIANTS, variant, kw)
