"""The train step: any sharding, accumulation, averages, restarts."""

import copy
import functools
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_helpers import classify, specs

from big_crop import optim, step, trees
from big_crop.models import convolution, resnet, vit
from big_crop.runtime import sharding

BATCH, RES, CLASSES = 32, 16, 5
SPECS = specs(RES, RES, 3)
ALWAYS_FSDP = [(".*", "fsdp(min_size_to_shard_mb=0)")]
ADAM = {
  "optax_name": "scale_by_adam",
  "lr": 1e-3,
  "wd": 1e-4,
  "schedule": {"decay_type": "cosine", "warmup_steps": 10},
}


@pytest.fixture(autouse=True)
def compile_fast(request):
  # Few optimisations, because compilation takes most of this file's time. The
  # slow test compiles as a real run does.
  fast = "slow" not in request.keywords
  jax.config.update("jax_disable_most_optimizations", fast)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


class Mlp(nn.Module):
  """A minimal model, with dropout or batch norm if asked."""

  dropout: float = 0.0
  norm: bool = False

  @nn.compact
  def __call__(self, image, *, train=False):
    x = nn.Dense(16, name="embedding")(image.reshape(len(image), -1))
    if self.norm:
      x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(nn.gelu(x))
    return nn.Dense(CLASSES, name="head")(x), {}


def batches(n, dtype=np.float32):
  rng = np.random.default_rng(0)
  means = rng.normal(size=(CLASSES, RES, RES, 3))
  for _ in range(n):
    label = rng.integers(CLASSES, size=BATCH).astype(np.int32)
    noise = rng.normal(size=(BATCH, RES, RES, 3))
    yield {"image": (means[label] + noise).astype(dtype), "label": label}


class Run:
  """A state and its step, as the trainer wires them."""

  def __init__(
    self,
    model,
    *,
    devices=8,
    strategy=(),
    config=ADAM,
    ema_decay=None,
    seed=0,
    start=None,
    grad_accum=1,
    frozen=None,
    **keys,
  ):
    self.mesh = sharding.make_mesh([("data", -1)], jax.devices()[:devices])
    objective = classify(model, CLASSES, **keys)
    self.tx, _ = optim.make(
      config,
      step.param_shapes(objective, SPECS),
      total_steps=100,
      batch_size=BATCH,
      data_size=1000,
    )
    args = (objective, self.tx, self.mesh, list(strategy), SPECS)
    ema = ema_decay is not None
    if start is None:
      self.state = step.init_state(*args, seed=seed, ema=ema)
      start = jax.tree.map(np.array, self.state)
    self.start = start
    self.shardings = step.shardings_of(step.abstract_state(*args, ema=ema))
    self.state = jax.device_put(start, self.shardings)
    self.step = step.make_train_step(
      objective,
      self.tx,
      mesh=self.mesh,
      state_sharding=self.shardings,
      ema_decay=ema_decay,
      seed=seed,
      grad_accum=grad_accum,
      frozen=frozen,
    )

  def fresh(self):
    """Returns a run from the start that shares the compiled step."""
    run = copy.copy(self)
    run.state = jax.device_put(self.start, self.shardings)
    return run

  def __call__(self, data):
    losses = []
    for batch in data:
      batch = sharding.make_global_batch(batch, self.mesh)
      self.state, self.metrics = self.step(self.state, batch)
      losses.append(float(self.metrics["training_loss"]))
    return np.array(losses)


@functools.cache
def plain_run():
  return Run(Mlp())


def leaves(tree):
  return {name: np.asarray(x) for name, x in trees.named_leaves(tree)}


def assert_close(tree, other, **kw):
  other = leaves(other)
  for name, value in leaves(tree).items():
    np.testing.assert_allclose(value, other[name], err_msg=name, **kw)


@pytest.mark.long
def test_one_step_by_hand():
  config = {"optax_name": "identity", "lr": 0.1}
  run = Run(Mlp(norm=True), config=config, ema_decay=0.9)
  old = jax.device_get(run.state)
  (batch,) = batches(1)
  (loss,) = run([batch])

  def objective(params):
    variables = {"params": params, **old.model_state}
    (logits, _), new = Mlp(norm=True).apply(
      variables, batch["image"], train=True, mutable=["batch_stats"]
    )
    log_p = jax.nn.log_softmax(logits)
    return -log_p[np.arange(BATCH), batch["label"]].mean(), new

  (expected, stats), grads = jax.value_and_grad(objective, has_aux=True)(
    old.params
  )
  params = jax.tree.map(lambda p, g: p - 0.1 * g, old.params, grads)
  ema = jax.tree.map(
    lambda o, n: 0.9 * o + 0.1 * n, old.ema, {"params": params, **stats}
  )
  assert loss == pytest.approx(float(expected), rel=1e-6)
  assert_close(run.state.params, params, rtol=1e-4, atol=1e-6)
  assert_close(run.state.model_state, stats, rtol=1e-5, atol=1e-6)
  assert_close(run.state.ema, ema, rtol=1e-4, atol=1e-6)
  assert run.state.variables() is run.state.ema
  norm = lambda tree: np.sqrt(sum((x**2).sum() for x in leaves(tree).values()))
  metrics = {k: float(v) for k, v in run.metrics.items()}
  assert metrics == {
    "training_loss": loss,
    "l2_grads": pytest.approx(norm(grads), rel=1e-5),
    "l2_params": pytest.approx(norm(params), rel=1e-5),
    "l2_updates": pytest.approx(0.1 * norm(grads), rel=1e-5),
  }
  assert {v.dtype for v in run.metrics.values()} == {jnp.dtype("float32")}


