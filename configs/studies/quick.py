r"""The paper's question in miniature, on the embedded dataset: 36 runs.

    S="--config configs/studies/quick.py --workdir /tmp/big_crop_quick_study"
    python -m big_crop.study run $S && python -m big_crop.study report $S

TensorFlow's law, the fixed law and Beta crops of the fixed law's strength (the
same 5th-percentile crop scale), a strong and a weak one of each, for a low and
a high budget, three seeds. 50 minutes on two CPU cores that others shared.

There are only 1,000 training images, so that the model fits them within the
high budget. The other 4,000 images are for validation. TensorFlow's law is
computed from the same uniform random numbers as the other laws, so that the
crops of runs with the same seed differ by the law alone.

On a GPU, with the dataset packed into DIR, several runs as one program:

    python -m big_crop.study run --together 9 --workdir /tmp/study \
      --config configs/studies/quick.py:data=DIR,engine=device
"""

import math

from big_crop.config import parse_arg
from big_crop.study.grid import default_study

AREA_MIN = (5, 60)  # percent
BUDGETS = [15, 120]  # epochs


def matched_alpha(area_min):
  """alpha such that Beta(alpha, 1) has the fixed law's 5th percentile.

  The Beta crop's areas begin at 0, the fixed law's at `area_min` percent.
  """
  low = area_min / 100
  return round(math.log(0.05) / math.log(low + 0.05 * (1 - low)), 3)


ALPHA = tuple(map(matched_alpha, AREA_MIN))


def get_config(arg=None):
  arg = parse_arg(arg, data="critters", engine="tf.data")
  c = default_study()
  c.base = "../quickstart.py"
  c.arguments.update(res=32, data=arg.data, engine=arg.engine)
  c.seeds = [0, 1, 2]
  native, fixed = "inception_crop_coupled", "inception_crop_fixed"
  c.sets = [
    dict(crop=[native, fixed], area_min=AREA_MIN, epochs=BUDGETS),
    dict(
      crop="beta_crop",
      area_min=0,
      alpha=ALPHA,
      beta=1,
      epochs=BUDGETS,
    ),
  ]
  c.overrides = [
    "--config.input.data.split=train[:1000]",
    "--config.evals.val.data.split=validation+train[1000:]",
    "--config.evals.val.log_percent=1.0",
    "--config.model.width=96",
    "--config.model.depth=3",
    "--config.model.mlp_dim=384",
    "--config.model.num_heads=3",
    "--config.lr=2e-3",
    "--config.log_training_steps=2",
    "--config.ckpt_steps=200",
  ]

  c.metrics += [
    dict(key="val/loss", label="validation loss", digits=3, better="lower")
  ]
  c.families = [
    dict(
      name="native",
      label="TensorFlow's law",
      where=dict(crop=native),
      x="area_min",
    ),
    dict(name="fixed", label="fixed law", where=dict(crop=fixed), x="area_min"),
    dict(
      name="matched",
      label="Beta crop of the fixed law's strength",
      where=dict(crop="beta_crop"),
      x="alpha",
    ),
  ]
  c.comparisons = [
    dict(title="TensorFlow's law against the fixed law", a="native", b="fixed"),
    dict(
      title="The fixed law against Beta crop of its 5th-percentile crop scale",
      a="fixed",
      b="matched",
      match=list(zip(AREA_MIN, ALPHA, strict=True)),
    ),
    dict(title="Fixed law, weak against strong", a="fixed", base=AREA_MIN[0]),
  ]
  c.strength = ["native", "fixed", "matched"]
  return c
