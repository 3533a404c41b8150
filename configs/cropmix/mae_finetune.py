r"""Finetunes an encoder that MAE has pretrained, on labels.

    python -m big_crop.train --workdir DIR \
      --config configs/cropmix/mae_finetune.py:init=RUN

`init` is the workdir of a run of configs/cropmix/mae.py, or a .pth file of
MAE's published weights, which have timm's names. CropMix (arXiv:2205.15955),
section B.3.2, follows MAE's own procedure (arXiv:2111.06377, Table 9): 100
epochs, 5 of warm-up, AdamW with learning rate 5e-4 per 256 images, each layer's
rate 0.65 times that of the layer above, weight decay 0.05, batch 1024, drop
path 0.1, mixup 0.8 or CutMix 1.0, label smoothing 0.1, erasing 0.25,
RandAugment m9, and the mean of the tokens instead of the class token. All runs
are finetuned with the plain crop, whatever views they were pretrained with.

What can be chosen: fraction, percent of ImageNet's labels, 100 or 10, as in
pretraining; crop, inception_crop_fixed or inception_crop; lr, data, epochs,
batch; robust, to evaluate ImageNet-A, -R and -Sketch too, as Table 4 does; and
`big_crop.recipes.transfer.ARGUMENTS`.
"""

from big_crop import names, recipes
from big_crop.models import vit
from big_crop.optim.scaling import scaled_lr
from big_crop.recipes import transfer

FRACTIONS = {100: "imagenet2012", 10: "imagenet2012_subset/10pct"}
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
  c, arg = transfer.start(
    arg,
    ("fraction", "views"),
    model="vit-MAE-B/16",
    fraction=100,
    crop="inception_crop_fixed",
    data=None,
    epochs=100.0,
    batch=1024,
    lr=None,
    robust=False,
    corrupted=None,
  )
  names.check("fraction", arg.fraction, FRACTIONS)
  arg.data = c.input.data.name = arg.data or FRACTIONS[arg.fraction]
  c.input.pp = (
    f"decode_jpeg_and_{arg.crop}({arg.res}, area_min=8, "
    'method="bicubic", antialias=True)|flip_lr'
    '|rand_augment("rand-m9-mstd0.5-inc1", interpolation="bicubic")'
    '|vgg_value_range|random_erasing(0.25)|keep("image", "label")'
  )
  c.mixing = dict(mixup_alpha=0.8, cutmix_alpha=1.0)
  c.targets.smoothing = 0.1

  c.model.update(
    pool_type="fc_norm", posemb="learn", posemb_cls=True, drop_path=0.1
  )
  small = arg.quick or arg.smoke
  if not small:
    c.model.dtype_mm = "bfloat16"
  c.model_load.dont_load += [
    "fc_norm/.*",
    "Transformer/encoder_norm/.*",
    # In our pretraining the positions are fixed and no parameter. Finetuning
    # starts from the same positions.
    "pos_embedding",
  ]

  depth = vit.decode_variant(c.model.variant)["depth"]
  c.optax_name = "scale_by_adam"
  c.optax = dict(b2=0.999)
  per_256 = 4e-3 if small else 5e-4
  c.lr = arg.lr or scaled_lr(per_256, arg.batch, base=256, rule="linear")
  c.lr_mults = layer_decay(c.model.get("depth", depth))
  # As in PyTorch's AdamW, which multiplies the decay by the learning rate, here
  # that of each layer.
  c.wd = c.lr * 0.05
  undecayed = (".*/(bias|scale)|cls|pos_embedding", 0.0)
  c.wd_mults = [undecayed, *c.lr_mults, (".*", 1.0)]
  c.schedule = dict(decay_type="cosine", warmup_epochs=5.0)
  if small:
    c.schedule = dict(decay_type="cosine", warmup_percent=0.1)

  transfer.add_val(c, arg, "bicubic")
  recipes.add_robust(c, arg)
  return c
