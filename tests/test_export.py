"""Weights come from PyTorch, through a run, and go back as they were."""

import numpy as np
import pytest
from model_helpers import close, images, randomise, state_dict, to_torch

from big_crop import config as configs
from big_crop import export, parts, train

SIZE = 32
PP = f"decode|resize({SIZE})|value_range(-1, 1)"
CLASSES = 20  # of the embedded dataset
SMALL = dict(width=24, depth=2, num_heads=3, mlp_dim=96, patch_size=8)


def run_of(workdir, model, *, init=None, objective="classification", **kw):
  """A run of no steps: its model starts from `init`, and is evaluated."""
  c = configs.default_config()
  c.total_steps = 0
  c.objective_name = objective
  c.model_init = init
  if objective == "contrastive":
    c.objective = dict(queue=16, groups=2, hidden=8, out=4)
    c.model_load.dont_load = ["projector/.*", "head/.*"]
  c.model_name = model
  c.model = dict(variant="10") if model == "resnet" else dict(SMALL)
  if model == "vit":
    c.model.update(pool_type="tok", posemb_cls=True, act="gelu_exact")
  c.model.update(kw)
  c.input.data = dict(name="critters", split="train[:64]")
  c.input.pp = f'{PP}|copy("image", "image2")'
  c.input.batch_size = 8
  c.evals.val = dict(
    type="representation",
    data=dict(name="critters"),
    train="train[:64]",
    test="validation[:20]",
    pp_fn=PP,
    methods=["knn"],
    batch_size=8,
  )
  train.run(c, workdir)
  return parts.open_run(workdir)


def resnet(large, num_classes):
  models = pytest.importorskip("torchvision").models
  if large:
    return models.resnet50(num_classes=num_classes)
  blocks = models.resnet.BasicBlock, [1, 1, 1, 1]
  return models.resnet.ResNet(*blocks, num_classes=num_classes)


def vit(large, num_classes):
  timm = pytest.importorskip("timm")
  make = timm.models.VisionTransformer
  if large:
    return make(img_size=SIZE, patch_size=16, num_classes=num_classes)
  return make(
    img_size=SIZE,
    patch_size=SMALL["patch_size"],
    embed_dim=SMALL["width"],
    depth=SMALL["depth"],
    num_heads=SMALL["num_heads"],
    num_classes=num_classes,
  )


@pytest.mark.long
@pytest.mark.first(1)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
  ("model", "objective"),
  [
    ("resnet", "contrastive"),
    ("resnet", "classification"),
    ("vit", "classification"),
  ],
)
def test_a_run_takes_and_gives_torchs_weights(
  model, objective, large, tmp_path
):
  """Logits and features to 1e-5; weights and averages as they were."""
  torch = pytest.importorskip("torch")
  safetensors = pytest.importorskip("safetensors.torch")
  labelled = objective == "classification"
  make = resnet if model == "resnet" else vit
  peer = randomise(make(large, CLASSES)).eval()
  before = state_dict(peer)
  given = {k: torch.tensor(v) for k, v in before.items()}
  torch.save(given, tmp_path / "given.pth")
  kw = {}
  if large:
    kw = dict(variant="50" if model == "resnet" else "B/16")
    if model == "vit":
      kw |= dict(width=768, depth=12, num_heads=12, mlp_dim=3072, patch_size=16)
  init = str(tmp_path / "given.pth")
  run = run_of(tmp_path / "run", model, init=init, objective=objective, **kw)

  image = images(SIZE)
  with torch.no_grad():
    if not labelled:
      peer.fc = torch.nn.Identity()
    expected = peer(to_torch(image)).numpy()
  ours, _ = run.objective.predict(run.variables, image)
  close(np.asarray(ours), expected, rtol=1e-5)

  out = tmp_path / "out.safetensors"
  export.main(["--workdir", str(tmp_path / "run"), "--out", str(out)])
  written = safetensors.load_file(out)
  counts = {k for k in before if k.endswith("num_batches_tracked")}
  head = set() if labelled else {"fc.weight", "fc.bias"}
  assert written.keys() == before.keys() - counts - head
  for name, value in written.items():
    np.testing.assert_array_equal(value, before[name], err_msg=name)
  again = make(large, CLASSES)
  missing, unknown = again.load_state_dict(written, strict=False)
  assert set(missing) - counts == head and not unknown


@pytest.mark.slow
def test_a_detector_trains_on_an_exported_backbone(tmp_path):
  """torchvision's Faster R-CNN: one step, with finite losses and gradients."""
  torch = pytest.importorskip("torch")
  detection = pytest.importorskip("torchvision").models.detection
  safetensors = pytest.importorskip("safetensors.torch")
  out = tmp_path / "encoder.safetensors"
  kw = dict(variant="50", width=64)
  run_of(tmp_path / "run", "resnet", objective="contrastive", **kw)
  export.main(["--workdir", str(tmp_path / "run"), "--out", str(out)])

  detector = detection.fasterrcnn_resnet50_fpn(
    weights=None,
    weights_backbone=None,
    num_classes=3,
    min_size=64,
    max_size=64,
    trainable_backbone_layers=5,
  )
  body = detector.backbone.body
  missing, unknown = body.load_state_dict(
    safetensors.load_file(out), strict=False
  )
  assert not unknown and all(k.endswith("tracked") for k in missing)
  sgd = torch.optim.SGD(detector.parameters(), lr=0.01)
  image = torch.rand(2, 3, 64, 64)
  boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0]])
  target = [{"boxes": boxes, "labels": torch.tensor([1])} for _ in image]
  losses = detector.train()(list(image), target)
  total = sum(losses.values())
  before = body.layer4[0].conv1.weight.clone()
  total.backward()
  sgd.step()
  assert torch.isfinite(total)
  assert not torch.equal(before, body.layer4[0].conv1.weight)


def test_runs_have_different_names():
  paths = ["/r/x_y/c", "/r/x/y_c", "/r/z/c"]
  names = parts.run_names(paths[:1] + paths[2:])
  assert names == {"x_y_c": paths[0], "z_c": paths[2]}
  with pytest.raises(ValueError, match="two runs would have the same name"):
    parts.run_names(paths)
