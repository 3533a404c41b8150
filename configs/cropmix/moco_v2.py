r"""MoCo v2 as in AsymSiam, with plain views, ScaleMix or CropMix.

    python -m big_crop.train --workdir DIR \
      --config configs/cropmix/moco_v2.py:views=cropmix

CropMix (arXiv:2205.15955), sections 5 and B.2.1: ResNet-50, a queue of 65,536
keys, momentum 0.999, temperature 0.2; SGD 0.03 with momentum 0.9, weight decay
1e-4, batch 256, cosine by the epoch, 100 epochs; views of 20 to 100% of the
image with colour jitter, grey, blur and flip. The query is

    plain     one such view
    scalemix  two such views, one with a box of the other (AsymSiam,
              arXiv:2203.16822)
    cropmix   a view of 20 to 60% with a box of a view of 60 to 100%
    mixup     as cropmix, with Mixup in place of the box (Table 8)
    untrained as plain; the encoder keeps its initial weights, as a baseline

and the key is a plain view. Linear probes of the first three have a top-1 of
65.8, 67.2 and 67.8 (Table 3). In the paper's Table 8 the rows "+ Mixup" and "+
CutMix" are exchanged: the former repeats the number of Table 3's CropMix, which
cuts, and the text calls Mixup poor. Blur is torchvision's, while MoCo's is
Pillow's (see the op `gaussian_blur`).

metrics.jsonl has metrics by which a collapse is recognised: alignment,
uniformity, feature_std, and the accuracy of nearest neighbours
(features/knn_top1).

What can be chosen:

    views     see above
    crop      the law of the windows: inception_crop_fixed, or inception_crop
    model     the encoder: a model, and after the dash its variant
    data, data_dir, res, epochs, batch, lr, queue, seed
    quick     the quickstart's data and size, to try it on two cores
    smoke     the same for two epochs of 64 images
"""

from big_crop import names
from big_crop.config import default_config, parse_arg
from big_crop.optim.scaling import scaled_lr

VIEWS = ("plain", "scalemix", "cropmix", "mixup", "untrained")
QUICK = dict(
  data="critters",
  model="resnet-10",
  res=32,
  epochs=30.0,
  batch=64,
  lr=0.06,
  queue=1024,
)
FORMS = dict(quick=QUICK, smoke=dict(QUICK, epochs=2.0, batch=32, queue=64))


def view(key, crop, res, low=20, high=100):
  """Crops, colours, blurs and flips one view: MoCo v2's augmentation."""
  return (
    f"|{crop}({res}, area_min={low}, area_max={high}, antialias=True, "
    f'key="{key}")'
    f"|random_apply(0.8, 'color_jitter(0.4, 0.4, 0.4, 0.1, key=\"{key}\")')"
    f'|random_grayscale(0.2, key="{key}")'
    f"|random_apply(0.5, 'gaussian_blur({res // 20 * 2 + 1}, "
    f'sigma=(0.1, 2.0), key="{key}")\')'
    f'|flip_lr(key="{key}")|vgg_value_range(key="{key}")'
  )


def get_config(arg=None):
  arg = parse_arg(
    arg,
    FORMS,
    views="cropmix",
    crop="inception_crop_fixed",
    model="resnet-50",
    data="imagenet2012",
    data_dir=None,
    res=224,
    epochs=100.0,
    batch=256,
    lr=None,
    queue=65_536,
    seed=0,
  )
  names.check("views", arg.views, VIEWS)
  c = default_config()
  c.seed = arg.seed
  if arg.views == "untrained":
    c.total_steps = 0
  else:
    c.total_epochs = arg.epochs
  c.input.batch_size = arg.batch
  data = dict(name=arg.data, data_dir=arg.data_dir)
  c.input.data = dict(**data, split="train[:64]" if arg.smoke else "train")
  make = lambda key, *scales: view(key, arg.crop, arg.res, *scales)
  pp = 'decode|copy("image", "image2")'
  if arg.views in ("plain", "untrained"):
    pp += make("image")
  else:
    small, large = ((20, 60), (60, 100))
    if arg.views == "scalemix":
      small = large = ()
    pp += '|copy("image", "large")' + make("image", *small)
    mix = "mix_in" if arg.views == "mixup" else "cut_in"
    pp += make("large", *large) + f'|{mix}("large")'
  c.input.pp = pp + make("image2") + '|keep("image", "image2")'

  c.objective_name = "contrastive"
  c.objective = dict(queue=arg.queue)
  c.model_name, _, variant = arg.model.partition("-")
  c.model.variant = variant
  if arg.quick or arg.smoke:
    c.model.update(width=16, small_stem=True)
    c.objective.update(hidden=128, out=64, momentum=0.99)
    c.objective.groups = 4 if arg.smoke else 8

  c.optax_name = "trace"
  c.optax = dict(decay=0.9)
  c.lr = arg.lr or scaled_lr(0.03, arg.batch, base=256, rule="linear")
  c.wd = 1e-4
  c.wd_in = "gradient"
  c.wd_mults = [(".*", 1.0)]
  c.schedule = dict(decay_type="cosine", per="epoch")

  c.evals.features = dict(
    type="representation",
    data=data,
    train="train[:64]" if arg.smoke else "train",
    test="validation[:50]" if arg.smoke else "validation",
    pp_fn=(
      f"decode|resize_small({arg.res * 8 // 7})|central_crop({arg.res})"
      '|vgg_value_range|keep("image", "label")'
    ),
    methods=["knn", "linear"] if arg.quick else ["knn"],
    k=20 if arg.smoke or arg.quick else 200,
    batch_size=arg.batch,
    log_percent=0.5 if arg.smoke else 0.2 if arg.quick else 0.1,
  )
  c.log_training_steps = 2 if arg.smoke else 50
  return c
