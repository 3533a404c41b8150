"""Step decay, floors, epochs and noise: closed forms, and timm's schedulers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats

from big_crop.optim import schedules

# 12.3 steps in an epoch, 30 epochs.
SIZES = {"batch_size": 100, "data_size": 1230, "total_steps": 369}
STARTS = [round(12.3 * epoch) for epoch in range(30)]


def factors(config, steps=range(369), **sizes):
  fn = jax.jit(schedules.make(ConfigDict(config), **(SIZES | sizes)))
  return np.array([fn(jnp.int32(s)) for s in steps])


def test_step_decay_in_any_unit():
  each = factors({"decay_type": "step", "decay_rate": 0.9, "decay_epochs": 2})
  drops = [round(24.6 * k) for k in range(1, 15)]
  expected = [0.9 ** sum(s >= d for d in drops) for s in range(369)]
  np.testing.assert_allclose(each, expected, rtol=1e-5)
  for unit, duration in (("steps", 24.6), ("examples", 2460)):
    config = {"decay_type": "step", "decay_rate": 0.9}
    same = factors(config | {f"decay_{unit}": duration})
    np.testing.assert_array_equal(same, each)


@pytest.mark.parametrize("total_steps", [0, 1, 3])
def test_a_run_of_few_steps_may_have_drops_in_percent(total_steps):
  drops = {"decay_type": "step", "decay_rate": 0.1, "decay_percent": 0.3}
  fn = schedules.make(drops, **(SIZES | {"total_steps": total_steps}))
  assert 0 < fn(0) <= 1


def test_he_et_al_and_goyal_et_al():
  """ImageNet at batch 256: drops to 0.1 at epochs 30 and 60, from step 0."""
  sizes = {"batch_size": 256, "data_size": 1_281_167, "total_steps": 450_410}
  steps = [0, 150_136, 150_137, 300_273, 300_274, 450_409]
  drops = [1, 1, 0.1, 0.1, 0.01, 0.01]
  step = {"decay_type": "step", "decay_rate": 0.1}
  got = factors(step | {"decay_epochs": 30}, steps, **sizes)
  np.testing.assert_allclose(got, drops, rtol=1e-6)
  step |= {"milestones_epochs": [30, 60], "warmup_epochs": 5}
  got = factors(step, steps, **sizes)
  np.testing.assert_allclose(got, [0, *drops[1:]], rtol=1e-6)
  assert factors(step, [25_023], **sizes) == [1]


def test_floor_and_first_factor():
  config = {"warmup_epochs": 3, "warmup_init": 0.25, "min_factor": 0.1}
  w, t = 37, 369
  s = np.arange(t)
  rise = 0.25 + 0.75 * s / w
  q = (s - w) / (t - w)
  cosine = 0.1 + 0.45 * (1 + np.cos(np.pi * q))
  for decay_type, decay in (("cosine", cosine), ("linear", 1 - 0.9 * q)):
    got = factors(config | {"decay_type": decay_type})
    expected = np.where(s < w, rise, decay)
    np.testing.assert_allclose(got, expected, atol=1e-6)
  # The warmup can also replace the decay's beginning.
  got = factors(config | {"decay_type": "cosine", "warmup_prefix": False})
  cosine = 0.1 + 0.45 * (1 + np.cos(np.pi * s / t))
  np.testing.assert_allclose(got, np.where(s < w, rise, cosine), atol=1e-6)


def test_per_epoch_is_the_factor_of_the_epochs_first_step():
  config = {"decay_type": "cosine", "warmup_epochs": 3, "cooldown_epochs": 2}
  config |= {"warmup_init": 0.0}
  every, held = factors(config), factors(config | {"per": "epoch"})
  first = [max(b for b in STARTS if b <= s) for s in range(369)]
  np.testing.assert_allclose(held, every[first], rtol=1e-6)
  assert len(set(held)) == 30
  assert held[STARTS[3]] == 1


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_noise(kind):
  config = {"lr_noise": (0.4, 0.9), "lr_noise_type": kind}
  sizes = {"batch_size": 1, "data_size": 2, "total_steps": 20_000}
  fn = schedules.make(ConfigDict(config), **sizes)
  noise = np.array(jax.lax.map(fn, jnp.arange(20_000))) - 1
  # Once for each epoch, and only in those epochs.
  np.testing.assert_array_equal(noise[::2], noise[1::2])
  noisy = np.flatnonzero(noise[::2])
  np.testing.assert_array_equal(noisy, np.arange(4000, 9000))
  noise = noise[8000:18_000:2]
  assert len(set(noise)) > 4990
  assert np.abs(noise).max() < 0.67
  expected = {
    "normal": stats.truncnorm(-0.67, 0.67),
    "uniform": stats.uniform(-0.67, 1.34),
  }[kind]
  assert stats.kstest(noise, expected.cdf).pvalue > 0.01
  # A function of seed and epoch alone, eager or not.
  for step in (8000, 17_999):
    jitted = float(jax.jit(fn)(jnp.int32(step)))
    assert fn(step) == pytest.approx(jitted, rel=1e-6)
  other = schedules.make(ConfigDict(config | {"lr_noise_seed": 1}), **sizes)
  assert other(8000) != fn(8000)


def test_noise_multiplies_whatever_the_schedule_is():
  config = {"decay_type": "step", "decay_rate": 0.988, "decay_epochs": 1}
  config |= {"warmup_epochs": 5, "warmup_init": 0.1}
  noise = {"lr_noise": [0.45, 1.0], "lr_noise_std": 0.05}
  flat = factors({"decay_type": "constant"} | noise)
  np.testing.assert_allclose(
    factors(config | noise), factors(config) * flat, rtol=1e-6
  )
  # Epoch 13 is the last that begins before 0.45 * 30 = 13.5.
  assert (flat[: STARTS[14]] == 1).all()
  assert (flat[STARTS[14] :] != 1).all()
  assert 0.02 < np.std(flat[STARTS[14] :: 12]) < 0.08


@pytest.mark.parametrize(
  ("data_size", "tolerance"),
  # With 625.6 steps in an epoch, our epochs begin up to half a step away.
  [(2048 * 625, 1e-6), (1_281_167, 2e-4)],
)
@pytest.mark.parametrize("decay", ["cosine", "step"])
def test_same_as_timm(decay, data_size, tolerance):
  torch = pytest.importorskip("torch")
  scheduler = pytest.importorskip("timm.scheduler")
  optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.18)
  ours = theirs = {"decay_rate": 0.988, "decay_epochs": 1}
  if decay == "cosine":
    theirs = {"min_lr": 1e-3}
    ours = {"min_factor": 1e-3 / 0.18, "warmup_prefix": False}
  timm, _ = scheduler.create_scheduler_v2(
    optimizer, decay, 100, warmup_epochs=5, warmup_lr=1e-4, **theirs
  )
  ours = ours | {"warmup_epochs": 5, "warmup_init": 1e-4 / 0.18}
  starts = [round(e * data_size / 2048) for e in range(101)]
  fn = jax.jit(
    schedules.make(
      ours | {"decay_type": decay, "per": "epoch"},
      batch_size=2048,
      data_size=data_size,
      total_steps=starts[-1],
    )
  )
  for epoch, (first, after) in enumerate(itertools.pairwise(starts)):
    timm.step(epoch)
    expected = optimizer.param_groups[0]["lr"] / 0.18
    for step in (first, first + 1, after - 1):
      assert fn(step) == pytest.approx(expected, abs=tolerance)


def test_noise_as_timm_has_it():
  torch = pytest.importorskip("torch")
  scheduler = pytest.importorskip("timm.scheduler")
  optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
  epochs = 4000
  timm, _ = scheduler.create_scheduler_v2(
    optimizer, "step", epochs, decay_rate=1.0, noise=[0.25, 0.75]
  )
  theirs = []
  for epoch in range(epochs):
    timm.step(epoch)
    theirs.append(optimizer.param_groups[0]["lr"])
  sizes = {"batch_size": 7, "data_size": 2**14, "total_steps": 9362286}
  fn = schedules.make({"lr_noise": (0.25, 0.75)}, **sizes)
  starts = jnp.array([round(e * 2**14 / 7) for e in range(epochs)])
  ours = np.array(jax.lax.map(fn, starts))
  noisy = np.array(theirs) != 1
  np.testing.assert_array_equal(ours != 1, noisy)
  assert stats.ks_2samp(ours[noisy], np.array(theirs)[noisy]).pvalue > 0.01


@pytest.mark.parametrize(
  ("config", "match"),
  [
    ({"decay_type": "step"}, "decay_rate is None, but must be in"),
    ({"decay_type": "step", "decay_rate": 0.1}, "needs either decay_epochs"),
    (
      {"decay_type": "step", "decay_rate": 0.1, "decay_epochs": 30}
      | {"milestones_epochs": [30, 60]},
      "needs either decay_epochs",
    ),
    (
      {"decay_type": "step", "decay_rate": 0.1, "decay_steps": 0},
      "decay_steps is 0: need at least one step",
    ),
    (
      {"decay_type": "step", "decay_rate": 0.1, "decay_percent": 0.0},
      "decay_percent is 0.0: need at least one step",
    ),
    ({"decay_type": "cosine", "decay_rate": 0.1}, "'decay_rate'"),
    ({"decay_type": "step", "warmup_prefix": True}, "'warmup_prefix'"),
    ({"min_factor": 0.1}, "unknown config.schedule .constant. 'min_factor'"),
    ({"decay_type": "cosine", "min_factor": -1}, "min_factor is -1, but must"),
    ({"warmup_init": 2}, "config.schedule: warmup_init is 2, but must be in"),
    ({"per": "epoch", "warmup_epochs": 1}, "first epoch at warmup_init; give"),
    ({"per": "epochs"}, "unknown per 'epochs': did you mean 'epoch'"),
    ({"lr_noise_std": 0.1}, "'lr_noise_std': did you mean 'lr_noise'"),
    ({"lr_noise": (0.9, 0.4)}, "two rising fractions of the run"),
    ({"lr_noise": (0.4, 0.9), "lr_noise_type": "norm"}, "mean 'normal'"),
    ({"lr_noise": (0.4, 0.9), "lr_noise_std": 0}, "must be > 0"),
    ({"lr_noise": (0.4, 0.9), "lr_noise_pct": 2}, "lr_noise_pct is 2, but"),
  ],
)
def test_bad_schedule(config, match):
  with pytest.raises(ValueError, match=match) as e:
    schedules.make(config, **SIZES)
  assert "\n" not in str(e.value)
