r"""MAE's pretraining, with the plain crop or with CropMix.

    python -m big_crop.train --workdir DIR \
      --config configs/cropmix/mae.py:views=cropmix

CropMix (arXiv:2205.15955), sections 6 and B.3.1; MAE (arXiv:2111.06377): ViT-B/16
with a decoder of 8 blocks and 512 channels, 75% of the patches hidden,
normalised pixels; AdamW (0.9, 0.95) with learning rate 1.5e-4 per 256 images,
weight decay 0.05, batch 4096, 20 epochs of warm-up, cosine; crops of 20 to 100%
of the image, bicubic, flip. 200 epochs on all of ImageNet, 300 on 10% of it.
After finetuning (configs/cropmix/mae_finetune.py), top-1 in Tables 4 and 9:

              plain   cropmix   cutmix
    100%      82.4    82.3      82.5
    10%       51.9    52.6      51.8

The evaluator leaves val_images.png in the workdir: images, what the encoder
sees, and the predictions in the gaps.

What can be chosen:

    views     plain; cropmix, 2, 3 or 4 views mixed by Mixup; cutmix, 2 by CutMix;
              or untrained: plain views; the encoder keeps its initial weights
    fraction  percent of ImageNet's labels: 100 or 10
    crop      the law of the windows: inception_crop_fixed, or inception_crop
    model     the encoder's variant
    data, data_dir, res, epochs, batch, lr, seed
    quick     the quickstart's data and size, to try it on two cores
    smoke     the same for two epochs of 64 images
"""  # noqa: E501

from big_crop import names
from big_crop.config import default_config, parse_arg
from big_crop.optim.scaling import scaled_lr

VIEWS = ("plain", "cropmix", "cutmix", "untrained")
FRACTIONS = {
  100: dict(data="imagenet2012", epochs=200.0),
  10: dict(data="imagenet2012_subset/10pct", epochs=300.0),
}
DECODER = dict(width=512, depth=8, num_heads=16)
QUICK = dict(
  data="critters", model="quick", res=48, epochs=40.0, batch=128, lr=1e-3
)
FORMS = dict(quick=QUICK, smoke=dict(QUICK, epochs=2.0, batch=32))


def get_config(arg=None):
  arg = parse_arg(
    arg,
    FORMS,
    views="cropmix",
    fraction=100,
    crop="inception_crop_fixed",
    model="MAE-B/16",
    data=None,
    data_dir=None,
    res=224,
    epochs=None,
    batch=4096,
    lr=None,
    seed=0,
  )
  names.check("views", arg.views, VIEWS)
  names.check("fraction", arg.fraction, FRACTIONS)
  usual = FRACTIONS[arg.fraction]
  data = dict(name=arg.data or usual["data"], data_dir=arg.data_dir)

  c = default_config()
  c.seed = arg.seed
  if arg.views == "untrained":
    c.total_steps = 0
  else:
    c.total_epochs = float(
      usual["epochs"] if arg.epochs is None else arg.epochs
    )
  c.input.batch_size = arg.batch
  c.input.data = dict(**data, split="train[:64]" if arg.smoke else "train")

  resize = 'method="bicubic", antialias=True'
  window = f'{arg.res}, area_min=20, law="{arg.crop}"'
  if arg.views == "cropmix":
    crop = f"cropmix({window}, num=(2, 3, 4), permute=False, {resize})"
  elif arg.views == "cutmix":
    crop = f'cropmix({window}, num=2, mix="cutmix", permute=False, {resize})'
  else:
    crop = f"{arg.crop}({arg.res}, area_min=20, {resize})"
  c.input.pp = f'decode_jpeg_and_{crop}|flip_lr|vgg_value_range|keep("image")'

  c.objective_name = "masked_autoencoding"
  c.objective = dict(mask_ratio=0.75, decoder=DECODER)
  c.model = dict(variant=arg.model, dtype_mm="bfloat16")
  if arg.model == "quick":
    c.model = dict(
      variant="MAE-mu/6", width=128, depth=4, mlp_dim=512, num_heads=4
    )
    c.objective.decoder = dict(width=64, depth=2, num_heads=4)
    # Most patches of the quickstart's images are faint background noise, which
    # normalised pixels would amplify.
    c.objective.norm_pix = False

  c.optax_name = "scale_by_adam"
  c.optax = dict(b2=0.95)
  c.lr = arg.lr or scaled_lr(1.5e-4, arg.batch, base=256, rule="linear")
  c.wd = c.lr * 0.05  # as in PyTorch's AdamW
  # As in MAE's code, vectors (biases, norm scales) have no weight decay.
  c.wd_mults = [(".*/kernel", 1.0), ("cls|decoder/mask_token", 1.0)]
  c.schedule = dict(decay_type="cosine", warmup_epochs=20.0)
  if arg.quick or arg.smoke:
    c.schedule = dict(decay_type="cosine", warmup_percent=0.1)

  view = (
    f"decode|resize_small({arg.res * 8 // 7}, {resize})"
    f"|central_crop({arg.res})|vgg_value_range"
  )
  train, val = ("train", "validation")
  if arg.smoke:
    train, val = ("train[:64]", "validation[:50]")
  once = dict(
    pp_fn=f'{view}|keep("image", "label")', batch_size=min(arg.batch, 1024)
  )
  c.evals.val = dict(
    **once,
    type="reconstruction",
    data=dict(**data, split=val),
    log_percent=0.5 if arg.smoke else 0.1,
  )
  c.evals.features = dict(
    **once,
    type="representation",
    data=data,
    train=train,
    test=val,
    feature="encoded",
    methods=["knn", "linear"] if arg.quick else ["knn"],
    k=20 if arg.quick else 200,
    log_percent=0.2 if arg.quick else 1.0,
  )
  c.log_training_steps = 2 if arg.smoke else 50
  return c
