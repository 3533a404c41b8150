"""Configs: the common defaults, loading, overrides on the command line."""

import argparse
import ast
import contextlib
import copy
import importlib.machinery
import importlib.util
import inspect
import json
import pathlib
import re
import traceback
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from big_crop import names
from big_crop.config import big_vision, checks
from pp_ops.errors import UserError
from pp_ops.registry import did_you_mean

# Keys that may differ between restarts of one run, because they change the
# result not at all or only in its last bits.
FREE_KEYS = (
  "mesh",
  "sharding_strategy",
  "ckpt_steps",
  "keep_ckpt_steps",
  "input.num_parallel_calls",
  "input.hold",
)


def default_config() -> ConfigDict:
  """The keys that the trainer reads, with their defaults.

  A config file changes their values and may not add keys: the dict is locked.
  Dicts of arguments, of the model or the optimiser for example, are not locked,
  because their receiver checks them. `placeholder(type)` stands for None until
  the key gets a value of that type.

  docs/config_reference.md shows the comment of each key.
  """
  c = ConfigDict(type_safe=False)
  # Seed of everything random: initial weights, order of examples, crops,
  # dropout.
  c.seed = 0
  # How long to train: give this, total_steps or total_examples.
  c.total_epochs = placeholder(float)
  # Number of updates. 0 evaluates the initial weights and trains nothing.
  c.total_steps = placeholder(int)
  c.total_examples = placeholder(int)  # images shown, over all epochs
  c.num_classes = placeholder(int)  # None: as many as the training data have

  c.input = ConfigDict()
  c.input.data = ConfigDict(
    dict(
      # A TFDS name; the folder of a prepared TFDS dataset, of class folders of
      # images or of packed data; or critters, the embedded dataset.
      name="critters",
      split="train",  # as in TFDS, for example "train[:10%]"
      data_dir=None,  # where TFDS has prepared the dataset
    )
  )
  c.input.pp = placeholder(str)  # the preprocessing string; must be set
  # Which engine runs the pp string: tf.data on the host, or device, which is
  # JAX on the accelerator and needs packed data.
  c.input.engine = "tf.data"
  c.input.batch_size = 128  # images in one update, over all devices and hosts
  # Repeated augmentation: how many times in a row an image comes, each time
  # augmented anew. An epoch keeps its length and shows one image in `repeats`.
  c.input.repeats = 1
  # Size of tf.data's shuffle buffer in images, for TFDS datasets. Folders,
  # packed data and critters are shuffled as a whole.
  c.input.shuffle_buffer_size = 50_000
  # Images that tf.data preprocesses in parallel; None: TensorFlow decides.
  c.input.num_parallel_calls = placeholder(int)
  # For the device engine: whether to keep the dataset in the devices' memory,
  # an equal part on each. None: yes if it takes at most half of their memory.
  c.input.hold = placeholder(bool)
  c.input.skip_corrupt = False  # leave out images that do not decode
  c.pp_modules = []  # modules of yours to import, which register ops and laws

  # What is minimised: classification, contrastive, masked_autoencoding, or the
  # dotted path of a module of your own.
  c.objective_name = "classification"
  c.objective = ConfigDict()  # arguments of the objective
  c.model_name = "vit"  # a file of big_crop/models/
  c.model = ConfigDict()  # arguments of the model, which its docstring lists
  # Where the initial weights come from: a run's workdir or checkpoint, an .npz
  # or PyTorch file, or "augreg:" and the name of a published checkpoint.
  c.model_init = placeholder(str)
  c.model_load = ConfigDict(
    dict(
      dont_load=[],  # regexes of parameters that model_init does not set
      index=placeholder(str),  # AugReg's index.csv, beside its checkpoints
    )
  )

  # softmax_xent, sigmoid_xent, or mean_sigmoid_xent (timm's binary
  # cross-entropy, the mean over classes and not their sum).
  c.loss = "softmax_xent"
  c.targets = ConfigDict(
    dict(
      # distribution: labels that sum to one; present: every class that was
      # mixed in counts fully, for binary cross-entropy.
      kind="distribution",
      smoothing=0.0,  # label smoothing
      # Targets become 1 above this number and 0 elsewhere; None: no change.
      threshold=placeholder(float),
    )
  )
  c.mixup = ConfigDict(  # big_vision's mixup, not together with mixing.
    dict(
      p=0.0,  # Weights come from Beta(p, p); 0: no mixup
      per="batch",  # one weight for a batch, or for each example
    )
  )
  c.mixing = ConfigDict(  # timm's mixup and CutMix.
    dict(
      mixup_alpha=0.0,  # Mixup's weights come from Beta(a, a); 0: no mixup
      # CutMix's weights come from Beta(a, a); 0: no CutMix. If both are on,
      # each is chosen with probability one half.
      cutmix_alpha=0.0,
      # Which examples share a weight and a box: batch, elem, pair, half.
      mode="batch",
    )
  )

  # The update rule: scale_by_adam and any other transformation of optax,
  # trace (SGD), scale_by_lamb, scale_by_lars, scale_by_adamp,
  # scale_by_rmsprop_tf, scale_by_scion.
  c.optax_name = "scale_by_adam"
  c.optax = ConfigDict()  # arguments of the rule
  c.lr = 1e-3  # the learning rate that the schedule multiplies
  c.wd = 0.0  # weight decay
  # Where weight decay acts. update: added to the update, scaled by the schedule
  # but not by lr (big_vision). gradient: L2. rule: left to the update rule.
  c.wd_in = "update"
  # (regex of parameters, factor of lr); 1 where none matches.
  c.lr_mults = []
  # (regex of parameters, factor of wd); 0 where none matches.
  c.wd_mults = [(".*/kernel$", 1.0)]
  # decay_type (cosine, linear, rsqrt, step, constant) and its arguments; or
  # (regex, such a dict or None) pairs, where None freezes parameters.
  c.schedule = ConfigDict(dict(decay_type="cosine", warmup_percent=0.1))
  # The largest global norm of the gradients; None: no clipping.
  c.grad_clip_norm = placeholder(float)
  # Adaptive gradient clipping by this factor; None: none.
  c.agc = placeholder(float)
  c.agc_exclude = ["head/.*"]  # regexes of parameters that agc does not clip
  c.grad_accum = 1  # parts of a batch that pass through the model one by one
  # Decay per step of a moving average of the weights, which evaluators then
  # use; None: no average.
  c.ema_decay = placeholder(float)
  # Or evaluators use a plain mean of the weights (SWA): one set of weights per
  # every_epochs, from start_percent of the run on; or both in other units.
  c.swa = ConfigDict()

  # (axis, devices) pairs; -1 stands for all devices that are left.
  c.mesh = [("data", -1)]
  # (regex of names in the train state, "replicate" or 'fsdp(axis="data")').
  c.sharding_strategy = [(".*", "replicate")]

  # {name: {type, data, pp_fn, log_steps or log_epochs or log_percent, ...}}.
  c.evals = ConfigDict()
  c.log_training_steps = 50  # steps between lines of metrics.jsonl
  # Steps between checkpoints, of which the last two are kept.
  c.ckpt_steps = 1000
  # Steps between checkpoints that are kept for good; None: none are.
  c.keep_ckpt_steps = placeholder(int)
  c.lock()
  for key in ("objective", "model", "optax", "schedule", "swa", "evals"):
    c[key].unlock()
  c.input.data.unlock()
  return c


