"""Scion: steps that are steepest in a norm chosen for each layer.

Pethick et al., "Training Deep Learning Models with Norm-Constrained LMOs"
(https://arxiv.org/abs/2502.07529), the constrained variant, as appendix I of
"You May Be Running the Wrong Inception Crop" restates it: with momentum alpha,
learning rate gamma_l and weight decay lambda_l of layer l,

    m_l <- (1 - alpha) m_l + alpha g_l
    theta_l <- theta_l + gamma_l (-lambda_l theta_l + lmo_l(m_l))

`scale_by_scion` computes the momentum and the linear minimisation oracle, lmo.
`optim.make` does the rest: gamma_l is `lr` times `lr_mults`, and gamma_l
lambda_l is `wd` times `wd_mults`.

The lmos are those of the appendix's Table 17, written for Flax's kernels
[d_in, d_out], the transposes of the table's matrices A. Kernels of more axes
are reshaped to matrices: a convolution's to [height * width * channels, d_out],
those of attention's query, key and value to [d, heads * head_dim] each, and
that of its output to [heads * head_dim, d].

Scion's published code (https://github.com/LIONS-EPFL/scion, examples/deit) has
the same update, but treats two kernels differently. Query, key and value are
one matrix [d, 3 d] there, orthogonalised as a whole and multiplied by sqrt(3).
The patchifier of k x k pixels is a convolution there, with d_in the number of
channels and a factor 1 / k^2 outside of the root, so that its lmo is 1 / k of
Table 17's: `config.lr_mults = [("embedding/kernel", 1 / 16), ...]` makes the
same step. That code orthogonalises by five steps of Muon's polynomial, which
bring singular values above 1% of the Frobenius norm to [0.68, 1.13].
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from big_crop import names, trees
from big_crop.optim import layout
from big_crop.optim.factories import register
from pp_ops.errors import UserError

# Muon's quintic (https://kellerjordan.github.io/posts/muon) multiplies small
# singular values by 3.4. Twelve steps bring those above 1e-6 to [0.68, 1.13],
# from where the classical quintic converges with order 3.
_NS_COEFFICIENTS = 12 * [(3.4445, -4.7750, 2.0315)] + 2 * [
  (15 / 8, -10 / 8, 3 / 8)
]

LMOS_OF_VIT = (
  ("head/kernel", "sign"),
  (".*/kernel", "spectral"),
  (".*/(bias|scale)", "bias"),
)


def newton_schulz(x: jax.Array) -> jax.Array:
  """The orthogonal factor of an [m, n] matrix, by matrix products alone.

  The orthogonal factor is U V^T of the reduced SVD x = U S V^T. Singular values
  above 1e-6 of the Frobenius norm become 1 +- 1e-3; zero stays zero.
  """
  tall = x.shape[0] > x.shape[1]
  if tall:
    x = x.T
  # First divide by the maximum, because the Frobenius norm squares the entries,
  # and squares of numbers below 1e-19 underflow.
  for norm in (lambda x: jnp.abs(x).max(), jnp.linalg.norm):
    size = norm(x)
    x = x / jnp.where(size > 0, size, 1)

  def step(x, coefficients):
    a, b, c = coefficients
    square = x @ x.T
    return a * x + (b * square + c * square @ square) @ x, None

  with jax.default_matmul_precision("highest"):
    x, _ = jax.lax.scan(step, x, jnp.array(_NS_COEFFICIENTS, x.dtype))
  return x.T if tall else x


def sign(m: jax.Array) -> jax.Array:
  """-sign(m) / d_in: it has norm 1 in d_in max |A_ij|."""
  return -jnp.sign(m) / m.shape[0]


def spectral(m: jax.Array) -> jax.Array:
  """-sqrt(d_out / d_in) U V^T: norm 1 in sqrt(d_in / d_out) max sigma."""
  d_in, d_out = m.shape
  return -((d_out / d_in) ** 0.5) * newton_schulz(m)


def bias(m: jax.Array) -> jax.Array:
  """-m / RMS(m): it has root mean square 1, or is 0 if m is 0."""
  size = jnp.abs(m).max()
  m = m / jnp.where(size > 0, size, 1)
  rms = jnp.sqrt(jnp.mean(jnp.square(m)))
  return -m / jnp.where(rms > 0, rms, 1)


LMOS = {"sign": sign, "spectral": spectral, "bias": bias}


@register("scale_by_scion")
def scale_by_scion(
  momentum: float = 0.1,
  lmos: Sequence[tuple[str, str]] | None = None,
  split_outputs: Sequence[str] | None = None,
) -> optax.GradientTransformation:
  """-lmo_l of the momentum: an ascent direction of norm 1.

  Args:
    momentum: alpha, the weight of the new gradient, in (0, 1].
    lmos: (regex, name) pairs over parameter names; the first match wins. Names
      are `sign` and `spectral`, for kernels, and `bias`, for any parameter,
      which is then taken as one vector. The default, `LMOS_OF_VIT`, is the
      paper's choice for a ViT without learnt positions: sign for the head,
      spectral for the patchifier and all hidden matrices, bias for biases and
      for the scales of norms.
    split_outputs: given by `optim.make`.

  Returns:
    The transformation.
  """
  if not 0 < momentum <= 1:
    raise UserError(
      f"config.optax.momentum is {momentum}, but must be in (0, 1]: it is the"
      " weight of the new gradient."
    )
  rules = LMOS_OF_VIT if lmos is None else lmos
  for _, lmo in rules:
    names.check("lmo in config.optax.lmos", lmo, LMOS)

  def lmo_of_each(params):
    leaves = trees.named_leaves(params)
    matches = trees.first_match(
      [name for name, _ in leaves],
      rules,
      "config.optax.lmos",
      all_used=lmos is not None,
    )
    for name, leaf in leaves:
      if name not in matches:
        raise UserError(
          f"config.optax.lmos: no pattern matches {name!r}; add (regex, lmo)"
          f" with one of {', '.join(LMOS)}."
        )
      if leaf.ndim < 2 and rules[matches[name]][1] != "bias":
        raise UserError(
          f"config.optax.lmos: {rules[matches[name]][1]} needs a matrix, but"
          f" {name!r} has shape {leaf.shape}; use bias."
        )
    return {name: rules[index][1] for name, index in matches.items()}

  average = optax.ema(1 - momentum, debias=False)

  def init(params):
    lmo_of_each(params)
    return average.init(params)

  def update(gradients, state, params=None):
    del params
    moments, state = average.update(gradients, state)
    chosen = lmo_of_each(moments)

    def direction(name, m):
      lmo = LMOS[chosen[name]]
      split = layout.splits_output(name, split_outputs)
      x = m.reshape(-1) if lmo is bias else _as_matrix(m, split)
      return -lmo(x).reshape(m.shape)

    return trees.map_with_names(direction, moments), state

  return optax.GradientTransformation(init, update)


def _as_matrix(kernel: Any, split: bool) -> Any:
  if split:
    return kernel.reshape(kernel.shape[0], -1)
  return kernel.reshape(-1, kernel.shape[-1])
