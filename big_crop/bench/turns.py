"""Times several loaders in turns, so that a busy machine slows all alike."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tqdm import tqdm

BATCH = 32
# Between turns, in which the last loader's workers fill their buffers and stop.
_PAUSE_S = 0.5


class Loader(NamedTuple):
  """Something to be timed.

  Attributes:
    name: what the table calls it.
    turn: seconds -> (images per second, CPU milliseconds per image), measured
      over about as many seconds.
  """

  name: str
  turn: Callable[[float], tuple[float, float]]


def turn(
  batches: Iterator[Any],
  buffered: int,
  cpu_time: Callable[[], float],
  seconds: float,
) -> tuple[float, float]:
  """Draws batches of `BATCH` images for about as many seconds.

  Args:
    batches: an endless iterator.
    buffered: the most batches that `batches` makes ahead. They are drawn before
      the clock starts.
    cpu_time: returns the CPU seconds used so far.
    seconds: length of the turn.

  Returns:
    See `Loader.turn`.
  """
  for _ in range(buffered + 1):
    next(batches)
  start, cpu_start, images = time.perf_counter(), cpu_time(), 0
  while (elapsed := time.perf_counter() - start) < seconds:
    next(batches)
    images += BATCH
  return images / elapsed, 1000 * (cpu_time() - cpu_start) / images


def take_turns(
  loaders: list[Loader], seconds: float, repeats: int
) -> list[dict[str, Any]]:
  """Gives each loader `repeats` turns of `seconds`, one after the other.

  Returns:
    For each loader a dict of `name`, the medians `images_per_s` and
    `cpu_ms_per_image`, and the turns' values `all_images_per_s` and
    `all_cpu_ms_per_image`.
  """
  turns = [[] for _ in loaders]
  total = repeats * len(loaders)
  for i in tqdm(range(total), "timing", unit="turn", leave=False):
    time.sleep(_PAUSE_S)
    i %= len(loaders)
    turns[i].append(loaders[i].turn(seconds))
  results = []
  for loader, values in zip(loaders, turns, strict=True):
    rates, costs = zip(*values, strict=True)
    results.append(
      {
        "name": loader.name,
        "images_per_s": statistics.median(rates),
        "cpu_ms_per_image": statistics.median(costs),
        "all_images_per_s": rates,
        "all_cpu_ms_per_image": costs,
      }
    )
  return results


def times_as_fast(one: dict[str, Any], other: dict[str, Any]) -> float:
  """The median, over the turns, of the ratio of two results' images/s."""
  pairs = zip(one["all_images_per_s"], other["all_images_per_s"], strict=True)
  return statistics.median(a / b for a, b in pairs)


def print_table(results: list[dict[str, Any]]) -> None:
  """Prints what `take_turns` returned."""
  width = max(len(r["name"]) for r in results)
  print(f"{'':{width}}  images/s  CPU ms/image  all images/s")
  for r in results:
    values = " ".join(f"{v:.0f}" for v in r["all_images_per_s"])
    print(
      f"{r['name']:{width}}  {r['images_per_s']:8.1f}"
      f"  {r['cpu_ms_per_image']:12.3f}  {values}"
    )
