"""The masked autoencoder: a ViT sees some patches, a decoder predicts the rest.

He et al., "Masked Autoencoders Are Scalable Vision Learners",
https://arxiv.org/abs/2111.06377, section 3.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_crop.models import common, transformer, vit


class Decoder(nn.Module):
  """Predicts the pixels of every patch from the tokens of the visible ones.

  Attributes:
    width: channels of the decoder's tokens.
    depth: number of blocks.
    num_heads: attention heads of each block.
    patch_size: (height, width) in pixels.
    dtype: dtype of matrix products and the residual stream.
  """

  width: int
  depth: int
  num_heads: int
  patch_size: tuple[int, int]
  dtype: str

  @nn.compact
  def __call__(self, tokens, restore, grid):
    """Decodes.

    Args:
      tokens: [B, 1 + K, D], the encoder's output: the class token, then the K
        visible patches.
      restore: int [B, N]. restore[b, i] is the index of patch i in the order
        in which the K visible patches come first.
      grid: (rows, columns) of patches; rows * columns = N.

    Returns:
      float32 [B, N, height * width * 3], the pixels of each patch.
    """
    layers = transformer.Layers(
      mlp_dim=4 * self.width,
      num_heads=self.num_heads,
      dtype=self.dtype,
      norm="layernorm",
      act="gelu_exact",
      weight_init="mae",
      dropout=0.0,
    )
    matrix = transformer.INITS["mae"].matrix
    dense = lambda width, name, dtype: nn.Dense(
      width, dtype=dtype, kernel_init=matrix, name=name
    )
    x = dense(self.width, "embed", self.dtype)(tokens)
    mask_token = self.param(
      "mask_token", transformer.NORMAL, (1, 1, self.width)
    )
    missing = (len(x), restore.shape[1] + 1 - x.shape[1], self.width)
    hidden = jnp.broadcast_to(mask_token.astype(x.dtype), missing)
    patches = jnp.concatenate([x[:, 1:], hidden], axis=1)
    patches = jnp.take_along_axis(patches, restore[..., None], axis=1)
    x = jnp.concatenate([x[:, :1], patches], axis=1)
    x = (x + vit.sincos2d_mae(*grid, self.width, cls=True)).astype(x.dtype)
    x, _ = transformer.Encoder(layers, self.depth, 0.0, name="Transformer")(
      x, train=False
    )
    height, width = self.patch_size
    dtype = common.accumulator(self.dtype)
    return dense(height * width * 3, "pred", dtype)(x)[:, 1:]


class MAE(nn.Module):
  """A ViT encoder without a head, and a decoder.

  The encoder's parameters have the same names as in a plain `vit`, so that a
  `vit` can be finetuned from them. The decoder's are below "decoder".

  Attributes:
    encoder: a `vit.ViT` with a class token and no head.
    decoder: predicts pixels from the encoder's tokens.
  """

  encoder: vit.ViT
  decoder: Decoder

  beside = "decoder"  # key of the parameters besides the encoder's

  def setup(self):
    nn.share_scope(self, self.encoder)

  def grid(self, image):
    """(rows, columns) of patches of images [B, H, W, 3]."""
    height, width = self.encoder.patch_size
    return image.shape[1] // height, image.shape[2] // width

  def __call__(self, image, noise, num_visible, *, train=False):
    """Hides the patches with the most noise and predicts all.

    Args:
      image: [B, H, W, 3] float.
      noise: [B, N] float.
      num_visible: K, the number of patches per image that the encoder sees.
      train: whether dropout and stochastic depth are on in the encoder.

    Returns:
      The predicted pixels, float32 [B, N, height * width * 3]; and the mask,
      float32 [B, N], 1 for a patch that the encoder did not see.
    """
    order = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(order, axis=1)
    tokens = self.encoder(image, train=train, keep=order[:, :num_visible])[1]
    pixels = self.decoder(tokens["encoded"], restore, self.grid(image))
    return pixels, (restore >= num_visible).astype(jnp.float32)

  def encode(self, image):
    """The encoder's outputs with all patches visible; see `vit.Model`."""
    return self.encoder(image)

  def torch_layers(self):
    """The names in the checkpoints that MAE's authors published."""
    rows = self.encoder.torch_layers()
    rows = [r for r in rows if r[0] not in ("head", "fc_norm")]
    heads = self.decoder.num_heads
    below = lambda x: (
      [f"decoder/{o}" for o in x] if isinstance(x, list) else f"decoder/{x}"
    )
    return [
      *rows,
      *(
        (f"decoder_{torch}", below(ours), kind, *(heads for _ in more))
        for torch, ours, kind, *more in rows
        if torch.startswith(("blocks.", "norm"))
      ),
      ("mask_token", "decoder/mask_token", "parameter"),
      ("decoder_pos_embed", "decoder/pos_embedding", "parameter"),
      ("decoder_embed", "decoder/embed", "dense"),
      ("decoder_pred", "decoder/pred", "dense"),
    ]


def patches(image: jax.Array, patch_size: tuple[int, int]) -> jax.Array:
  """Cuts images [B, H, W, C] into patches [B, N, height * width * C]."""
  height, width = patch_size
  b, h, w, c = image.shape
  x = image.reshape(b, h // height, height, w // width, width, c)
  return x.swapaxes(2, 3).reshape(b, -1, height * width * c)


def images(
  x: jax.Array, grid: tuple[int, int], patch_size: tuple[int, int]
) -> jax.Array:
  """The inverse of `patches`, for a grid of (rows, columns)."""
  height, width = patch_size
  x = x.reshape(len(x), *grid, height, width, -1).swapaxes(2, 3)
  return x.reshape(len(x), grid[0] * height, grid[1] * width, -1)
