r"""Is Scion's learning rate the best? Doubled and halved, 9 runs.

    S="--config configs/studies/scion_learning_rate.py"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

"You May Be Running the Wrong Inception Crop" takes Scion's learning rate from
its authors and checks it "for the 90ep experiment by doubling and halving it"
(section 5), but gives no numbers. These runs are not among the paper's 522 of
configs/studies/wrong_inception_crop.py. Both learning rates change together,
gamma_l = 0.01 and gamma_L = 20 gamma_l, while lambda_l stays 0.08.

Arguments: data_dir; smoke, to try it on the embedded dataset.
"""

from big_crop.config import parse_arg
from big_crop.study import paper
from big_crop.study.grid import default_study

LR = 0.01


def get_config(arg=None):
  c = default_study()
  c.arguments = parse_arg(arg, data_dir=None, smoke=False)
  c.base = "../wrong_inception_crop/vit_s16_i1k.py"
  c.seeds = [0, 1, 2]
  c.sets = [
    dict(
      optimiser="scion",
      crop="inception_crop_fixed",
      area_min=5,
      wd=0.08,
      lr=[LR / 2, LR, 2 * LR],
      epochs=90,
    )
  ]
  c.metrics = list(paper.METRICS)
  c.families = [dict(name="lr", label="Scion at 90ep", where={}, x="lr")]
  c.comparisons = [
    dict(title="Scion, lr against 0.01 (section 5)", a="lr", base=LR)
  ]
  return c