def test_initial_values_do_not_depend_on_devices_or_rules():
  digests = [
    trees.params_sha256(
      Run(Mlp(), devices=devices, strategy=strategy).state.params
    )
    for devices, strategy in [(1, ()), (8, ()), (8, ALWAYS_FSDP)]
  ]
  assert len(set(digests)) == 1


def test_abstract_state_is_the_state():
  run = Run(Mlp(norm=True), strategy=ALWAYS_FSDP, ema_decay=0.9)
  abstract = step.abstract_state(
    classify(Mlp(norm=True), CLASSES),
    run.tx,
    run.mesh,
    ALWAYS_FSDP,
    SPECS,
    ema=True,
  )
  same = jax.tree.map(
    lambda a, s: (
      (a.shape, a.dtype, a.sharding) == (s.shape, s.dtype, s.sharding)
    ),
    abstract,
    run.state,
  )
  assert all(jax.tree.leaves(same))
  kernel = run.state.ema["params"]["embedding"]["kernel"]
  assert kernel.addressable_shards[0].data.size * 8 == kernel.size


class TinyResNet(nn.Module):
  @nn.compact
  def __call__(self, image, *, train=False):
    x = nn.Conv(16, (3, 3), use_bias=False)(image)
    x = nn.relu(convolution.BatchNorm("float32")(x, train=train))
    x = resnet.Block(
      width=8,
      stride=2,
      bottleneck=True,
      avg_down=False,
      se_ratio=0.0,
      groups=1,
      base_width=64,
      drop_path=0.1,
      zero_init_last=True,
      dtype="float32",
    )(x, train=train)
    return nn.Dense(CLASSES)(x.mean((1, 2))), {}


def small_resnet18():
  # A ReLU's gradient jumps at zero, so a unit that rounding moves across zero
  # changes the run visibly if there are few units. A 3x3 stem makes them many,
  # and with branches initialised to zero they change little.
  return resnet.Model(
    CLASSES, variant=18, width=16, small_stem=True, zero_init_last=True
  )


@pytest.mark.parametrize(
  "model",
  [
    lambda: vit.Model(CLASSES, variant="mu/8", dropout=0.1),
    pytest.param(TinyResNet, marks=pytest.mark.slow),
    pytest.param(small_resnet18, marks=pytest.mark.slow),
  ],
  ids=["vit", "tiny_resnet", "resnet18"],
)
@pytest.mark.long
def test_losses_do_not_depend_on_the_devices(model):
  one = Run(model(), loss="sigmoid_xent", devices=1)
  expected = one(batches(20))
  for strategy in [(), ALWAYS_FSDP]:
    kw = {"strategy": strategy, "start": one.start}
    got = Run(model(), loss="sigmoid_xent", **kw)(batches(20))
    np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=str(strategy))
  assert expected[-1] < expected[0]


def test_accumulation_equals_the_full_batch():
  config = {"optax_name": "identity", "lr": 0.1, "grad_clip_norm": 0.5}
  kw = {"config": config, "mixup": {"p": 0.2}}
  full = Run(Mlp(), **kw)
  losses = full(batches(3))
  for strategy in [(), ALWAYS_FSDP]:
    split = Run(Mlp(), grad_accum=4, strategy=strategy, **kw)
    np.testing.assert_allclose(split(batches(3)), losses, rtol=1e-6)
    assert_close(full.metrics, split.metrics, rtol=1e-5)
    assert_close(full.state.params, split.state.params, rtol=1e-4, atol=1e-6)


def test_batch_statistics_pass_through_the_microbatches():
  run = Run(Mlp(norm=True), grad_accum=2)
  state = jax.device_get(run.state)
  (batch,) = batches(1)
  run([batch])
  stats = state.model_state
  for i in range(2):
    _, stats = Mlp(norm=True).apply(
      {"params": state.params, **stats},
      batch["image"][i::2],
      train=True,
      mutable=["batch_stats"],
    )
  assert_close(run.state.model_state, stats, rtol=1e-4, atol=1e-6)


def test_microbatches_stay_on_their_devices():
  run = Run(Mlp(), grad_accum=4)
  batch = sharding.make_global_batch(next(batches(1)), run.mesh)
  hlo = run.step.lower(run.state, batch).compile().as_text()
  assert "all-reduce" in hlo
  for collective in ("all-to-all", "collective-permute", "all-gather"):
    assert collective not in hlo


