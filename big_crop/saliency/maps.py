"""Saliency maps of a class logit, and how sparse they are.

Three maps of "You May Be Running the Wrong Inception Crop", section 6.3, for
the logit y^c of a target class c:

  gradient   the rectified gradient, equation (1): g_ij = max(0, sum_k dy^c /
             da_ijk) over the pixels a_ijk. One value per pixel.
  gradcam    Grad-CAM (Selvaraju et al., https://arxiv.org/abs/1610.02391,
             equations 1 and 2) at the last layer: with its activations A^k,
             alpha_k = mean_ij dy^c / dA^k_ij, L_ij = max(0, sum_k alpha_k
             A^k_ij).
  relevance  layer-wise relevance of the last layer's tokens (LRP; Bach et al.,
             https://doi.org/10.1371/journal.pone.0130140; Binder et al.,
             https://arxiv.org/abs/1604.00825). Signed: what each token adds to
             the logit.

A model's method `last_layer()` names its last layer; it returns a
`big_crop.models.common.LastLayer`. Our models take the output of the last
block: in a ViT the residual stream before the final norm, in a ResNet layer4.
The paper does not say whether it takes the block's input or output.

How the relevance is computed: let z_n be the N tokens after the final norm,
which are then averaged. The logit y^c = mean_n(w_c . z_n) + b_c is linear in
them. LRP-0 through head and pooling gives token n the relevance w_c . z_n / N.
The bias b_c belongs to no token more than to another and is shared equally:

  R_n = (w_c . z_n + b_c) / N,   sum_n R_n = y^c.

Propagating further through the final norm would not change R_n, because the
norm acts on each token separately (with its statistics held constant and its
bias assigned to the token): the relevance of a token stays with this token.
Unlike in Grad-CAM, each token is weighted by its own normalisation and its own
channels, and its relevance may be negative.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_crop import names
from pp_ops.errors import UserError

KINDS = ("gradient", "gradcam", "relevance")


def _why_not(model: nn.Module, kind: str) -> str | None:
  """Why a model does not support a kind of map, or None if it does."""
  if kind == "gradient":
    return None
  if not hasattr(model, "last_layer"):
    return (
      "needs a model with a method last_layer() (see big_crop.models), which "
      f"{type(model).__name__} lacks"
    )
  return model.last_layer().missing.get(kind)


def choose_kinds(
  model: nn.Module, maps: Sequence[str] | None
) -> tuple[str, ...]:
  """Checks the kinds of maps asked for.

  Args:
    model: the model.
    maps: some of `KINDS`; None for all that the model supports.

  Returns:
    The kinds, in the order of `KINDS`.

  Raises:
    ValueError: for an empty list, an unknown kind, or one that the model does
      not support.
  """
  if maps is None:
    return tuple(k for k in KINDS if _why_not(model, k) is None)
  if not maps or isinstance(maps, str):
    raise UserError(f"maps is {maps!r}: need a list of {', '.join(KINDS)}")
  for kind in maps:
    names.check("maps", kind, KINDS)
    if reason := _why_not(model, kind):
      raise UserError(f"map {kind!r}: {reason}")
  return tuple(k for k in KINDS if k in maps)


def make_maps(
  model: nn.Module, kinds: Sequence[str]
) -> Callable[..., tuple[dict[str, jax.Array], jax.Array]]:
  """Returns a function that computes maps, to be jitted.

  One forward and at most one backward pass serve all kinds.

  Args:
    model: the model.
    kinds: what `choose_kinds` returned.

  Returns:
    (variables, image [B, H, W, C], label [B] int) -> maps by kind, and the
    logits [B, classes]. The maps are float32, or float64 where the model is:
    "gradient" [B, H, W] >= 0; "gradcam" [B, h, w] >= 0, on the grid of the last
    layer; "relevance" [B, h, w], signed, with the label's logit as its sum.
  """
  # The kind "gradient" does not need the last layer, so it works with models
  # that have no last_layer().
  layer = model.last_layer() if set(kinds) - {"gradient"} else None
  path = layer.module if layer else None

  def compute(variables, image, label):
    def forward(image, shift):
      found = []
      with nn.intercept_methods(_shifted(path, shift, found)):
        logits, out = model.apply(variables, image, train=False)
      # Each logit depends only on its own image, so the gradient of the sum
      # contains the gradient of each.
      target = jnp.take_along_axis(logits, label[:, None], axis=1).sum()
      return target, (logits, out, found)

    shift = None
    if "gradcam" in kinds:
      _, (*_, found) = jax.eval_shape(forward, image, None)
      if len(found) != 1:
        raise UserError(
          f"{type(model).__name__}.last_layer() names the module "
          f"{layer.module!r}, which the model calls {len(found)} times, not "
          "once."
        )
      shift = jnp.zeros_like(found[0])
    # XLA removes the gradients that no map below uses.
    (d_image, d_last), (logits, out, found) = jax.grad(
      forward, argnums=(0, 1), has_aux=True
    )(image, shift)

    maps = {}
    if "gradient" in kinds:
      maps["gradient"] = nn.relu(d_image.sum(-1))
    if "gradcam" in kinds:
      maps["gradcam"] = _gradcam(found[0], d_last)
    if "relevance" in kinds:
      head = variables["params"]["head"]
      maps["relevance"] = _relevance(out[layer.pooled], head, label)
    for kind in maps.keys() - {"gradient"}:
      maps[kind] = _on_grid(maps[kind], layer.patch_size, image)
    return maps, logits

  return compute


def _shifted(path, shift, found):
  """An interceptor that adds `shift` to the output of the module at `path`.

  With a shift of zeros, the gradient with respect to the shift is the gradient
  with respect to the layer's output, so that models need no code for it. The
  module's outputs are appended to the list `found`.
  """

  def intercept(call, args, kwargs, context):
    y = call(*args, **kwargs)
    if context.method_name != "__call__":
      return y
    if "/".join(context.module.path) != path:
      return y
    last, *rest = y if isinstance(y, tuple) else (y,)
    if shift is not None:
      last = last + shift
    found.append(last)
    return (last, *rest) if isinstance(y, tuple) else last

  return intercept


def _on_grid(x, patch_size, image):
  """[B, N] or [B, h, w] -> [B, h, w]."""
  if x.ndim == 3:
    return x
  height, width = patch_size
  return x.reshape(len(x), image.shape[1] // height, image.shape[2] // width)


def _gradcam(activation, gradient):
  """Grad-CAM from activation and gradient, both [B, ..., D] -> [B, ...]."""
  dtype = jnp.promote_types(activation.dtype, jnp.float32)
  activation, gradient = activation.astype(dtype), gradient.astype(dtype)
  places = tuple(range(1, activation.ndim - 1))
  alpha = gradient.mean(places, keepdims=True)
  return nn.relu((alpha * activation).sum(-1))


def _relevance(pooled, head, label):
  """The relevance R_n of each position of `pooled`: [B, ..., D] -> [B, ...]."""
  weights, bias = head["kernel"][:, label].T, head["bias"][label]
  dtype = jnp.promote_types(pooled.dtype, weights.dtype)
  of_token = jnp.einsum("b...d,bd->b...", pooled.astype(dtype), weights)
  bias = bias.reshape(-1, *[1] * (of_token.ndim - 1))
  return (of_token + bias) / math.prod(of_token.shape[1:])


def entropy(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Entropy of each map, normalised to a distribution: equation (2).

  S = -sum_ij p_ij log p_ij with p = m / sum_ij m and 0 log 0 = 0, in nats; at
  most log(h * w), which is 10.82 for 224 x 224 and 5.28 for 14 x 14.

  A distribution has no negative entries, so negative relevances, which are
  evidence against the class, are set to zero first, as equation (1) does with
  the gradient. The paper does not say what it does with negative relevances.
  The alternative, the absolute value, would count them as evidence for the
  class.

  Args:
    maps: [B, h, w] float.

  Returns:
    [B] float, the entropies; and [B] bool, True for maps with no value above
    zero. Those have no entropy; the 0 in its place must be left out of
    averages.
  """
  maps = nn.relu(maps)
  total = maps.sum((1, 2), keepdims=True)
  empty = total == 0
  p = maps / jnp.where(empty, 1, total)
  return jax.scipy.special.entr(p).sum((1, 2)), empty[:, 0, 0]
