r"""Tables 3 and 5 of "How to train your ViT?": finetuning checkpoints.

    S="--config configs/studies/augreg_transfer.py:index=INDEX"
    python -m big_crop.study run $S --workdir DIR --index $SLURM_ARRAY_TASK_ID
    python -m big_crop.study report $S --workdir DIR

Finetunes each checkpoint on each dataset with each learning rate and number of
steps that the paper sweeps. For each checkpoint and dataset, the report has the
test accuracy of the run that is best on the validation set, and the means of
VTAB's groups.

Arguments, as in `:index=INDEX,inits=B/16:S/32,data=cifar100:oxford_iiit_pet`:

    index     AugReg's index.csv, in the folder of the checkpoints
    inits     names of models, for their recommended checkpoints, or names of
              checkpoints, joined by : (the paper's nine models)
    data      datasets of configs/augreg/transfer.py, joined by :; vtab, which
              is the default, are its 19, and table4 are those of Table 4
    res       224
    seeds     how many, from 0 (1)
    examples, data_dir  as in that config
    by        the evaluator that chooses: val, or v2 for ImageNet after i21k
"""

from big_crop.config import parse_arg
from big_crop.study import augreg
from big_crop.study.grid import default_study
from pp_ops.errors import UserError


def get_config(arg=None):
  arg = parse_arg(
    arg,
    index=None,
    inits=":".join(augreg.MODELS),
    data="vtab",
    res=224,
    seeds=1,
    examples=None,
    data_dir=None,
    by="val",
  )
  if not arg.index:
    raise UserError("give index=, AugReg's index.csv")
  sets = {
    "vtab": [f"vtab/{k}" for k in augreg.VTAB],
    "table4": [*augreg.TRANSFER],
  }
  asked = [d for part in arg.data.split(":") for d in sets.get(part, [part])]
  known = augreg.TRANSFER | {f"vtab/{k}": t for k, t in augreg.VTAB.items()}
  c = default_study()
  c.base = "../augreg/transfer.py"
  c.arguments = {k: arg[k] for k in ("res", "examples", "data_dir")}
  c.overrides = [f"--config.model_load.index={arg.index}"]
  c.seeds = list(range(arg.seeds))
  groups = {}
  for dataset in asked:
    task = known[dataset]
    c.sets += [
      dict(
        init=[f"augreg:{i}" for i in arg.inits.split(":")],
        dataset=dataset,
        lr=list(task.lrs),
        steps=list(task.steps),
      )
    ]
    if task.group:
      groups.setdefault(task.group, []).append(dataset)
  paper = dict(res=arg.res, upstream_by=None)
  c.reference = ["augreg_vtab", dict(name="augreg_imagenet", where=paper)]
  c.metrics = [
    dict(key=f"{k}/top1", label=f"{k} accuracy (%)", scale=100)
    for k in dict.fromkeys(("test", "val", arg.by))
  ]
  c.selections = [
    dict(
      title="Finetuned",
      over=["lr", "steps"],
      by=f"{arg.by}/top1",
      report="test/top1",
      rows="init",
      columns="dataset",
      groups=groups,
    )
  ]
  return c
