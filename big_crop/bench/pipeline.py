"""How many encoded images per second a pp string preprocesses.

The files are read into memory first. tf.data then maps the pp string over them
in an endless loop, in order and with a seed per example, as training does.
Several pipelines take turns in one run, so that a busy machine slows all of
them alike. The CPU time per image, of all threads and worker processes, depends
less on what else the machine does than images/s.
"""

import functools
import os
import pathlib
import statistics
import time

import tensorflow as tf

from big_crop.bench import output, peers
from big_crop.bench.turns import (
  BATCH,
  Loader,
  print_table,
  take_turns,
  times_as_fast,
  turn,
)
from big_crop.data import input_pipeline  # noqa: F401, it sets TensorFlow up
from pp_ops import registry
from pp_ops.errors import UserError
from pp_ops.laws.names import FUSED
from pp_ops.random import example_seed

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def find_images(directory: str) -> list[pathlib.Path]:
  """The image files below a directory, sorted.

  Raises:
    ValueError: if there are none.
  """
  files = sorted(pathlib.Path(directory).rglob("*"))
  files = [p for p in files if p.suffix.lower() in _SUFFIXES]
  if not files:
    raise UserError(f"--images {directory}: no {', '.join(_SUFFIXES)} there.")
  return files


def tf_loader(spec: str, files: list[bytes], threads: int) -> Loader:
  """A pp string over encoded images, by tf.data on `threads` threads."""
  preprocess = registry.get_preprocess_fn(spec)

  def one(index, data):
    seed = example_seed(0, 0, index)
    image = preprocess({"image": data, registry.SEED: seed})["image"]
    # Images of different sizes cannot be batched, so return one pixel of each.
    return image if image.shape.is_fully_defined() else image[0, 0]

  data = tf.data.Dataset.from_tensor_slices(files).repeat().enumerate()
  # More calls than threads, so that the threads do not wait while a batch is
  # put together.
  data = data.map(one, 2 * threads, deterministic=True).batch(BATCH, True)
  options = tf.data.Options()
  options.threading.private_threadpool_size = threads
  options.autotune.enabled = False
  batches = iter(data.with_options(options))
  return Loader(spec, functools.partial(turn, batches, 1, time.process_time))


def ceiling_of(spec: str) -> str | None:
  """The fused crop that a pp string begins with, without its size.

  Returns:
    A pp string that decodes the same windows and does nothing else. None if
    `spec` does not begin with a fused crop, or with CropMix's, which needs a
    size.
  """
  name, args, kwargs = registry.parse(spec)[0]
  if name.removeprefix(FUSED) in (name, "cropmix"):
    return None
  parts = [repr(a) for a in [None, *args[1:]]]
  parts += [f"{k}={v!r}" for k, v in kwargs.items() if k != "size"]
  return f"{name}({', '.join(parts)})"


def _augment_of(spec):
  """The key of `peers.AUGMENTS` whose loaders `spec` is compared with."""
  there = " ".join(op[0] for op in registry.parse(spec))
  found = [k for k, op in peers.AUGMENTS.items() if op and op in there]
  return found[0] if found else ""


def main(argv: list[str]) -> None:
  parser = output.parser("pipeline", __doc__)
  add = parser.add_argument
  add("--images", required=True, help="directory of encoded images")
  add("--pp", required=True, action="append", help="may be given repeatedly")
  add("--threads", type=int, default=os.cpu_count())
  add("--seconds", type=float, default=3.0, help="length of a turn")
  add("--repeats", type=int, default=5, help="turns of each pipeline")
  add("--ceiling", action="store_true",
      help="also decode the same windows and do nothing else")  # fmt: skip
  add("--peers", action="store_true",
      help="also torchvision's loaders, with as many workers; with RandAugment"
      " or CropMix for each --pp that has it")  # fmt: skip
  args = parser.parse_args(argv)
  if min(args.threads, args.repeats, args.seconds) <= 0:
    raise UserError("--threads, --repeats and --seconds must be above 0.")

  paths = find_images(args.images)
  specs = list(args.pp)
  if args.ceiling:
    specs += filter(None, dict.fromkeys(map(ceiling_of, specs)))
  files = [p.read_bytes() for p in paths]
  loaders = [tf_loader(spec, files, args.threads) for spec in specs]
  rivals = []
  if args.peers:
    augments = list(dict.fromkeys(map(_augment_of, args.pp)))
    rivals = peers.start(paths, args.threads, augments)
  results = take_turns(loaders + rivals, args.seconds, args.repeats)
  print(
    f"{len(files)} images, {args.threads} threads, {args.repeats} turns of"
    f" {args.seconds:g} s"
  )
  print_table(results)
  mean_mb = statistics.mean(map(len, files)) / 1e6
  by_name = {r["name"]: r for r in results}
  for r in results:
    r["encoded_mb_per_s"] = mean_mb * r["images_per_s"]
  for spec in args.pp:
    r, ceiling = by_name[spec], by_name.get(ceiling_of(spec))
    print(f"{spec}: {r['encoded_mb_per_s']:.1f} MB/s of encoded images")
    if ceiling:
      r["share_of_ceiling"] = times_as_fast(r, ceiling)
      share = ceiling["cpu_ms_per_image"] / r["cpu_ms_per_image"]
      print(
        f"  {r['share_of_ceiling']:.2f} times decoding alone, which is"
        f" {100 * share:.0f}% of the CPU time"
      )
    for peer in results[len(loaders) :]:
      if peer["name"] in peers.names([_augment_of(spec)]):
        print(f"  {times_as_fast(r, peer):.2f} times {peer['name']}")
  output.write(args, images=len(files), results=results)
