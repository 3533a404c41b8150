"""A user's mistakes: one line that says what is wrong, status 2, no files left.

Each case is a command line as a user types it, run as a process of its own. Two
are started afresh by Python; the others are forked, which shares the imports.
"""

import io
import json
import os
import pathlib
import resource
import shlex
import subprocess
import sys

import forked_commands
import numpy as np
import pytest
from PIL import Image

from big_crop import config as configs

PLAIN = {
  "PYTHONPATH": str(pathlib.Path(__file__).parents[1]),
  "PYTHONDONTWRITEBYTECODE": "1",  # beside the users' config files
}

TINY = """
from big_crop.config import default_config, parse_arg

def get_config(arg=None):
  a = parse_arg(arg, lr=0.1, seed=0)
  c = default_config()
  c.seed, c.lr, c.total_steps = a.seed, a.lr, 2
  c.input.data.name = "photos"
  c.input.pp = "decode|resize(16)|value_range(-1, 1)"
  c.input.batch_size = 8
  c.model = dict(width=8, depth=1, mlp_dim=8, num_heads=1, patch_size=(8, 8))
  c.evals.val = dict(data=dict(name="photos", split="validation"))
  c.evals.val.pp_fn = c.input.pp
  return c
"""
STUDY = """
from big_crop.study.grid import default_study

def get_config():
  c = default_study()
  c.base, c.sets, c.seeds = "tiny.py", [dict(lr=[{lr}])], [0]
  return c
"""
FILES = {
  "tiny.py": TINY,
  "syntax.py": "x = 1\ndef get_config(:\n",
  "none.py": "def get_config():\n  pass\n",
  "bare.py": "x = 1\n",
  "raises.py": "def get_config():\n  return 1 / 0\n",
  "study.py": STUDY.format(lr=0.1),
  "study_bad.py": STUDY.format(lr=-1.0),
  "runs/config/config.json": '{"seed"',
  "runs/config/metrics.jsonl": "",
  "runs/list/config.json": "[1]",
  "runs/list/metrics.jsonl": "",
  "runs/metrics/metrics.jsonl": '{"step": 1}\n{"st\n{"step": 3}\n',
  "studied/runs/lr=0.1,seed=0/summary.json": '{"metrics"',
}


def jpeg(i):
  pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "JPEG")
  return file.getvalue()


def write(path, data=b""):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  """A folder of a user's files; commands run in folders beside them."""
  root = tmp_path_factory.mktemp("inputs")
  for name, text in FILES.items():
    write(root / name, text.encode())
  images = [jpeg(i) for i in range(20)]

  def folder(name, pattern="{c}/{i}.jpg", classes="ab"):
    for i, data in enumerate(images):
      file = pattern.format(c=classes[i % len(classes)], i=i)
      write(root / name / file, data)
    return root / name

  folder("photos")
  (folder("empty") / "e").mkdir()
  folder("single", classes="a")
  folder("extra", "train/{c}/{i}.jpg")
  folder("extra", "val/{c}/{i}.jpg", classes="abz")
  folder("flat", "{i}.jpg")
  folder("unlabelled", "train/{i}.jpg")
  (folder("dangling") / "a" / "x.jpg").symlink_to("nowhere.jpg")
  write(folder("heic") / "a" / "x.HEIC")
  write(folder("corrupt") / "a" / "0.jpg", b"no image")
  latin1 = os.fsencode(folder("latin1") / "a") + b"/\xe9.jpg"
  pathlib.Path(os.fsdecode(latin1)).write_bytes(images[0])
  (root / "nothing").mkdir()
  config = configs.as_json(configs.load(str(root / "tiny.py")))
  write(root / "runs/metrics/config.json", json.dumps(config).encode())
  return root


def everything(folder):
  return {p: p.is_file() and p.read_bytes() for p in folder.rglob("*")}


