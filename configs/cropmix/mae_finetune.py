r"""Finetunes an encoder that MAE has pretrained, on labels.

    python -m big_crop.train --workdir DIR \
      --config configs/cropmix/mae_finetune.py:init=RUN

`init` is the workdir of a run of configs/cropmix/mae.py, or MAE's published
weights, which also have timm's names (a .pth file). CropMix (arXiv:2205.15955),
section B.3.2, takes MAE's own procedure (arXiv:2111.06377, Table 9): 100
epochs, 5 of warm-up, AdamW with 5e-4 for each 256 images, each layer 0.65 times
as much as the one above it, weight decay 0.05, batch 1024, drop path 0.1, mixup
0.8 or CutMix 1.0, label smoothing 0.1, erasing 0.25, RandAugment m9, the mean
of the tokens in place of the class token. The crop is the plain one for all.

What can be chosen:

    init      see above; without it the model starts from nothing
    fraction  percent of ImageNet's labels: 100 or 10, as in pretraining
    crop      inception_crop_fixed, or inception_crop
    data, data_dir, train, test, res, epochs, batch, lr, seed
    model     as in pretraining, for example MAE-B/16
    quick     for a run with `quick`; ten minutes on two cores
    smoke     the same for two epochs of 64 images
"""

from big_crop import names, recipes
from big_crop.config import default_config, parse_arg
from big_crop.models import vit
from big_crop.optim.scaling import scaled_lr

FRACTIONS = {100: "imagenet2012", 10: "imagenet2012_subset/10pct"}
QUICK = dict(data="critters", model="quick", res=48, batch=128, lr=2e-3)
LAYER_DECAY = 0.65


def layer_decay(depth):
  """lr_mults: 1 for the head, LAYER_DECAY^(depth + 1) for the embedding."""
  blocks = [
    (f"Transformer/encoderblock_{i}/.*", LAYER_DECAY ** (depth - i))
    for i in range(depth)
  ]
  first = ("embedding/.*|cls|pos_embedding", LAYER_DECAY ** (depth + 1))
  return [first, *blocks]


def get_config(arg=None):
  arg = parse_arg(
    arg,
    init=None,
    fraction=100,
    crop="inception_crop_fixed",
    model="MAE-B/16",
    data=None,
    data_dir=None,
    train="train",
    test="validation",
    res=224,
    epochs=100.0,
    batch=1024,
    lr=None,
    seed=0,
    quick=False,
    smoke=False,
  )
  names.check("fraction", arg.fraction, FRACTIONS)
  if arg.quick or arg.smoke:
    arg.update(QUICK, epochs=min(arg.epochs, 20.0))
  if arg.smoke:
    arg.update(train="train[:64]", test="validation[:50]", batch=32, epochs=2.0)

  c = default_config()
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  c.input.batch_size = arg.batch
  data = dict(name=arg.data or FRACTIONS[arg.fraction], data_dir=arg.data_dir)
  c.input.data = dict(**data, split=arg.train)
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({arg.res}, area_min=8, "
    'method="bicubic", antialias=True)|flip_lr'
    '|rand_augment("rand-m9-mstd0.5-inc1", interpolation="bicubic")'
    '|vgg_value_range|random_erasing(0.25)|keep("image", "label")'
  )
  c.mixing = dict(mixup_alpha=0.8, cutmix_alpha=1.0)
  c.targets.smoothing = 0.1

  c.model = dict(variant=arg.model, dtype_mm="bfloat16")
  if arg.model == "quick":
    c.model = dict(
      variant="MAE-mu/6", width=128, depth=4, mlp_dim=512, num_heads=4
    )
  c.model.update(
    pool_type="fc_norm", posemb="learn", posemb_cls=True, drop_path=0.1
  )
  c.model_init = arg.init
  c.model_load.dont_load = [
    "decoder/.*",
    "head/.*",
    "fc_norm/.*",
    "Transformer/encoder_norm/.*",
    "pos_embedding",  # starts as what a run of ours had fixed
  ]

  depth = vit.decode_variant(c.model.variant)["depth"]
  c.optax_name = "scale_by_adam"
  c.optax = dict(b2=0.999)
  c.lr = arg.lr or scaled_lr(5e-4, arg.batch, base=256, rule="linear")
  c.lr_mults = layer_decay(c.model.get("depth", depth))
  c.wd = 0.05
  c.schedule = dict(decay_type="cosine", warmup_epochs=5.0)
  if arg.quick or arg.smoke:
    c.schedule = dict(decay_type="cosine", warmup_percent=0.1)

  view = recipes.test_view(arg.res, 0.875, "bicubic")
  c.evals.val = dict(
    type="classification",
    data=dict(**data, split=arg.test),
    pp_fn=f'{view}|keep("image", "label")',
    batch_size=min(arg.batch, 1024),
    log_percent=0.5 if arg.smoke else 0.1,
  )
  c.log_training_steps = 2 if arg.smoke else 50
  return c