def parse_arg(
  arg: str | None, forms: dict[str, dict[str, Any]] | None = None, **defaults
) -> ConfigDict:
  """Parses what follows the colon in `--config file.py:a=1,b=x,flag`.

  Args:
    arg: the text after the colon, or None.
    forms: {flag: {argument: default}}: flags, and the defaults that each
      changes if it is given; a later entry overrides an earlier one.
    **defaults: {argument: default}. A value must have its default's type; a
      bare name stands for True; a None default takes any literal or text. The
      default `placeholder(float)` of ml_collections is None and takes a float.

  Returns:
    The values of all flags and arguments.
  """
  forms = forms or {}
  defaults |= dict.fromkeys(forms, False)
  flags = _parse_arg(arg, defaults)
  for flag, changed in forms.items():
    if flags[flag]:
      defaults |= changed
  return _parse_arg(arg, defaults)


def _parse_arg(arg, defaults):
  # Copied, because a placeholder object holds the value that it is given.
  out = ConfigDict(copy.deepcopy(defaults))
  for item in filter(None, (arg or "").split(",")):
    key, equals, text = item.partition("=")
    if key not in defaults:
      raise names.unknown("config argument", key, defaults)
    text = text if equals else "True"
    value = _parse(text, out.get_type(key), key, optional=out[key] is None)
    with out.ignore_type():
      out[key] = value
  return out


def _literal(text):
  try:
    return ast.literal_eval(text)
  # Python raises some of these for code nested too deeply, and for {[]: 1}.
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text


