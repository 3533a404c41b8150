r"""Training from scratch: appendix A of "How to train your ViT?", Figure 2.

    S="--config configs/studies/augreg_scratch.py:sets=B/32@resisc45"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

The paper's 4,752 runs of B/32 and B/16 on Pets37 and Resisc45. For each number
of epochs, the report has the test accuracy of the run that is best on the
validation set. It also has the accuracy that a random search finds when all its
runs together have a given number of epochs.

Arguments, as in `:sets=B/32@resisc45,epochs=75:250`:

    sets      MODEL@DATA, joined by : (the four)
    epochs    only these of the paper's numbers of epochs, joined by :
    data_dir
    smoke     to try it on the embedded dataset
"""

from big_crop import names
from big_crop.config import parse_arg
from big_crop.study import augreg
from big_crop.study.grid import default_study

_FOUR = dict(lr=[1e-4, 3e-4, 1e-3, 3e-3], wd=[1e-5, 3e-5, 1e-4, 3e-4])
SETS = {
  "B/32@oxford_iiit_pet": dict(
    epochs=[1_000, 3_000, 10_000, 30_000, 300_000], **_FOUR
  ),
  "B/16@oxford_iiit_pet": dict(
    epochs=[1_000, 3_000, 10_000], lr=[3e-4, 1e-3], wd=[3e-5, 1e-4]
  ),
  "B/32@resisc45": dict(epochs=[75, 250, 750, 2_500, 7_500, 25_000], **_FOUR),
  "B/16@resisc45": dict(
    epochs=[75, 250, 750, 2_500, 7_500], lr=[1e-3], wd=[1e-4, 3e-4]
  ),
}
AUGMENTATIONS = [
  *(a for a in augreg.AUGMENTATIONS if a != "light1"),
  *augreg.FROM_SCRATCH,
]


def get_config(arg=None):
  arg = parse_arg(
    arg, sets=":".join(SETS), epochs=None, data_dir=None, smoke=False
  )
  wanted = {int(e) for e in str(arg.epochs or "").split(":") if e}
  c = default_study()
  c.base = "../augreg/pretrain.py"
  c.arguments = dict(data_dir=arg.data_dir, smoke=arg.smoke)
  c.seeds = [0]
  c.metrics = [
    dict(key=f"{k}/top1", label=f"{k} accuracy (%)", scale=100)
    for k in ("test", "val")
  ]
  for place in arg.sets.split(":"):
    names.check("sets", place, SETS)
    model, data = place.split("@")
    swept = SETS[place]
    epochs = [e for e in swept["epochs"] if not wanted or e in wanted]
    c.sets += [
      {
        **dict(model=model, data=data, do=rate, sd=rate, aug=AUGMENTATIONS),
        **swept,
        "epochs": epochs,
      }
      for rate in (0.0, 0.1, 0.2)
    ]
    c.selections += [
      dict(
        title=f"{model} on {data} from scratch",
        over=["lr", "wd", "aug", "do", "sd"],
        by="val/top1",
        report="test/top1",
        rows="model",
        columns="epochs",
        where=dict(model=model, data=data),
        cost="epochs",
      )
    ]
  return c