# (what follows "train --config tiny.py --workdir run --config.", what it says)
VALUES = [
  ("lrr=1", "did you mean 'lr'"),
  ("lr=-1", "config.lr=-1.0: need a number, 0 <= config.lr"),
  ("lr=1e999", "config.lr is inf"),
  ("lr=nan", "lr=nan: need a value of type float"),
  ("optax={'b1': 1e999}", "config.optax.b1 is inf"),
  ("optax.b1=5", "config.optax.b1=5: need a number"),
  ("optax.b1=x", "config.optax.b1='x': need a value of type float"),
  ("optax.b3=1", "b3"),
  ("optax_name=scale_by_adm", "scale_by_adam"),
  ("wd=-1", "config.wd=-1.0"),
  ("ema_decay=5", "0 <= config.ema_decay <= 1"),
  ("seed=-1", "0 <= config.seed <= 2,147,483,647"),
  ("seed=99999999999999999999", "need a whole number"),
  ("total_steps=None", "total_epochs"),
  ("total_steps=-1", "config.total_steps=-1"),
  ("total_epochs=1", "keep one"),
  ("mesh=[5]", "config.mesh=[5]: need a list of (str, int) pairs"),
  ("mesh=[]", "config.mesh is empty"),
  ("mesh=[('data', 3)]", "does not arrange 1 devices"),
  ("sharding_strategy=[5]", "need a list of (str, str) pairs"),
  ("lr_mults=[('(', 1)]", "bad regex '('"),
  ("wd_mults=[('.*', 'x')]", "need a list of (str, float) pairs"),
  ("pp_modules=[5]", "need a list of str items"),
  ("pp_modules=['no_such_module']", "no_such_module"),
  ("pp_modules=['my_ops.py']", "write 'my_ops'"),
  ("grad_accum=0", "config.grad_accum=0"),
  ("grad_accum=3", "nearest are 6 and 9"),
  ("ckpt_steps=0", "config.ckpt_steps=0"),
  ("keep_ckpt_steps=-1", "config.keep_ckpt_steps=-1"),
  ("log_training_steps=0", "config.log_training_steps=0"),
  ("num_classes=1", "config.num_classes is 1, but the dataset has 2"),
  ("loss=softmax_xnt", "softmax_xent"),
  ("targets.smoothing=2", "must be in [0, 1)"),
  ("mixing.mixup_alpha=-1", "must be >= 0"),
  ("mixup.p=-1", "must be at least 0"),
  ("schedule={'decay_typ': 'x'}", "decay_typ"),
  ("schedule.warmup_percent=2", "must be in [0, 1]"),
  ("model_name=vitt", "did you mean 'vit'"),
  ("model.depht=1", "did you mean 'depth'"),
  ("model.depth=-1", "config.model.depth=-1: need a whole number, 1 <="),
  ("model.width=0", "config.model.width=0"),
  ("model.width=10000000", "not enough memory"),
  ("model.dropout=2", "dropout must be in [0, 1)"),
  ("model.patch_size=(7, 7)", "can't be cut into patches of 7x7"),
  ("input.batch_size=0", "config.input.batch_size=0"),
  ("input.batch_size=10000000000", "has 18 examples"),
  ("input.repeats=0", "1 <= config.input.repeats <= 255"),
  ("input.engine=gpu", "unknown config.input.engine 'gpu'"),
  ("input.engine=device", "needs packed data"),
  ("input.data=5", "need a value of type dict"),
  ("input.data.nam=5", "did you mean 'name'"),
  ("input.data.name=/no/such/folder", "is not there"),
  ("input.data.name=7", "dataset '7'"),
  ("input.data.split=trian", "did you mean 'train'"),
  ("input.data.name=empty", "empty/e has no images"),
  ("input.data.name=single", "a single class"),
  ("input.data.name=extra", "extra/val/z: there is no such class folder"),
  ("input.data.name=flat", "20 images outside of class folders"),
  ("input.data.name=unlabelled", "unlabelled/train has no class folders"),
  ("input.data.name=nothing", "it is empty"),
  ("input.data.name=dangling", "a/x.jpg is a link to nowhere.jpg"),
  ("input.data.name=heic", "a/x.HEIC: .heic files are not read; convert"),
  ("input.data.name=latin1", r"\udce9.jpg': the name is not UTF-8"),
  ("input.pp=", "config.input.pp is not set"),
  ("input.pp=decode|resiz(16)", "did you mean 'resize'"),
  ("input.pp=decode|resize(16, antialia=1)", "did you mean 'antialias'"),
  ("input.pp=inception_crop_fixed(8, 50, 20)", "area_min=50"),
  ("input.pp=__import__('os').remove('x')", "is not an op"),
  ("input.pp=resize(16)|value_range", "as it is encoded: put decode before"),
  ("input.pp=keep('image', 'label')", "leaves 'image' as string: decode it"),
  ("input.pp=decode|value_range", "give the crop or resize a size"),
  ("input.pp=decode|resize(16)", "end input.pp with a float op"),
  ("input.pp=decode|resize(16384)|value_range", "not enough memory"),
  ("evals.val=5", "need a value of type dict"),
  ("evals.val.type=classificatio", "classification"),
  ("evals.val.pp=decode", "pp_fn"),
  ("evals.val.pp_fn=decod", "config.evals.val: unknown op 'decod'"),
  ("evals.val.batch_size=-8", "config.evals.val: batch_size=-8"),
]
# (the rest of the command line, what it says)
COMMANDS = [
  ("train --config nope.py --workdir w", "no file 'nope.py'"),
  ("train --config syntax.py --workdir w", "syntax.py, line 2: SyntaxError"),
  ("train --config none.py --workdir w", "returns NoneType"),
  ("train --config bare.py --workdir w", "has no function get_config"),
  ("train --config raises.py --workdir w", "line 2: ZeroDivisionError"),
  ("train --config tiny.py:lrr=1 --workdir w", "did you mean 'lr'"),
  (
    "train --config tiny.py --workdir w --config.total_steps=None"
    " --config.total_epochs=0",
    "total_steps = 0 evaluates",
  ),
  ("train --config tiny.py --workdir ''", "--workdir is empty"),
  ("train --config tiny.py --workdir tiny.py", "tiny.py is a file"),
  ("train --config tiny.py --workdir tiny.py/w", "tiny.py is a file"),
  ("train --config tiny.py --workdir /proc/w", "can't be written: No such"),
  ("train --config tiny.py --workdir runs/config", "config.json is damaged"),
  ("train --config tiny.py --workdir runs/list", "holds no JSON object"),
  ("train --config tiny.py --workdir runs/metrics", "line 2 is damaged"),
  ("measure --crop a --image_shape 8x8 --out tiny.py", "tiny.py is a file"),
  ("measure --crop a --image_shape 8x8 --out /proc/w", "can't be written"),
  ("measure --crop a --image_shape 8x8 --out w", "unknown op 'a'"),
  ("measure --crop beta_crop --image_shape 8 --out w", "need HxW"),
  ("measure --crop a --image_shape 1000000x1000000 --out w", "too large"),
  ("measure --crop a --image_shape 8x8 --samples nan --out w", "--samples=nan"),
  ("measure --crop a --images corrupt --out w", "corrupt/a/0.jpg"),
  ("measure --crop a --images nothing --out w", "no images in 'nothing'"),
  ("measure --crop a --images nowhere --out w", "there is no such folder"),
  ("measure --crop a --images heic --out w", "x.HEIC"),
  ("match --target a --family a --solve b --images corrupt", "a/0.jpg"),
  ("match --target beta_crop --family beta_crop --solve x", "--solve 'x'"),
  ("pack --data corrupt --res 8 --out w", "corrupt/a/0.jpg"),
  ("pack --data heic --res 8 --out w", "x.HEIC"),
  ("pack --data photos --res 0 --out w", "--res 0"),
  ("pack --data photos --res 8 --out tiny.py", "is a file"),
  ("pack --data photos --res 8 --out /proc/w", "/proc/w"),
  ("saliency --workdir photos --out w", "photos has no config.json"),
  ("saliency --workdir runs/config --out w", "config.json is damaged"),
  ("saliency --workdir photos --out tiny.py", "tiny.py is a file"),
  ("study list --config tiny.py --workdir w", "key of a study config"),
  ("study list --config study.py --workdir studied", "summary.json is damaged"),
  ("study run --config study.py --workdir tiny.py", "tiny.py is a file"),
  ("study run --config study.py --workdir w --index 7", "--index 7"),
  ("study run --config study_bad.py --workdir w", "config.lr=-1.0"),
  ("study report --reference --out tiny.py", "tiny.py is a file"),
  ("study report", "give --config and --workdir"),
  ("bench sampler --json nowhere/x", "nowhere is not there"),
]
CASES = [
  (f"train --config tiny.py --workdir w {shlex.quote(f'--config.{v}')}", text)
  for v, text in VALUES
] + COMMANDS


