"""MoCo v2 against a transcription in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_crop import config as configs
from big_crop import objectives, parts, step, train
from big_crop.objectives import contrastive
from big_crop.runtime import checkpoint, sharding, stop
from big_crop.weights import torch_names

RES, BATCH, GROUPS, QUEUE, OUT, HIDDEN, WIDTH = 12, 32, 2, 96, 16, 64, 8
STEPS, LR, MOMENTUM, TEMPERATURE = 20, 3e-4, 0.9, 0.2
VIEWS = "|".join(
  f'inception_crop_fixed({RES}, area_min=20, key="{k}")|value_range(-1, 1, '
  f'key="{k}")'
  for k in ("image", "image2")
)


def config(**overrides):
  c = configs.default_config()
  c.objective_name = "contrastive"
  c.objective = dict(
    queue=QUEUE, momentum=MOMENTUM, groups=GROUPS, hidden=HIDDEN, out=OUT
  )
  c.model_name = "resnet"
  c.model = dict(variant="10", width=WIDTH, small_stem=True)
  c.input.data = dict(name="critters", split="train[:64]")
  c.input.pp = f'decode|copy("image", "image2")|{VIEWS}'
  c.input.batch_size = BATCH
  c.total_steps = STEPS
  c.optax_name = "trace"
  c.optax = dict(decay=0.9)
  c.lr = LR  # small, so that no ReLU changes sides by rounding
  c.wd = 1e-4
  c.wd_in = "gradient"
  c.wd_mults = [(".*", 1.0)]
  c.schedule = dict(decay_type="cosine")
  c.update(overrides)
  return c


def all_views():
  rng = np.random.default_rng(0)
  base = rng.normal(size=(STEPS, 1, BATCH, RES, RES, 3))
  noise = rng.normal(size=(STEPS, 2, BATCH, RES, RES, 3))
  return np.float32(base + 0.5 * noise)


def torch_encoder(torch, state_dict, projector):
  """A small ResNet of torchvision's blocks, and the projector."""
  from torchvision.models.resnet import BasicBlock

  def stage(before, after, stride):
    downsample = None
    if stride > 1:
      downsample = torch.nn.Sequential(
        torch.nn.Conv2d(before, after, 1, stride, bias=False),
        torch.nn.BatchNorm2d(after),
      )
    block = BasicBlock(before, after, stride, downsample)
    return torch.nn.Sequential(block)

  class Encoder(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.conv1 = torch.nn.Conv2d(3, WIDTH, 3, padding=1, bias=False)
      self.bn1 = torch.nn.BatchNorm2d(WIDTH)
      self.layer1 = stage(WIDTH, WIDTH, 1)
      self.layer2 = stage(WIDTH, 2 * WIDTH, 2)
      self.layer3 = stage(2 * WIDTH, 4 * WIDTH, 2)
      self.layer4 = stage(4 * WIDTH, 8 * WIDTH, 2)
      self.mlp = torch.nn.Sequential(
        torch.nn.Linear(8 * WIDTH, HIDDEN),
        torch.nn.BatchNorm1d(HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, OUT),
      )

    def forward(self, x):
      x = torch.relu(self.bn1(self.conv1(x)))
      x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
      return torch.nn.functional.normalize(self.mlp(x.mean((2, 3))))

    def of_groups(self, x):
      """Batch norm as on several GPUs; keeps the first one's averages."""
      out = []
      for i, chunk in enumerate(x.chunk(GROUPS)):
        for m in self.modules():
          if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):
            m.momentum = 0.0 if i else 0.1
        out.append(self(chunk))
      return torch.cat(out)

  model = Encoder()
  state = {k: torch.tensor(v) for k, v in state_dict.items()}
  for place, name in ((0, "fc1"), (3, "fc2"), (5, "fc3")):
    layer = projector[name]
    state[f"mlp.{place}.weight"] = torch.tensor(np.array(layer["kernel"].T))
    state[f"mlp.{place}.bias"] = torch.tensor(np.array(layer["bias"]))
  missing, extra = model.load_state_dict(state, strict=False)
  assert not extra and all(k.startswith(("mlp.1", "")) for k in missing)
  return model


