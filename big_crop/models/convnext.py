"""ConvNeXt, the same network as timm's and torchvision's.

Liu et al., "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545, Figure
4 and Table 9, with the authors' initial values.
"""

import flax.linen as nn
import jax.numpy as jnp

from big_crop.models import common, convolution, transformer

# Blocks and channels of each stage.
VARIANTS = {
  "T": dict(depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)),
  "S": dict(depths=(3, 3, 27, 3), widths=(96, 192, 384, 768)),
  "B": dict(depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024)),
}


class Block(nn.Module):
  """A residual branch: depthwise 7x7 convolution, layer norm, MLP, scale."""

  layer_scale: float
  drop_path: float
  dtype: str

  @nn.compact
  def __call__(self, x, *, train):
    width = x.shape[-1]
    y = convolution.Conv(
      width,
      kernel=7,
      stride=1,
      groups=width,
      dtype=self.dtype,
      use_bias=True,
      kernel_init=transformer.NORMAL,
      name="conv_dw",
    )(x)
    layers = transformer.Layers(
      mlp_dim=4 * width,
      num_heads=1,
      dtype=self.dtype,
      norm="layernorm",
      act="gelu_exact",
      weight_init="timm",
      dropout=0.0,
    )
    y = transformer.MlpBlock(layers, name="mlp")(
      layers.norm_layer(name="norm")(y)
    )
    init = nn.initializers.constant(self.layer_scale)
    y *= self.param("gamma", init, (width,)).astype(self.dtype)
    return x + convolution.drop_path(y, self.drop_path, train)


class ConvNeXt(nn.Module):
  """See `Model`."""

  num_classes: int
  depths: tuple[int, ...]
  widths: tuple[int, ...]
  layer_scale: float = 1e-6
  drop_path: float = 0.0
  dtype_mm: str = "float32"

  def last_layer(self):
    stage = len(self.depths)
    return common.LastLayer(
      f"stages_{stage - 1}_{self.depths[-1] - 1}",
      pooled=f"stage{stage}",
      missing={
        "relevance": "ConvNeXt's layer norm after the pooling is not linear in "
        "the pixels; use gradcam"
      },
    )

  def torch_layers(self):
    block = "stages_*_*"
    return [
      ("stem.0", "stem", "dense"),
      ("stem.1", "stem_norm", "layer_norm"),
      ("stages.*.downsample.0", "downsample_norm_*", "layer_norm"),
      ("stages.*.downsample.1", "downsample_*", "dense"),
      ("stages.*.blocks.*.gamma", f"{block}/gamma", "parameter"),
      ("stages.*.blocks.*.conv_dw", f"{block}/conv_dw", "dense"),
      ("stages.*.blocks.*.norm", f"{block}/norm", "layer_norm"),
      ("stages.*.blocks.*.mlp.fc1", f"{block}/mlp/Dense_0", "dense"),
      ("stages.*.blocks.*.mlp.fc2", f"{block}/mlp/Dense_1", "dense"),
      ("head.norm", "head_norm", "layer_norm"),
      ("head.fc", "head", "dense"),
    ]

  @nn.compact
  def __call__(self, image, *, train=False):
    rates = iter(common.drop_path_rates(self.drop_path, sum(self.depths)))
    norm = lambda name: nn.LayerNorm(dtype=self.dtype_mm, name=name)
    out = {}

    def patches(width, size, name):
      return nn.Conv(
        width,
        (size, size),
        (size, size),
        "VALID",
        dtype=self.dtype_mm,
        kernel_init=transformer.NORMAL,
        name=name,
      )

    x = patches(self.widths[0], 4, "stem")(image)
    x = out["stem"] = norm("stem_norm")(x)
    for i, (depth, width) in enumerate(
      zip(self.depths, self.widths, strict=True)
    ):
      if i:
        x = norm(f"downsample_norm_{i}")(x)
        x = patches(width, 2, f"downsample_{i}")(x)
      for j in range(depth):
        x = Block(
          self.layer_scale, next(rates), self.dtype_mm, name=f"stages_{i}_{j}"
        )(x, train=train)
      out[f"stage{i + 1}"] = x

    x = jnp.mean(x, (1, 2), dtype=common.accumulator(x.dtype))
    x = out["pre_logits"] = nn.LayerNorm(name="head_norm")(x)
    return common.head(x, self.num_classes, out, transformer.NORMAL)


def Model(num_classes, *, variant="T", **kw):
  """Builds a ConvNeXt.

  Calling it on images [B, H, W, 3] returns float32 logits [B, num_classes] and
  a dict of activations: "stem", "stage1" to "stage4" [B, h, w, c],
  "pre_logits" [B, c], "logits".

  Args:
    num_classes: size of the logits; 0 for no head: "pre_logits" is returned.
    variant: a name of `VARIANTS`; timm's and torchvision's convnext_tiny is
      "T".
    **kw: these override the variant:
      depths, widths: blocks and channels of each stage;
      layer_scale: initial value of the branches' learnt scales, 1e-6;
      drop_path: stochastic depth rate of the last block, see
        `common.drop_path_rates`; each example is drawn separately;
      dtype_mm: see `common.DTYPES`.

  Returns:
    A `ConvNeXt`.

  Raises:
    ValueError: an unknown variant, argument or choice.
  """
  return common.build_variant(ConvNeXt, num_classes, VARIANTS, variant, kw)
