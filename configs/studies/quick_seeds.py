r"""Seed statistics that a laptop can make: two crop laws, ten seeds each.

    S="--config configs/studies/quick_seeds.py --workdir /tmp/big_crop_quick_seeds"
    python -m big_crop.study run $S && python -m big_crop.study report $S

The embedded dataset: 1,000 images to train on, 1,000 to validate on, and 3,000
as a second test set, which plays the role of ImageNet-V2. For ResNet-50 on
ImageNet see configs/studies/resnet_strikes_back_seeds.py.

Arguments, as in `:seeds=20`:

    seeds     how many (10)
    crop      a law, or several, joined by +; by default TensorFlow's and the
              fixed one (inception_crop_coupled+inception_crop_fixed)
    area_min  percent (5)
    epochs    20
"""  # noqa: E501

import pathlib

from big_crop import config as configs
from big_crop.study.grid import default_study


def get_config(arg=None):
  arg = configs.parse_arg(
    arg,
    seeds=10,
    crop="inception_crop_coupled+inception_crop_fixed",
    area_min=5.0,
    epochs=20.0,
  )
  c = default_study()
  c.base = "../quickstart.py"
  c.arguments = dict(res=32, area_min=arg.area_min, epochs=arg.epochs)
  c.sets = [dict(crop=arg.crop.split("+"))]
  c.seeds = list(range(arg.seeds))
  base = pathlib.Path(__file__).parent / c.base
  test = configs.load(f"{base}:res=32").evals.val.to_dict()
  test["data"]["split"] = "train[1000:]"
  test["log_percent"] = 1.0
  c.overrides = [
    "--config.input.data.split=train[:1000]",
    "--config.evals.val.log_percent=0.05",
    f"--config.evals.test={test!r}",
    "--config.model.width=96",
    "--config.model.depth=3",
    "--config.model.mlp_dim=384",
    "--config.model.num_heads=3",
    "--config.lr=2e-3",
    "--config.log_training_steps=10",
    "--config.ckpt_steps=1000",
  ]
  c.metrics = [
    dict(key="val/top1", label="top-1 val. accuracy (%)", scale=100),
    dict(key="test/top1", label="top-1 accuracy, second set (%)", scale=100),
    dict(key="val/loss", label="validation loss", digits=3, better="lower"),
  ]
  c.seed_statistics = [
    dict(
      title=f"Over {arg.seeds} seeds",
      metrics=[m["key"] for m in c.metrics],
      by="crop",
      histogram="val/top1",
      scatter=["val/top1", "test/top1"],
      curves="val/top1",
    )
  ]
  return c
