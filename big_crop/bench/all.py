"""Every benchmark that the machine can run, and one page of what they print.

    python -m big_crop.bench all --out DIR --images IMAGES

Fifteen minutes on two cores. DIR gets bench.md, with the machine's facts and,
for each benchmark, its command and its output; and each one's results as JSON.
Peers run in turns with ours where torch, torchvision and timm are installed.
The pipeline needs a folder of images and TensorFlow. A benchmark that fails is
named in the page, with its error, and the others go on.
"""

import importlib.util
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time

from tqdm import tqdm

from big_crop.bench import output
from big_crop.runtime import commands, outputs, stop
from pp_ops.errors import UserError

_CROP = "decode_jpeg_and_inception_crop_fixed(224{})"
_PIPELINE = [
  *("--ceiling", "--seconds", "2", "--repeats", "3"),
  *("--pp", _CROP.format("")),
  *("--pp", _CROP.format(", antialias=True")),
  *("--pp", _CROP.format("") + "|randaug(2, 10)"),
]
_STEP = ["--steps", "1", "--repeats", "5"]
# Title: the benchmark and its arguments; `--peers` is added where it exists.
BENCHMARKS = {
  "pipeline": ["pipeline", *_PIPELINE],
  "sampler": ["sampler", "--samples", "262144", "--repeats", "3"],
  "step-vit": ["step", "--flax_attention", *_STEP],
  "step-resnet": ["step", "--model", "resnet", "--variant", "50", *_STEP],
  "infer": ["infer", "--models", "resnet-50", "vit-S/16"],
  "train": [
    *("train", "--config", "configs/quickstart.py"),
    *("--warmup", "5", "--steps", "40"),
  ],
  "device": ["device"],
  "scaling": ["scaling", "--variant", "Ti/16", "--res", "64", "--devices"],
}
_PEERS = {
  "pipeline": ("torch", "torchvision"),
  "step": ("torch", "timm"),
}
# What says how fast matrix products and JPEG decoding can be.
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def _there(packages):
  return all(map(importlib.util.find_spec, packages))


def _devices():
  """The kind of JAX's devices, and how many.

  In a process of its own, because JAX would keep a GPU's memory.
  """
  code = "import jax; d = jax.devices(); print(len(d), d[0].device_kind)"
  done = subprocess.run(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
  )
  count, kind = done.stdout.strip().split(maxsplit=1)
  return kind, int(count)


def _chosen(images, kind, count):
  """Yields (title, benchmark and arguments, why it is left out, or "")."""
  for title, (name, *args) in BENCHMARKS.items():
    why = ""
    if name in _PEERS and _there(_PEERS[name]):
      args = ["--peers", *args]
    if name == "pipeline":
      if not images:
        why = "left out: --images names no folder"
      args = ["--images", str(images), *args]
    if name == "scaling":
      # Pretended devices of a CPU show what sharding costs.
      count = 2 if kind == "cpu" else count
      why = "" if count > 1 else "left out: there is one device"
      args += [str(2**i) for i in range(count.bit_length())]
    if name in ("pipeline", "train") and not _there(["tensorflow"]):
      why = "left out: needs TensorFlow"
    yield title, [name, *args], why


def _machine(kind, count):
  """Facts of the machine as (name, text)."""
  model, flags, cpuinfo = (
    platform.processor(),
    [],
    pathlib.Path("/proc/cpuinfo"),
  )
  if cpuinfo.exists():
    lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    found = {key.strip(): value.strip() for key, _, value in lines}
    model = found.get("model name", model)
    flags = found.get("flags", found.get("Features", "")).split()
  known = [flag for flag in _FLAGS if flag in flags]
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  yield "CPU", f"{model}, {os.cpu_count()} cores; {' '.join(known)}"
  yield "JAX's devices", f"{count} {kind}"
  yield "memory", f"{memory / 2**30:.0f} GiB"
  yield "system", f"{platform.platform()}, Python {platform.python_version()}"
  versions = output.versions()
  yield "versions", ", ".join(f"{k} {v}" for k, v in versions.items())


def _run(argv, log):
  """Returns what the command printed, or its error; and whether it failed."""
  with open(log, "w") as errors:
    process = stop.start(
      [sys.executable, "-m", "big_crop.bench", *argv],
      stdout=subprocess.PIPE,
      stderr=errors,
      text=True,
    )
    printed = process.communicate()[0]
  if process.returncode == 0:
    log.unlink()
    return printed.strip(), False
  last = (log.read_text().strip() or "no message").splitlines()[-1]
  return f"failed with status {process.returncode}: {last}", True


def _page(machine, sections):
  rows = "".join(f"| {name} | {text} |\n" for name, text in machine)
  page = f"# big_crop's benchmarks\n\n| machine | |\n| --- | --- |\n{rows}"
  for title, argv, text, seconds in sections:
    page += f"\n## {title}\n\n"
    if seconds is None:
      page += f"{text}\n"
      continue
    command = shlex.join(["python", "-m", "big_crop.bench", *argv])
    page += f"```sh\n{command}\n```\n\n```text\n{text}\n```\n\n"
    page += f"{seconds:.0f} s\n"
  return page


def main(argv: list[str]) -> None:
  """Runs the command."""
  parser = commands.parser(__doc__, prog="python -m big_crop.bench all")
  add = parser.add_argument
  add("--out", required=True, help="folder for the page and the results")
  add("--images", help="folder of images of natural size, for the pipeline")
  add("--only", nargs="+", metavar="NAME", help=f"of {' '.join(BENCHMARKS)}")
  args = parser.parse_args(argv)
  if unknown := set(args.only or ()) - set(BENCHMARKS):
    raise UserError(f"--only {min(unknown)}: of {', '.join(BENCHMARKS)}")
  if args.images and not pathlib.Path(args.images).is_dir():
    raise UserError(f"--images {args.images} is not a folder")
  outputs.check_folder(args.out, "--out")
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  devices = _devices()
  machine, sections, failed = list(_machine(*devices)), [], []
  wanted = _chosen(args.images, *devices)
  wanted = [c for c in wanted if c[0] in (args.only or BENCHMARKS)]
  bar = tqdm(wanted, unit="benchmark")
  for title, command, why in bar:
    bar.set_description(title)
    start = time.monotonic()
    text, seconds = why, None
    if not why:
      file = out / f"{title}.json"
      text, broken = _run([*command, "--json", str(file)], out / f"{title}.log")
      seconds = time.monotonic() - start
      failed += [title] if broken else []
    sections.append((title, command, text, seconds))
    # After each, so that what there is survives a Ctrl-C.
    (out / "bench.md").write_text(_page(machine, sections))
  print(f"{out / 'bench.md'}")
  if failed:
    raise UserError(f"failed: {', '.join(failed)}; see {out}/NAME.log")
