"""Update rules and clipping against NumPy transcriptions of their papers."""

import functools

import jax
import numpy as np
import optax
import optim_helpers as helpers
import pytest

from big_crop import optim, trees
from big_crop.optim import agc, factories, layout, scaling
from big_crop.runtime import sharding

norm = lambda x, axis=None: np.sqrt((x * x).sum(axis))


def adam(g, s, t, b1, b2, eps):
  """Kingma and Ba, Algorithm 1: the mean and its divisor."""
  s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
  s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
  root = np.sqrt(s["v"] / (1 - b2**t)) + eps
  return s["m"] / (1 - b1**t), root * np.ones_like(g)


def lamb(name, p, g, s, t, lr, wd, always=False):
  """You et al., Algorithm 2."""
  m, root = adam(g, s, t, 0.9, 0.999, 1e-6)
  u = m / root + wd * p
  ratio = norm(p) / norm(u) if norm(p) > 0 and norm(u) > 0 else 1.0
  if not (wd or always):
    ratio = 1.0
  return p - lr * ratio * u


def lars(name, p, g, s, t, lr, wd):
  """You, Gitman, Ginsburg, Algorithm 1, with lr outside of the momentum."""
  ratio = 1.0
  if wd and norm(p) > 0 and norm(g) > 0:
    ratio = 0.1 * norm(p) / (norm(g) + wd * norm(p) + 1e-8)
  s["v"] = 0.9 * s.get("v", 0) + ratio * (g + wd * p)
  return p - lr * s["v"]


def adamp(name, p, g, s, t, lr, wd, ratio=0.1, nesterov=False):
  """Heo et al., Algorithm 2, for units and then for the whole."""
  m, root = adam(g, s, t, 0.9, 0.999, 1e-8)
  if nesterov:
    m = 0.9 * m + 0.1 * g / (1 - 0.9**t)
  u = m / root
  if p.ndim > 1 and not name.endswith("bias"):
    units = functools.partial(helpers.as_matrix, name)
    for matrix in (units, lambda x: x.reshape(-1, 1)):
      w, grad = matrix(p), matrix(g)
      dot = np.abs((w * grad).sum(0))
      cosine = dot / (np.maximum(norm(w, 0), 1e-8) * norm(grad, 0) + 1e-30)
      if cosine.max() < 0.1 / np.sqrt(len(w)):
        unit = w / (norm(w, 0) + 1e-8)
        along = unit * (unit * matrix(u)).sum(0)
        u, wd = u - along.reshape(u.shape), wd * ratio
        s["projected"] = s.get("projected", 0) + 1
        break
  return p - lr * (u + wd * p)


def rmsprop_tf(name, p, g, s, t, lr, wd, eps=1e-3):
  """The docstring of TensorFlow 1's RMSPropOptimizer, and an L2 penalty."""
  g = g + wd * p
  s["ms"] = 0.9 * s.get("ms", 1.0) + 0.1 * g * g
  s["mom"] = 0.9 * s.get("mom", 0.0) + lr * g / np.sqrt(s["ms"] + eps)
  return p - s["mom"]


def nesterov_sgd(name, p, g, s, t, lr, wd, clip=None):
  """Sutskever et al., as PyTorch has it; AGC by Brock et al., equation 3."""
  if clip and not name.startswith("head"):
    w, grad = helpers.as_matrix(name, p), helpers.as_matrix(name, g)
    most = clip * np.maximum(norm(w, 0), 1e-3)
    size = norm(grad, 0)
    scale = np.where(size > most, most / np.maximum(size, 1e-30), 1.0)
    g = (grad * scale).reshape(g.shape)
  g = g + wd * p
  s["v"] = 0.9 * s.get("v", 0) + g
  return p - lr * (g + 0.9 * s["v"])