def test_frozen_parameters_get_no_gradient():
  config = ADAM | {"schedule": [("embedding/.*", None), (".*", {})]}
  shapes = step.param_shapes(classify(Mlp(), CLASSES), SPECS)
  run = Run(Mlp(), config=config, frozen=optim.frozen_mask(config, shapes))
  before = leaves(run.state.params)
  unfrozen = plain_run().fresh()
  run(batches(1))
  unfrozen(batches(1))
  after = leaves(run.state.params)
  same = {name for name in before if np.array_equal(before[name], after[name])}
  assert same == {"embedding/kernel", "embedding/bias"}
  assert run.metrics["l2_grads"] < unfrozen.metrics["l2_grads"]


def test_restart_is_exact_and_steps_differ():
  run = Run(Mlp(dropout=0.5, norm=True), mixup={"p": 0.2}, ema_decay=0.99)
  again, resumed = run.fresh(), run.fresh()
  data = list(batches(4))
  expected = run(data)
  again(data[:2])
  saved = jax.device_get(again.state)
  resumed.state = jax.device_put(saved, resumed.shardings)
  np.testing.assert_array_equal(resumed(data[2:]), expected[2:])
  assert trees.params_sha256(run.state) == trees.params_sha256(resumed.state)
  later = run.fresh()
  later.state = later.state.replace(step=later.state.step + 1)
  assert later(data[:1]) != expected[:1]


def test_no_transfer_no_recompilation_no_warning():
  run = Run(Mlp(norm=True), ema_decay=0.9, mixup={"p": 0.2})
  first = run.state
  data = [sharding.make_global_batch(b, run.mesh) for b in batches(3)]
  with warnings.catch_warnings(), jax.transfer_guard("disallow"):
    warnings.simplefilter("error")
    for batch in data:
      run.state, _ = run.step(run.state, batch)
  assert run.step._cache_size() == 1
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))


@pytest.mark.parametrize("mode", ["half", "batch"])
@pytest.mark.slow
def test_timms_mixing_and_targets_on_any_devices(mode):
  kw = dict(
    loss="mean_sigmoid_xent",
    mixing=dict(mixup_alpha=0.4, cutmix_alpha=1.0, mode=mode),
    targets=dict(kind="present", smoothing=0.1),
  )
  data = list(batches(3))
  losses = [Run(Mlp(), devices=n, **kw)(data) for n in (1, 8)]
  np.testing.assert_allclose(*losses, rtol=1e-5)
  prepare = step.make_prepare(classify(Mlp(), CLASSES, **kw), seed=0)
  prepared, _ = prepare(data[0], 0)
  labels = prepared["targets"]
  assert step.num_examples(prepared) == (
    BATCH // 2 if mode == "half" else BATCH
  )
  assert set(np.unique(labels).round(3)) == {0.0, np.float32(0.9).round(3)}
  assert (labels > 0).sum(1).max() == 2


def test_nan_shows_in_the_metrics():
  run = plain_run().fresh()
  (batch,) = batches(1)
  batch["image"][3, 0, 0, 0] = np.nan
  assert np.isnan(run([batch])).all()


def test_labels_may_be_a_distribution():
  (batch,) = batches(1)
  labels = np.eye(CLASSES, dtype=np.float32)[batch["label"]]
  soft = {"image": batch["image"], "labels": labels}
  assert plain_run().fresh()([batch]) == plain_run().fresh()([soft])


def test_predict():
  model = Mlp(dropout=0.5, norm=True)
  run = Run(model, strategy=ALWAYS_FSDP, ema_decay=0.5)
  run(batches(2))
  (batch,) = batches(1)
  image = sharding.make_global_batch(batch, run.mesh)["image"]
  predict = jax.jit(lambda *args: classify(model, CLASSES).predict(*args)[0])
  got = predict(run.state.variables(), image)
  expected, _ = model.apply(jax.device_get(run.state.ema), batch["image"])
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
  newest = {"params": run.state.params, **run.state.model_state}
  assert not np.allclose(predict(newest, image), got, atol=1e-3)


def test_bad_input_is_one_line():
  run = Run(Mlp(), grad_accum=2)

  def message(**changes):
    (batch,) = batches(1)
    with pytest.raises(ValueError) as e:
      run([{k: v for k, v in (batch | changes).items() if v is not None}])
    assert "\n" not in str(e.value)
    return str(e.value)

  eight_bit = np.zeros((BATCH, RES, RES, 3), np.uint8)
  assert "end input.pp with a float op" in message(image=eight_bit)
  labels = np.zeros((BATCH, CLASSES + 1), np.float32)
  assert "(32, 5) is (batch, num_classes)" in message(labels=labels)
  small = message(
    image=np.zeros((24, RES, RES, 3), np.float32), label=np.zeros(24, np.int32)
  )
  assert small.startswith("batch size 24 is not divisible by 8 devices x 2")
  with pytest.raises(
    ValueError, match="ema_decay is None, but the state holds"
  ):
    step.make_train_step(
      classify(Mlp(), CLASSES),
      run.tx,
      mesh=run.mesh,
      seed=0,
      state_sharding=step.shardings_of(run.state).replace(ema={}),
    )
