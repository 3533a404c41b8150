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

Arguments, as in `:real,data=DIR`:

    data      critters, a TFDS name, or a path
    engine    tf.data, or device, for packed data
    seeds     how many, from 0 (3)
    area_min  percent, joined by : (5:60)
    epochs    joined by : (15:120)
    real      for another dataset: all of its images, 5 seeds, area_min 5 and
              25, 3 and 10 epochs
"""

import math

from big_crop.config import parse_arg
from big_crop.study.grid import default_study

SMALL = dict(seeds=3, area_min="5:60", epochs="15:120")
FORMS = dict(real=dict(seeds=5, area_min="5:25", epochs="3:10"))


def matched_alpha(area_min):
  """alpha such that Beta(alpha, 1) has the fixed law's 5th percentile.

  The Beta crop's areas begin at 0, the fixed law's at `area_min` percent.
  """
  low = area_min / 100
  return round(math.log(0.05) / math.log(low + 0.05 * (1 - low)), 3)


def get_config(arg=None):
  arg = parse_arg(arg, FORMS, data="critters", engine="tf.data", **SMALL)
  area_min = [int(a) for a in arg.area_min.split(":")]
  epochs = [int(e) for e in arg.epochs.split(":")]
  alpha = [matched_alpha(a) for a in area_min]
  c = default_study()
  c.base = "../quickstart.py"
  c.arguments.update(res=32, data=arg.data, engine=arg.engine)
  c.seeds = list(range(arg.seeds))
  native, fixed = "inception_crop_coupled", "inception_crop_fixed"
  c.sets = [
    dict(crop=[native, fixed], area_min=area_min, epochs=epochs),
    dict(
      crop="beta_crop",
      area_min=0,
      alpha=alpha,
      beta=1,
      epochs=epochs,
    ),
  ]
  c.overrides = [
    "--config.evals.val.log_percent=1.0",
    "--config.model.width=96",
    "--config.model.depth=3",
    "--config.model.mlp_dim=384",
    "--config.model.num_heads=3",
    "--config.lr=2e-3",
    f"--config.log_training_steps={25 if arg.real else 2}",
    f"--config.ckpt_steps={1000 if arg.real else 200}",
  ]
  if not arg.real:
    c.overrides += [
      "--config.input.data.split=train[:1000]",
      "--config.evals.val.data.split=validation+train[1000:]",
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
      match=list(zip(area_min, alpha, strict=True)),
    ),
    dict(title="Fixed law, weak against strong", a="fixed", base=area_min[0]),
  ]
  c.strength = ["native", "fixed", "matched"]
  return c