IN_RULE, IN_GRADIENT = {"wd_in": "rule"}, {"wd_in": "gradient"}
SGD = {"optax_name": "trace", "optax": {"decay": 0.9, "nesterov": True}}
CASES = {
  "lamb": ({"optax_name": "scale_by_lamb"} | IN_RULE, lamb),
  "lamb, all adapted": (
    {
      "optax_name": "scale_by_lamb",
      "optax": {"always_adapt": True},
    }
    | IN_RULE,
    functools.partial(lamb, always=True),
  ),
  "lars": (
    {"optax_name": "scale_by_lars", "optax": {"trust_coefficient": 0.1}}
    | IN_RULE,
    lars,
  ),
  "adamp": ({"optax_name": "scale_by_adamp"} | IN_RULE, adamp),
  "adamp, Nesterov": (
    {
      "optax_name": "scale_by_adamp",
      "optax": {"wd_ratio": 0.01, "nesterov": True},
    }
    | IN_RULE,
    functools.partial(adamp, ratio=0.01, nesterov=True),
  ),
  "rmsprop_tf": (
    {"optax_name": "scale_by_rmsprop_tf", "optax": {"eps": 1e-3}} | IN_GRADIENT,
    rmsprop_tf,
  ),
  "sgd": (SGD | IN_GRADIENT, nesterov_sgd),
  "sgd, agc": (
    SGD | IN_GRADIENT | {"agc": 0.3, "agc_exclude": ["head/.*"]},
    functools.partial(nesterov_sgd, clip=0.3),
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_in_numpy(case):
  rule, reference = CASES[case]
  start = helpers.parameters()
  params = {name: p.astype(np.float64) for name, p in start.items()}
  state = {name: {} for name in params}
  for step, (grads, got) in enumerate(helpers.run(rule)):
    for name, p in params.items():
      lr = helpers.LR * helpers.mult(name, helpers.LR_MULTS)
      wd = helpers.WD * helpers.mult(name, helpers.WD_MULTS)
      params[name] = reference(
        name,
        p,
        grads[name].astype(np.float64),
        state[name],
        step + 1,
        lr * helpers.factor(step),
        wd,
      )
    helpers.assert_same_steps(got, params, start)
  if case.startswith("adamp"):
    times = {name: s.get("projected", 0) for name, s in state.items()}
    assert times["units/kernel"] == times["whole/kernel"] == helpers.STEPS
    assert times["pointwise/kernel"] < helpers.STEPS


@pytest.mark.parametrize("wd_in", ["gradient", "rule"])
def test_frozen_parameters(wd_in):
  """They are not decayed, and neither clipping nor the state has them."""
  schedule = [("(query|out)/.*", None), (".*", {})]
  rule = {"optax_name": "scale_by_lamb", "wd_in": wd_in, "agc": 0.1}
  rule |= {"optax": {"always_adapt": True}, "schedule": schedule}
  rule |= {"agc_exclude": ["head/.*", "query/.*"]}
  if wd_in == "gradient":
    rule |= {"optax_name": "scale_by_rmsprop_tf", "optax": {}}
  start = helpers.parameters()
  *_, (_, got) = helpers.run(rule)
  same = {n for n in got if np.array_equal(got[n], start[n])}
  assert {n for n in same if start[n].any()} == {
    n for n in got if n.startswith(("query", "out"))
  }
  state = helpers.make(rule).init(helpers.nest(start))
  assert not [n for n, _ in trees.named_leaves(state) if "query" in n]


def test_units_of_every_layout():
  axes = {
    name: layout.input_axes(name, len(shape))
    for name, shape in helpers.SHAPES.items()
  }
  assert axes["conv/kernel"] == axes["pointwise/kernel"] == (0, 1, 2)
  assert axes["query/kernel"] == axes["whole/kernel"] == (0,)
  assert axes["out/kernel"] == axes["query/bias"] == (0, 1)
  assert axes["pos_embedding"] == (0, 1, 2)
  assert axes["norm/scale"] == (0,)
  # Equal to optax's clipping where optax finds the same units.
  params, grads = (
    helpers.parameters(),
    helpers.gradients(0, helpers.parameters()),
  )
  ours, theirs = agc.adaptive_grad_clip(0.2), optax.adaptive_grad_clip(0.2)
  for name in ("conv/kernel", "whole/kernel", "query/kernel", "norm/scale"):
    tree = lambda x, name=name: helpers.nest({name: x[name]})
    (a,), (b,) = (
      jax.tree.leaves(tx.update(tree(grads), tx.init({}), tree(params))[0])
      for tx in (ours, theirs)
    )
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert np.abs(a - grads[name]).max() > 0.1


STATES = {
  "scale_by_lamb": {"mu", "nu"},
  "scale_by_adamp": {"mu", "nu"},
  "scale_by_lars": {"trace"},
  "scale_by_rmsprop_tf": {"nu", "trace"},
}


@pytest.mark.parametrize("name", STATES)
def test_states_are_sharded_as_their_parameters_and_steps_stay(name):
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  make = lambda: {
    "body": {"kernel": normal(64, 512), "bias": normal(512)},
    "head": {"kernel": normal(512, 16), "scale": normal(1)},
  }
  params, grads = make(), make()
  decay = "gradient" if name == "scale_by_rmsprop_tf" else "rule"
  config = {"optax_name": name, "lr": 0.1, "wd": 0.1, "wd_in": decay}
  config |= {"agc": 0.1, "schedule": {"lr_noise": (0.0, 1.0), "per": "epoch"}}
  tx, _ = optim.make(config, params, total_steps=10, batch_size=1, data_size=1)

  def step(params, state):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  mesh = sharding.make_mesh([("data", -1)])
  shapes = jax.eval_shape(lambda: (params, tx.init(params)))
  names = [name for name, _ in trees.named_leaves(params)]
  shardings = sharding.infer_sharding(
    shapes, mesh, [(".*", "fsdp(min_size_to_shard_mb=0.01)")], names
  )
  split = {leaf for leaf, s in trees.named_leaves(shardings) if any(s.spec)}
  kinds = {
    p for leaf in split for p in leaf.split("/")[1:] if p in STATES[name]
  }
  assert kinds == STATES[name]
  assert len(split) == 2 * (1 + len(kinds))
  one = jax.jit(step)(params, tx.init(params))
  many = jax.jit(step, out_shardings=shardings)(
    *jax.device_put((params, tx.init(params)), shardings)
  )
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_scaled_lr():
  """Table 10's learning rates, from those of Tables 11 to 13."""
  assert scaling.scaled_lr(0.0225, 2048) == pytest.approx(0.18)
  assert scaling.scaled_lr(0.11, 2048) == pytest.approx(0.88)
  d = scaling.scaled_lr(0.0027, 384, rule="sqrt")
  assert d == pytest.approx(0.0033, abs=5e-5)
  assert scaling.scaled_lr(0.1, 128, base=512) == 0.025
  with pytest.raises(ValueError, match="did you mean 'linear'"):
    scaling.scaled_lr(0.1, 512, rule="linaer")


@pytest.mark.parametrize(
  ("change", "match"),
  [
    ({"wd_in": "rul"}, "unknown config.wd_in 'rul': did you mean 'rule'"),
    ({"wd_in": "rule"}, "scale_by_adam has no weight decay; use 'gradient' or"),
    ({"optax": {"weight_decay": 0.1}}, "optax.weight_decay: set config.wd"),
    ({"optax_name": "scale_by_lamb"}, "none has any: set config.wd and"),
    (
      {"optax_name": "scale_by_lars", "wd_in": "rule", "wd": 0.0},
      "or config.optax.always_adapt",
    ),
    ({"optax_name": "scale_by_rmsprop_tf"}, "take the decay in; use 'grad"),
    ({"agc": 0.1, "grad_clip_norm": 1.0}, "are set; keep one"),
    ({"agc": 0.0}, "config.agc is 0.0, but must be > 0"),
    ({"agc": 0.1, "agc_exclude": ["hed/.*"]}, "agc_exclude: 'hed/.*' matches"),
  ],
)
def test_bad_config(change, match):
  config = {"optax_name": "scale_by_adam"} | change
  with pytest.raises(ValueError, match=match) as e:
    helpers.make(config)
  assert "\n" not in str(e.value)


def test_weight_decay_is_no_argument_to_type():
  with pytest.raises(ValueError) as e:
    factories.build("scale_by_adamp", {"beta": 1})
  assert "weight_decay" not in str(e.value)
