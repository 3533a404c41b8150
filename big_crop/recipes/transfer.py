"""Configs that start from a finished run's encoder: probes and finetuning."""

from ml_collections import ConfigDict

from big_crop import config, names, recipes
from big_crop.runtime import records, storage
from big_crop.weights import torch_files
from pp_ops.errors import UserError

# Arguments that the configs that evaluate an encoder take, besides their own.
ARGUMENTS = dict(
  init=None,  # a run's workdir; or a study's, of which `views` picks a run
  views=None,  # the level of the factor `views` of the study's run
  model="resnet-50",  # the model to train from scratch, without `init`
  data_dir=None,  # folder in which TFDS has prepared the dataset
  train="train",  # split to train on
  test="validation",  # split to test on
  res=224,  # pixels of the model's input
  seed=0,  # of the whole run
)
_QUICK = dict(data="critters", res=48, batch=128, epochs=20.0)
FORMS = dict(
  quick=_QUICK,  # the quickstart's data and size: minutes on two cores
  smoke=dict(  # two epochs of 64 images
    _QUICK, train="train[:64]", test="validation[:50]", batch=32, epochs=2.0
  ),
)
# Parameters that are not the encoder's: heads, and the projector or decoder of
# pretraining.
BESIDE = ["head/.*", "projector/.*", "decoder/.*"]


def start(
  text: str | None, pretraining: tuple[str, ...] = ("views",), **own
) -> tuple[ConfigDict, ConfigDict]:
  """A config that starts from a finished run's encoder, and its arguments.

  Args:
    text: the text after the colon of --config.
    pretraining: names of arguments that are factors of a study of pretraining.
      If `init` is the folder of such a study, the encoder is that of the
      study's run with the given levels of these factors and with this seed.
    **own: arguments that are not in `ARGUMENTS` or have another default: at
      least `data`, `epochs` and `batch`.

  Returns:
    The config, with the run's model, and all arguments.

  Raises:
    ValueError: in one line, if there is no run.
  """
  arg = config.parse_arg(text, FORMS, **ARGUMENTS | own)
  c = config.default_config()
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  c.input.batch_size = arg.batch
  c.input.data = dict(name=arg.data, data_dir=arg.data_dir, split=arg.train)
  c.log_training_steps = 2 if arg.smoke else 50
  path = arg.init
  if path and (storage.path(path) / "runs").is_dir():
    factors = {k: arg[k] for k in (*pretraining, "seed") if arg[k] is not None}
    path = f"{path}/runs/{names.of_run(factors)}"
  c.model_init = path
  c.model_load.dont_load = BESIDE
  if path and not str(path).endswith(torch_files.SUFFIXES):
    set_model_of(c, path)
  else:
    c.model_name, _, c.model.variant = arg.model.partition("-")
  return c, arg


def set_model_of(c: ConfigDict, workdir: str) -> None:
  """Sets the model to that of a run; raises in one line if there is no run."""
  path = storage.path(workdir) / "config.json"
  if not path.exists():
    raise UserError(f"init: {workdir} has no config.json: need a run's workdir")
  given = records.read_json(path)
  c.model_name, c.model = given["model_name"], given["model"]


def add_val(c: ConfigDict, arg: ConfigDict, interpolation: str) -> None:
  """Adds the evaluator val to a config of `start`: central crops."""
  view = recipes.test_view(arg.res, 0.875, interpolation)
  c.evals.val = dict(
    type="classification",
    data=dict(name=arg.data, data_dir=arg.data_dir, split=arg.test),
    pp_fn=f'{view}|keep("image", "label")',
    batch_size=min(arg.batch, 1024),
    log_percent=0.5 if arg.smoke else 0.1,
  )


def set_plain_data(c: ConfigDict, arg: ConfigDict) -> None:
  """Random crops and flips to train on, central crops to test on."""
  c.input.pp = (
    f"decode_jpeg_and_inception_crop_fixed({arg.res}, area_min=8, "
    'antialias=True)|flip_lr|vgg_value_range|keep("image", "label")'
  )
  add_val(c, arg, "bilinear")
