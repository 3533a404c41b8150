r"""Finetunes a run on another dataset, as in Table 5 of "ResNet strikes back".

    python -m big_crop.train --workdir DIR --config \
      configs/resnet_strikes_back/transfer.py:init=RUN,dataset=cifar100

`init` is the workdir of the run to start from, or a file of weights
(`big_crop.weights`) for the model `model`. It can also be the workdir of the
study configs/studies/resnet_strikes_back_architectures.py, of which `recipe`
and `model` then name a run. The head is always new. Without `init` the model is
trained from scratch, to compare with.

The paper's top-1 after pretraining with PyTorch's recipe, A1, A2 and A3:

    cifar10    98.2, 98.3, 98.0, 97.6
    cifar100   86.6, 86.9, 86.2, 85.3
    cars       92.5, 92.7, 92.6, 92.5
    flowers    97.9, 97.9, 97.9, 97.5
    inat2018   not in the paper, but in DeiT's
    inat2019   73.2, 73.9, 75.0, 73.8; not in TFDS: `folder` is the dataset's
               folder, with train/CLASS/IMAGE and val/CLASS/IMAGE

The paper's procedure is "inspired by" that of DeiT (arXiv:2012.12877). DeiT's
authors describe theirs at https://github.com/facebookresearch/deit, in issue 45
for CIFAR and Cars (`SGD` below) and in issue 105 for iNaturalist (`ADAMW`). No
procedure is published for Flowers: here Flowers uses `SGD`. So does any other
dataset of TFDS, for which `train` and `test` must name the splits.

Further arguments: lr, epochs, wd, batch, res, crop, area_min, data_dir, seed.
The default lr is scaled to `batch`. `:smoke` trains for two epochs on 64 images
of the embedded dataset.
"""

from ml_collections.config_dict import placeholder

from big_crop import recipes
from big_crop.recipes import transfer
from pp_ops.errors import UserError

BATCH = 768
SGD = dict(epochs=1000.0, lr=0.01, wd=1e-4, drop_path=0.0, erasing=0.0)
ADAMW = dict(epochs=360.0, lr=7.5e-5, wd=0.05, drop_path=0.1, erasing=0.1)
# (TFDS name or "folder", training split, test split)
DATASETS = dict(
  **{k: (k, "train", "test") for k in ("cifar10", "cifar100")},
  cars=("cars196", "train", "test"),
  flowers=("oxford_flowers102", "train+validation", "test"),
  inat2018=("i_naturalist2018", "train", "validation"),
  inat2019=("folder", "train", "validation"),
)


def get_config(arg=None):
  c, arg = transfer.start(
    arg,
    ("recipe", "model"),
    recipe=None,
    dataset="cifar100",
    folder=None,
    data=None,
    train=None,
    test=None,
    epochs=placeholder(float),
    batch=BATCH,
    lr=placeholder(float),
    wd=placeholder(float),
    crop="inception_crop_fixed",
    area_min=8.0,
    warmup_epochs=5.0,
  )
  name, train, test = DATASETS.get(arg.dataset, (arg.dataset, None, None))
  arg.data, arg.train, arg.test = (
    *(arg.data or name, arg.train or train, arg.test or test),
  )
  if not (arg.train and arg.test):
    raise UserError(
      f"dataset={arg.dataset}: give train= and test=, its splits; known are "
      + ", ".join(DATASETS)
    )
  if arg.data == "folder":
    arg.data_dir = arg.folder
  own = ADAMW if arg.dataset.startswith("inat") else SGD
  epochs, wd = (own[k] if arg[k] is None else arg[k] for k in ("epochs", "wd"))
  c.total_epochs = epochs
  c.input.data.update(name=arg.data, data_dir=arg.data_dir, split=arg.train)
  c.input.repeats = 3
  erase = f"|random_erasing({own['erasing']})" if own["erasing"] else ""
  # An image that is no JPEG is decoded as a whole and then cropped.
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({arg.res}, area_min={arg.area_min:g}, "
    'method="bicubic", antialias=True)|flip_lr'
    '|rand_augment("rand-m9-mstd0.5-inc1", interpolation="bicubic")'
    f'|vgg_value_range{erase}|keep("image", "label")'
  )
  c.model.update(dropout=0.0, drop_path=own["drop_path"])
  c.mixing = dict(mixup_alpha=0.8, cutmix_alpha=1.0)
  c.targets.smoothing = 0.1

  if own is SGD:
    c.lr = recipes.learning_rate(arg, own["lr"], BATCH, "linear")
    c.optax_name = "trace"
    c.optax = dict(decay=0.9, nesterov=True)
    c.wd, c.wd_in = wd, "gradient"
  else:
    c.lr = recipes.learning_rate(arg, own["lr"], BATCH, "sqrt")
    c.wd = c.lr * wd  # as in PyTorch's AdamW
  c.schedule = recipes.cosine(arg)
  if arg.smoke or arg.quick:
    c.schedule.warmup_epochs = 0.5

  transfer.add_val(c, arg, "bicubic")
  return c