def check(result, message):
  assert result.status == 2, result.err
  lines = result.err.splitlines()
  (line,) = [x for x in lines if x.strip() and "image/s]" not in x]
  assert line.startswith("error: ") and message in line
  assert len(line) < 400


@pytest.mark.parametrize(("command", "message"), CASES, ids=lambda x: x[:60])
def test_one_line_and_nothing_left_behind(command, message, commands, inputs):
  before = everything(inputs)
  module, *argv = shlex.split(command)
  check(commands.run(f"big_crop.{module}", *argv, cwd=inputs), message)
  assert everything(inputs) == before


@pytest.mark.long
@pytest.mark.parametrize(("command", "message"), [CASES[1], COMMANDS[1]])
@pytest.mark.first(1)
def test_the_same_of_a_process_started_afresh(command, message, inputs):
  module, *argv = shlex.split(command)
  done = subprocess.run(
    [sys.executable, "-m", f"big_crop.{module}", *argv],
    env={**os.environ, **PLAIN},
    cwd=inputs,
    capture_output=True,
    text=True,
  )
  last = done.stderr.splitlines()[-1:]  # after TensorFlow's own lines
  check(forked_commands.Result(done.returncode, done.stdout, *last), message)


@pytest.mark.slow
def test_a_full_disk_names_the_last_good_checkpoint(inputs, tmp_path):
  """A limit of 100 KB a file stands in for the full disk."""
  big = "--config.model.width=64 --config.model.mlp_dim=256".split()
  command = [sys.executable, "-m", "big_crop.train", "--config", "tiny.py"]
  done = subprocess.run(
    [*command, "--workdir", str(tmp_path / "w"), *big],
    # Without the compilation cache, because its files are large, too.
    env={**os.environ, **PLAIN, "JAX_COMPILATION_CACHE_DIR": ""},
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**5,) * 2),
    cwd=inputs,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2, done.stderr
  assert "Traceback" not in done.stderr and "ERROR:absl" not in done.stderr
  assert done.stderr.splitlines()[-1] == (
    "error: a checkpoint could not be saved: File too large; last good "
    "checkpoint: none yet"
  )