def named(model, params, stats=None):
  """Weights of the backbone by PyTorch's names."""
  tree = {"params": {k: v for k, v in params.items() if k != "projector"}}
  if stats:
    tree["batch_stats"] = {k: v for k, v in stats.items() if k != "projector"}
  return torch_names.to_torch(model, tree)


@pytest.mark.long
@pytest.mark.parametrize(
  "num_devices", [1, pytest.param(8, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("accum", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_twenty_steps_are_those_of_a_torch_transcription(
  accum, num_devices, monkeypatch
):
  """Losses, queue, weights and averages to 1e-5."""
  torch = pytest.importorskip("torch")
  pytest.importorskip("torchvision")
  make_mesh = sharding.make_mesh
  devices = jax.devices()[:num_devices]
  monkeypatch.setattr(sharding, "make_mesh", lambda a: make_mesh(a, devices))
  made = parts.build(config(grad_accum=accum))
  state = made.init()
  start = jax.device_get(state)

  model = made.objective.model
  query, key = (
    torch_encoder(
      torch,
      named(model, start.params, start.model_state["batch_stats"]),
      start.params["projector"],
    )
    for _ in range(2)
  )
  queue, oldest = torch.tensor(start.extra["queue"]), 0
  sgd = torch.optim.SGD(
    query.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4
  )
  views = all_views()
  prepare = step.make_prepare(made.objective, made.config.seed)
  ours, theirs = [], []
  for i, (image, image2) in enumerate(views):
    batch = {"image": image, "image2": image2}
    _, rng = prepare(batch, i)
    rngs = jax.random.split(rng, accum) if accum > 1 else [rng]
    state, metrics = made.train_step(
      state, sharding.make_global_batch(batch, made.mesh)
    )
    ours.append(float(metrics["training_loss"]))

    if i:
      with torch.no_grad():
        for old, new in zip(key.parameters(), query.parameters(), strict=True):
          old.mul_(MOMENTUM).add_(new, alpha=1 - MOMENTUM)
    loss, keys = 0.0, torch.zeros(BATCH, OUT)
    for micro, rng in enumerate(rngs):
      mine = slice(micro, None, accum)
      q, k = (
        torch.tensor(x[mine].transpose(0, 3, 1, 2).copy())
        for x in (image, image2)
      )
      order = jax.random.permutation(jax.random.split(rng, 3)[0], len(q))
      order = torch.tensor(np.array(order))
      q = query.of_groups(q)
      with torch.no_grad():
        k = keys[mine] = key.of_groups(k[order])[order.argsort()]
      logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1)
      label = torch.zeros(len(q), dtype=torch.long)
      loss = loss + torch.nn.functional.cross_entropy(
        logits / TEMPERATURE, label
      )
    loss = loss / accum
    sgd.param_groups[0]["lr"] = made.lr(i)
    sgd.zero_grad()
    loss.backward()
    sgd.step()
    queue[oldest : oldest + BATCH] = keys
    oldest = (oldest + BATCH) % QUEUE
    theirs.append(loss.item())

  np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  end = jax.device_get(state)
  np.testing.assert_allclose(end.extra["queue"], queue, atol=1e-5)
  assert end.extra["oldest"] == oldest
  with torch.no_grad():  # ours comes after a step, theirs before the next
    for old, new in zip(key.parameters(), query.parameters(), strict=True):
      old.mul_(MOMENTUM).add_(new, alpha=1 - MOMENTUM)
  stats = end.model_state["batch_stats"]
  for params, peer, averages in (
    (end.params, query, stats),
    (end.extra["momentum"], key, None),
  ):
    expected = peer.state_dict()
    for name, value in named(model, params, averages).items():
      np.testing.assert_allclose(value, expected[name], atol=1e-5)
    last = params["projector"]["fc3"]["kernel"]
    np.testing.assert_allclose(last.T, expected["mlp.5.weight"], atol=1e-5)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit(tmp_path, monkeypatch):
  """The queue and the momentum encoder, too."""
  c = config(total_steps=4, log_training_steps=1)
  asked = iter([False, True])
  monkeypatch.setattr(stop, "requested", lambda: next(asked, False))
  assert train.run(c, tmp_path / "stopped") is None
  train.run(c, tmp_path / "stopped")
  train.run(c, tmp_path / "whole")
  ends = []
  for name in ("stopped", "whole"):
    saved = checkpoint.Checkpoints(tmp_path / name)
    assert saved.latest() == 4
    ends.append(saved.restore(4, parts.build(c).abstract)[0])
  stopped, whole = map(jax.device_get, ends)
  assert stopped.extra["oldest"] == 4 * BATCH % QUEUE
  jax.tree.map(np.testing.assert_array_equal, stopped, whole)


@pytest.mark.long
def test_the_momentum_encoder_starts_as_what_is_loaded():
  built = parts.build(config())
  state = built.init()
  other = jax.tree.map(lambda x: x + 1, state.params)
  state = step.renew_extra(built.objective, state.replace(params=other), 0)
  momentum = state.extra["momentum"]
  jax.tree.map(np.testing.assert_array_equal, momentum, state.params)
  # One buffer twice could not be donated to the train step.
  for one, same in zip(*map(jax.tree.leaves, (momentum, other)), strict=True):
    here, there = (x.addressable_data(0) for x in (one, same))
    assert here.unsafe_buffer_pointer() != there.unsafe_buffer_pointer()


@pytest.mark.long
def test_groups_and_keys_share_nothing_but_the_weights():
  """A change to one image reaches the queries of its group alone."""
  o = objectives.make(config(), None)
  specs = {"image": jax.ShapeDtypeStruct((RES, RES, 3), jnp.float32)}
  variables = o.init(jax.random.key(0), specs)
  params, stats = variables["params"], {"batch_stats": variables["batch_stats"]}
  image = all_views()[0, 0]
  changed = image.copy()
  changed[5] = 0
  before, _ = o._embed(params, stats, image, jax.random.key(0))
  after, _ = o._embed(params, stats, changed, jax.random.key(0))
  moved = np.abs(before - after).max(1) > 1e-7
  assert moved.reshape(GROUPS, -1).all(1).tolist() == [True, False]


def test_monitors_by_hand():
  rng = np.random.default_rng(0)
  q, k = rng.normal(size=(2, 6, 4))
  q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
  found = contrastive.spread(jnp.array(q), jnp.array(k))
  pairs = [
    np.exp(-2 * np.sum((q[i] - q[j]) ** 2))
    for i in range(6)
    for j in range(6)
    if i != j
  ]
  expected = {
    "alignment": np.mean(np.sum((q - k) ** 2, 1)),
    "uniformity": np.log(np.mean(pairs)),
    "feature_std": q.std(0).mean() * 2,
  }
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5)
  o = objectives.make(config(), None)
  assert "collapsed" in o.warning({"feature_std": 1e-4})
  assert o.warning({"feature_std": 0.5}) is None


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(queue=40), "need a multiple of config.input.batch_size, 32"),
    (dict(groups=3), "need a divisor of a microbatch, which has 32"),
    (dict(temperature=0.0), "temperature"),
    (dict(momentum=1.5), "momentum"),
    (dict(que=1), "did you mean 'queue'"),
  ],
)
def test_mistakes_are_one_line(change, message):
  c = config()
  c.objective.update(change)
  with pytest.raises(ValueError, match=message) as e:
    parts.build(c)
  assert "\n" not in str(e.value)


def test_a_missing_view_is_told():
  c = config()
  c.input.pp = f"decode|resize({RES})|value_range"
  with pytest.raises(ValueError, match="image2"):
    parts.build(c)