def _parse(text: str, kind: type, key: str, optional: bool) -> Any:
  """Reads `text` as a value of type `kind`, or None if that is allowed."""
  if optional and text == "None":
    return None
  if kind is str:
    return text
  value = _literal(text)
  if kind is type(None):  # the key's type is not known
    return value
  if kind is bool:
    value = {"true": True, "false": False}.get(str(value).lower())
  elif kind is float and type(value) is int:
    with contextlib.suppress(OverflowError):
      value = float(value)
  elif kind in (list, tuple) and isinstance(value, (list, tuple)):
    value, kind = list(value), list
  elif kind is ConfigDict and isinstance(value, dict):
    value = ConfigDict(value)
  if type(value) is not kind:
    name = {ConfigDict: "dict", tuple: "list"}.get(kind, kind.__name__)
    hint = ""
    if kind is list and isinstance(value, str):
      hint = f""", as in {key}='["{value}"]'"""
    raise UserError(f"{key}={text}: need a value of type {name}{hint}")
  return value


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
  """Loads a config file, `path.py` or `path.py:argument`, with overrides.

  Args:
    spec: the file, with arguments of its get_config after a colon.
    overrides: strings `--config.key.sub=value`.

  Returns:
    The checked config. A config in the form of big_vision's config files is
    laid over our defaults, see `config.big_vision`.
  """
  path, _, arg = spec.partition(":")
  if not pathlib.Path(path).is_file():
    raise UserError(f"--config: no file {path!r}")
  with _one_line(path):
    loader = importlib.machinery.SourceFileLoader("config", path)
    module_spec = importlib.util.spec_from_loader("config", loader)
    module = importlib.util.module_from_spec(module_spec)
    loader.exec_module(module)
  get_config = getattr(module, "get_config", None)
  if not callable(get_config):
    raise UserError(f"--config: {path} has no function get_config")
  if arg and not inspect.signature(get_config).parameters:
    raise UserError(
      f"--config: get_config of {path} takes no argument: {arg!r}"
    )
  with _one_line(path):
    config = get_config(arg) if arg else get_config()
  if not isinstance(config, ConfigDict):
    raise UserError(
      f"--config: get_config of {path} returns {type(config).__name__}: need "
      "a ConfigDict"
    )
  if big_vision.is_one(config, default_config()):
    config = big_vision.over_default(config, default_config())
  for override in overrides:
    _override(config, override)
  if "input" in config:
    checks.check(config, default_config())
  else:  # a study's config
    checks.check_leaves(config)
  return config


@contextlib.contextmanager
def _one_line(path):
  """Turns an error in a config file into one line that names the line."""
  try:
    yield
  except UserError:
    raise
  except Exception as e:
    line = e.lineno if isinstance(e, SyntaxError) else None
    for frame in traceback.extract_tb(e.__traceback__):
      line = frame.lineno if frame.filename == path else line
    where = f"--config: {path}, line {line}" if line else f"--config: {path}"
    # Replaces ml_collections' message, which lists the whole config.
    if missing := re.match(r"""['"]*Key "(.*?)" does not exist""", str(e)):
      # ml_collections knows which config it is, a run's or a study's.
      if theirs := re.search(r'Did you mean "(.*?)"', str(e)):
        near = f"did you mean {theirs[1]!r}?"
      else:
        leaves = checks.leaves("", default_config())
        near = did_you_mean(missing[1], {k.split(".")[-1] for k, _ in leaves})
      raise UserError(f"{where}: no key {missing[1]!r}: {near}") from e
    reason = getattr(e, "msg", None) or str(e)
    raise UserError(f"{where}: {type(e).__name__}: {reason}") from e


# Used instead of ml_collections.config_flags, which cannot override a list or a
# value that is None, set a value back to None, or give a model an argument that
# the config file leaves out, and which answers mistakes with several lines or a
# traceback.
def _override(config, text):
  key, equals, value = text.removeprefix("--config.").partition("=")
  if not text.startswith("--config.") or not equals:
    raise UserError(
      f"{text!r} is not an argument; overrides are --config.key=value"
    )
  *parents, last = key.split(".")
  place, default = config, default_config()
  for depth, part in enumerate([*parents, last]):
    where = ".".join(["--config", *key.split(".")[:depth]])
    if not isinstance(place, ConfigDict):
      raise UserError(f"{where} is a value, it has no key {part!r}")
    if part not in place:
      if depth == len(parents) and not place.is_locked:
        place[part] = _literal(value)
        return
      raise names.unknown(where, part, place or ["(none)"])
    default = default.get(part, {}) if isinstance(default, ConfigDict) else {}
    if depth < len(parents):
      place = place[part]
  # A key whose default is None may be set back to None.
  optional = default is None
  parsed = _parse(value, place.get_type(last), f"--config.{key}", optional)
  with place.ignore_type():
    place[last] = parsed


def parse_command_line(
  parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[ConfigDict, argparse.Namespace]:
  """Reads `--config FILE[:arg] [--config.key=value ...]` and other flags.

  Args:
    parser: a parser that has the other flags and does not allow abbreviations.
    argv: the command line, by default that of the process.

  Returns:
    The config, and the values of all flags.
  """
  parser.add_argument(
    "--config", required=True, help="config file, with arguments after a colon"
  )
  args, rest = parser.parse_known_args(argv)
  return load(args.config, rest), args


def as_json(config: ConfigDict) -> dict[str, Any]:
  """The config as plain JSON values, tuples as lists."""
  return json.loads(json.dumps(config.to_dict()))
