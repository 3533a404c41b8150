"""Schedules and the optimiser chain against NumPy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from big_crop import optim, trees
from big_crop.optim import factories, schedules

SIZES = {"total_steps": 100, "batch_size": 50, "data_size": 500}


def params_and_grads(n=10):
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  make = lambda: {
    "embedding": {"kernel": normal(4, 3), "bias": normal(3)},
    "head": {"kernel": normal(3, 2), "bias": normal(2)},
  }
  return make(), [make() for _ in range(n)]


def run(config, params, grads, **sizes):
  tx, _ = optim.make(ConfigDict(config), params, **(SIZES | sizes))
  state = tx.init(params)

  @jax.jit
  def step(params, state, grad):
    updates, state = tx.update(grad, state, params)
    return optax.apply_updates(params, updates), state

  trajectory = []
  for grad in grads:
    params, state = step(params, state, grad)
    trajectory.append(params)
  return trajectory, state


def flat(tree):
  return dict(trees.named_leaves(tree))


@pytest.mark.parametrize(
  "config",
  [
    {},
    {"decay_type": "cosine", "warmup_steps": 7},
    {"decay_type": "linear", "warmup_percent": 0.1, "cooldown_steps": 20},
    {"decay_type": "rsqrt", "warmup_epochs": 2, "timescale": 50},
    {"decay_type": "rsqrt", "warmup_examples": 260, "cooldown_epochs": 1},
    {"decay_type": "constant", "cooldown_percent": 0.25},
  ],
)
def test_schedule_is_the_documented_formula(config):
  def duration(prefix):
    units = {"steps": 1, "examples": 1 / 50, "epochs": 10, "percent": 100}
    return sum(
      round(config.get(f"{prefix}_{u}", 0) * n) for u, n in units.items()
    )

  t, w, c = 100, duration("warmup"), duration("cooldown")

  def expected(s):
    q = (s - w) / (t - w)
    decay = {
      "cosine": (1 + np.cos(np.pi * q)) / 2,
      "linear": 1 - q,
      "rsqrt": 1 / np.sqrt(1 + max(s - w, 0) / config.get("timescale", 10_000)),
    }.get(config.get("decay_type"), 1.0)
    rise = min(1, s / w) if w else 1
    fall = min(1, (t - s) / c) if c else 1
    return (decay if s >= w else 1) * rise * fall

  fn = schedules.make(config, **SIZES)
  got = [fn(jnp.int32(s)) for s in range(t)]
  np.testing.assert_allclose(got, [expected(s) for s in range(t)], atol=1e-6)
  if w:
    assert got[0] == 0 and got[w] == 1


@pytest.mark.parametrize(
  ("config", "match"),
  [
    ({"decay_type": "cosin"}, "decay_type 'cosin': did you mean 'cosine'"),
    ({"warmup_step": 3}, "'warmup_step': did you mean 'warmup_steps'"),
    ({"decay_type": "cosine", "timescale": 3}, "'timescale'"),
    ({"warmup_steps": 1, "warmup_epochs": 1}, "warmup_steps and warmup_epochs"),
    ({"warmup_percent": 5}, r"warmup_percent is 5, but must be in \[0, 1\]"),
    ({"warmup_steps": -1}, "must be at least 0"),
    ({"warmup_steps": 101}, "101 .* do not fit into the run's 100"),
  ],
)
def test_bad_schedule(config, match):
  with pytest.raises(ValueError, match=match) as e:
    schedules.make(config, **SIZES)
  assert "\n" not in str(e.value)


def test_durations():
  steps = lambda **kw: schedules.to_steps(
    "total", kw, batch_size=50, data_size=500, total_steps=40
  )
  assert steps(total_steps=0) == 0
  assert steps(total_epochs=0.01) == 1
  assert steps(total_epochs=3) == 30
  assert steps(total_examples=260) == 5
  assert steps(total_percent=0.5) == 20
  assert steps(total_epochs=None) is None
  with pytest.raises(ValueError, match="total_epochs cannot be used"):
    schedules.to_steps("total", {"total_epochs": 3})


def test_ten_steps_of_adamw_in_numpy():
  params, grads = params_and_grads()
  config = {
    "optax_name": "scale_by_adam",
    "optax": {"b2": 0.95, "eps": 1e-6},
    "lr": 0.01,
    "wd": 0.02,
    "lr_mults": [("head/.*", 3.0)],
    "grad_clip_norm": 0.5,
    "schedule": {"decay_type": "cosine", "warmup_steps": 3},
  }
  got, _ = run(config, params, grads)

  p = {k: v.astype(np.float64) for k, v in flat(params).items()}
  m = dict.fromkeys(p, 0.0)
  v = dict.fromkeys(p, 0.0)
  for t, grad in enumerate(map(flat, grads)):
    f = t / 3 if t < 3 else (1 + np.cos(np.pi * (t - 3) / 97)) / 2
    norm = np.sqrt(
      sum((g.astype(np.float64) ** 2).sum() for g in grad.values())
    )
    for k, g in grad.items():
      g = g / max(1, norm / 0.5)
      m[k] = 0.9 * m[k] + 0.1 * g
      v[k] = 0.95 * v[k] + 0.05 * g**2
      mhat, vhat = m[k] / (1 - 0.9 ** (t + 1)), v[k] / (1 - 0.95 ** (t + 1))
      u = mhat / (np.sqrt(vhat) + 1e-6)
      lr = 0.01 * (3 if k.startswith("head") else 1)
      wd = 0.02 if k.endswith("kernel") else 0
      p[k] = p[k] - f * (lr * u + wd * p[k])
    for k, value in flat(got[t]).items():
      np.testing.assert_allclose(value, p[k], rtol=2e-6, atol=2e-6)


def test_same_as_torch_adamw():
  torch = pytest.importorskip("torch")
  params, grads = params_and_grads()
  tensors = {k: torch.tensor(v) for k, v in flat(params).items()}
  # PyTorch multiplies the decay by the learning rate; big_vision and we do not.
  adamw = torch.optim.AdamW(tensors.values(), lr=0.01, weight_decay=2.0)
  config = {"optax_name": "scale_by_adam", "lr": 0.01, "wd": 0.02}
  config["wd_mults"] = [(".*", 1.0)]
  got, _ = run(config, params, grads)
  for grad in map(flat, grads):
    for k, tensor in tensors.items():
      tensor.grad = torch.tensor(grad[k])
    adamw.step()
  for k, value in flat(got[-1]).items():
    np.testing.assert_allclose(value, tensors[k].numpy(), rtol=2e-6, atol=2e-6)


def test_weight_decay_is_not_scaled_by_the_learning_rate():
  params, grads = params_and_grads(1)
  config = {
    "optax_name": "identity",
    "lr": 0.0,
    "wd": 0.1,
    "wd_mults": [("head/kernel", 0.5), (".*/kernel", 1.0)],
    "schedule": {"decay_type": "linear"},
  }
  (got,), _ = run(config, params, grads)
  factor = {"head/kernel": 0.95, "embedding/kernel": 0.9}
  for name, value in flat(got).items():
    expected = flat(params)[name] * factor.get(name, 1.0)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_no_wd_mults_no_decay():
  params = params_and_grads()[0]
  given = {"optax_name": "scale_by_adam", "lr": 0.0, "wd": 0.1, "wd_mults": []}
  tx, _ = optim.make(given, params, **SIZES)
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(zeros, tx.init(params), params)
  assert all((x == 0).all() for x in jax.tree.leaves(updates))


def test_frozen_parameters_stay_and_cost_nothing():
  params, grads = params_and_grads(3)
  config = {
    "optax_name": "scale_by_adam",
    "lr": 0.1,
    "wd": 0.1,
    "grad_clip_norm": 1e-3,
    "schedule": [("embedding/.*", None), (".*", {"decay_type": "cosine"})],
  }
  got, state = run(config, params, grads)
  for name, value in flat(got[-1]["embedding"]).items():
    np.testing.assert_array_equal(value, params["embedding"][name])
  assert not np.allclose(got[-1]["head"]["bias"], params["head"]["bias"])
  assert not [n for n, _ in trees.named_leaves(state) if "embedding" in n]
  # Frozen parameters' gradients do not count in the norm for clipping either.
  config["schedule"] = {"decay_type": "cosine"}
  head_only = lambda tree: {"head": tree["head"]}
  alone, _ = run(config, head_only(params), list(map(head_only, grads)))
  assert trees.params_sha256(head_only(got[-1])) == trees.params_sha256(
    alone[-1]
  )
  mask = optim.frozen_mask(
    {"schedule": [("embedding/.*", None), (".*", {})]}, params
  )
  assert flat(mask) == {n: n.startswith("embedding") for n in flat(params)}


def test_a_schedule_for_each_pattern():
  params, grads = params_and_grads(1)
  config = {
    "optax_name": "identity",
    "lr": 1.0,
    "schedule": [
      ("head/.*", {}),
      (".*", {"decay_type": "cosine", "warmup_steps": 5}),
    ],
  }
  (got,), _ = run(config, params, grads)
  head = params["head"]["bias"] - grads[0]["head"]["bias"]
  np.testing.assert_allclose(got["head"]["bias"], head, rtol=1e-6)
  np.testing.assert_array_equal(
    got["embedding"]["bias"], params["embedding"]["bias"]
  )
  _, fns = optim.make(config, params, **SIZES)
  assert [float(fn(1)) for fn in fns] == [1.0, pytest.approx(0.2)]


def test_every_rule_goes_downhill():
  needed = {"trace": {"decay": 0.9}, "ema": {"decay": 0.9}}
  adapt = {"always_adapt": True}
  needed |= {"scale_by_lamb": adapt, "scale_by_lars": adapt}
  start = {"head": {"kernel": jnp.array([[1.0, -2.0], [3.0, 0.5]])}}
  for name in factories._FACTORIES:
    config = {"optax_name": name, "optax": needed.get(name, {}), "lr": 1e-3}
    got, _ = run(config, start, [start] * 3)  # the gradient of |p|^2 / 2
    assert optax.tree.norm(got[-1]) < optax.tree.norm(start), name


def test_register():
  @optim.register("test_rule")
  def test_rule(factor):
    return optax.scale(factor)

  params, grads = params_and_grads(1)
  config = {"optax_name": "test_rule", "optax": {"factor": 2.0}, "lr": 0.5}
  (got,), _ = run(config, params, grads)
  expected = params["head"]["bias"] - grads[0]["head"]["bias"]
  np.testing.assert_allclose(got["head"]["bias"], expected, rtol=1e-6)
  with pytest.raises(ValueError, match="exists already"):
    optim.register("trace")(test_rule)


@pytest.mark.parametrize(
  ("change", "match"),
  [
    ({"optax_name": "scale_by_adamm"}, "did you mean 'scale_by_adam'"),
    ({"lr": None}, "config.lr is missing"),
    ({"optax_name": "adam"}, "did you mean 'scale_by_adam'"),
    ({"optax": {"beta": 1}}, "'beta'; the arguments of scale_by_adam are: b1,"),
    ({"optax_name": "trace"}, "missing a required argument: 'decay'"),
    ({"schedule": [("head/.*", {})]}, "does not cover 'embedding/bias'"),
    ({"schedule": [("hed/.*", None), (".*", {})]}, "'hed/.*' matches no"),
    ({"schedule": [(".*", None)]}, "freezes every parameter"),
    ({"schedule": [("(", {})]}, "bad regex"),
    ({"lr_mults": [(".*", 1.0), ("head/.*", 2.0)]}, "earlier pattern"),
    ({"lr_mults": [("head/.*", 0.0)]}, "give the schedule None"),
    ({"wd_mults": [("head", 1.0)]}, "wd_mults: 'head' matches no parameter"),
    ({"wd_mults": ["head"]}, "not a .regex, value. pair"),
    ({"schedule": ["head/.*"]}, "schedule: 'head.*' is not a .regex, value."),
    ({"schedule": [".*"]}, "schedule: '..' is not a .regex, value. pair"),
    ({"grad_clip_norm": 0.0}, "must be > 0"),
  ],
)
def test_bad_config(change, match):
  config = {"optax_name": "scale_by_adam", "lr": 1e-3, "wd": 1e-4}
  with pytest.raises(ValueError, match=match) as e:
    optim.make(config | change, params_and_grads()[0], **SIZES)
  assert "\n" not in str(e.value)
