"""Objectives of the user's own: state, views, restarts, and the docs'."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
import toy_objective

from big_crop import config as configs
from big_crop import step, train, trees
from big_crop.parts import build, open_run
from big_crop.runtime import sharding, stop

ROOT = pathlib.Path(__file__).parents[1]
VIEWS = 'decode|copy("image", "image2")|' + "|".join(
  f'inception_crop_fixed(8, key="{k}")|value_range(-1, 1, key="{k}")'
  for k in ("image", "image2")
)


def toy(**overrides):
  """A config for the objective of tests/toy_objective.py."""
  c = configs.default_config()
  c.objective_name = "toy_objective"
  c.total_steps = 6
  c.input.data = {"name": "critters", "split": "train[:64]"}
  c.input.pp = VIEWS
  c.input.batch_size = 16
  c.evals.val = {
    "type": "toy_objective",
    "data": {"name": "critters", "split": "validation[:20]"},
    "pp_fn": "decode|resize(8)|value_range(-1, 1)",
    "batch_size": 8,
    "log_steps": 3,
  }
  c.log_training_steps = 1
  c.sharding_strategy = [("extra/queue", "fsdp(min_size_to_shard_mb=0)")]
  c.update(overrides)
  return c


def records(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  found = [json.loads(line) for line in lines]
  return [{k: v for k, v in r.items() if k != "images_per_s"} for r in found]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("toy")
  return workdir, train.run(toy(), workdir)


@pytest.mark.long
def test_a_run_of_an_own_objective_is_complete(undisturbed):
  workdir, summary = undisturbed
  logged = records(workdir)
  assert [r["step"] for r in logged if "val/spread" in r] == [3, 6]
  assert all({"training_loss", "hits", "l2_grads"} <= r.keys() for r in logged)
  assert logged[-1]["training_loss"] != logged[0]["training_loss"]
  for view in ("image", "image2"):
    assert (workdir / f"train_{view}s.png").stat().st_size > 0
  found = open_run(workdir)
  assert isinstance(found.objective, toy_objective.Objective)
  assert (
    trees.params_sha256(found.variables["params"]) == (summary["params_sha256"])
  )


@pytest.mark.long
def test_a_restart_is_exact_with_the_queue_sharded(
  undisturbed, tmp_path, monkeypatch
):
  asked = iter([False, False, True])  # in the third step
  monkeypatch.setattr(stop, "requested", lambda: next(asked))
  assert train.run(toy(), tmp_path) is None
  monkeypatch.setattr(stop, "requested", lambda: False)
  again = train.run(toy(), tmp_path)
  assert again["params_sha256"] == undisturbed[1]["params_sha256"]
  assert records(tmp_path) == records(undisturbed[0])


def test_extra_state_by_hand():
  """Two steps with microbatches: what enters the queue, in which order."""
  parts = build(toy(grad_accum=2))
  state = parts.init()
  before = jax.device_get(state)
  rng = np.random.default_rng(0)
  batches = [
    {
      k: rng.normal(size=(16, 8, 8, 3)).astype("f4")
      for k in ("image", "image2")
    }
    for _ in range(2)
  ]
  encode = lambda params, x: parts.objective.model.apply({"params": params}, x)
  queue, momentum = before.extra["queue"], before.extra["momentum"]
  params = before.params
  for batch in batches:
    keys, _ = encode(momentum, batch["image2"])
    queries, _ = encode(params, batch["image"])
    positive = (queries * keys).sum(-1)[:, None]
    logits = np.concatenate([positive, queries @ queue.T], 1) / 0.2
    loss = (jax.nn.logsumexp(logits, axis=1) - logits[:, 0]).mean()
    state, metrics = parts.train_step(
      state, sharding.make_global_batch(batch, parts.mesh)
    )
    np.testing.assert_allclose(metrics["training_loss"], loss, rtol=1e-5)
    params = jax.device_get(state.params)
    queue = np.concatenate([keys, queue])[:64]
    momentum = jax.tree.map(lambda m, p: 0.9 * m + 0.1 * p, momentum, params)
  np.testing.assert_allclose(state.extra["queue"], queue, rtol=1e-4, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    jax.device_get(state.extra["momentum"]),
    momentum,
  )


def test_extra_state_follows_the_rules():
  rules = [("Dense_0/kernel", "fsdp(min_size_to_shard_mb=0)")]
  spec = lambda extra: {
    name: leaf.sharding.is_fully_replicated
    for name, leaf in trees.named_leaves(extra)
  }
  by_param = build(toy(sharding_strategy=rules)).abstract.extra
  assert spec(by_param)["momentum/Dense_0/kernel"] is False
  assert spec(by_param)["momentum/Dense_1/kernel"] is True
  assert spec(by_param)["queue"] is True
  rules = [("extra/queue", "fsdp(min_size_to_shard_mb=0)")]
  by_name = build(toy(sharding_strategy=rules)).abstract.extra
  assert spec(by_name)["queue"] is False
  assert spec(by_name)["momentum/Dense_0/kernel"] is True


@pytest.mark.long
def test_losses_do_not_depend_on_the_devices_or_rules(monkeypatch):
  def losses(rules, devices):
    monkeypatch.setattr(jax, "devices", lambda: devices)
    parts = build(toy(sharding_strategy=rules))
    assert parts.mesh.size == len(devices)
    state, found = parts.init(), []
    for _, (batch, _) in zip(range(3), parts.device_batches(), strict=False):
      state, metrics = parts.train_step(state, batch)
      found.append(float(metrics["training_loss"]))
    return found

  devices = jax.devices()
  everything = [(".*", "fsdp(min_size_to_shard_mb=0)")]
  alone = losses([(".*", "replicate")], devices[:1])
  np.testing.assert_allclose(losses(everything, devices), alone, rtol=1e-5)


@pytest.mark.slow
def test_the_objective_of_the_docs_trains_evaluates_and_resumes(
  tmp_path, monkeypatch
):
  text = (ROOT / "docs" / "own_objective.md").read_text()
  (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  (tmp_path / "rotation.py").write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  command = re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1]
  overrides = re.findall(r"(--config\.[^\s=]+=(?:'[^']*'|\S+))", command)
  assert len(overrides) == 3
  # The model of tests, since the quickstart's takes a while to compile.
  overrides += ["--config.total_epochs=None", "--config.total_steps=4"]
  overrides += [f"--config.model.{k}" for k in ("width=16", "depth=1")]
  # And little data, since each of the quickstart's images has to be drawn.
  overrides += ["--config.input.data.split=train[:64]"]
  overrides += ["--config.evals.val.data.split=validation[:64]"]
  config = configs.load(
    f"{ROOT / 'configs' / 'quickstart.py'}:batch=32",
    [o.replace("'", "") for o in overrides],
  )
  asked = iter([False, True])
  monkeypatch.setattr(stop, "requested", lambda: next(asked, False))
  assert train.run(config, tmp_path / "run") is None
  resumed = train.run(config, tmp_path / "run")
  whole = train.run(config, tmp_path / "whole")
  assert resumed["params_sha256"] == whole["params_sha256"]
  assert 0 <= whole["metrics"]["val/accuracy"] <= 1
  assert 0 <= whole["metrics"]["train_accuracy"] <= 1


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(objective_name="clasification"), "did you mean 'classification'"),
    (dict(objective_name="my_task"), "no module 'my_task' on"),
    (dict(objective_name="my_task.py"), "write 'my_task'"),
    (dict(objective_name="no.such"), "no module 'no'; is it on PYTHONPATH"),
    (dict(objective_name="big_crop.trees"), "has no Objective"),
    (dict(mixup={"p": 0.2}), "config.mixup is set, but the objective"),
    (dict(input={"pp": "decode|resize(8)"}), "leaves no feature 'image2'"),
    (
      dict(evals={"val": {"type": "classification"}}),
      "needs 'num_classes', which neither the config nor the objective's "
      "for_evaluators gives",
    ),
  ],
)
def test_mistakes_get_one_line(changes, message):
  with pytest.raises(ValueError, match=message) as e:
    build(toy(**changes))
  assert "\n" not in str(e.value)


def test_arrays_of_a_batch_must_agree():
  with pytest.raises(ValueError, match="differ in their size"):
    step.num_examples({"a": np.zeros(3), "b": np.zeros(4)})
