"""What a run leaves behind and what a person sees while it goes."""

import json
import os
import sys
import time
from typing import Any

from etils import epath


def write_atomically(path: epath.Path, text: str) -> None:
  """Writes a file that is there either whole or not at all."""
  temporary = path.parent / f".{path.name}.tmp"
  temporary.write_text(text)
  temporary.replace(path)


def check_workdir(
  workdir: epath.Path, config: dict[str, Any], free: tuple[str, ...]
) -> None:
  """Checks that the workdir is free, or holds this config's run.

  Args:
    workdir: the run's folder; it need not exist.
    config: the resolved config, as JSON values.
    free: keys (dotted) that may change between restarts of one run.

  Raises:
    ValueError: if another config's run is in the folder.
  """
  path = workdir / "config.json"
  begun = [workdir / "checkpoints", workdir / "metrics.jsonl"]
  if not any(p.exists() for p in begun):
    return
  if path.exists():
    change = changed_key(json.loads(path.read_text()), config, free)
    if change:
      raise ValueError(
        f"workdir {workdir} holds another run: {change}; use another workdir"
      )
  else:
    raise ValueError(f"workdir {workdir} holds a run without a config.json")


def changed_key(
  old: dict[str, Any], new: dict[str, Any], free: tuple[str, ...]
) -> str | None:
  """`config.KEY is A there and B here` for two configs that differ.

  Args:
    old: a resolved config, as JSON values.
    new: another.
    free: keys (dotted) in which they may differ.

  Returns:
    The first key with its values, or None.
  """
  old, new = flat(old), flat(new)
  for key in sorted(old.keys() | new.keys()):
    there, here = old.get(key), new.get(key)
    if there != here and not key.startswith(free):
      return f"config.{key} is {there!r} there and {here!r} here"
  return None


def write_config(workdir: epath.Path, config: dict[str, Any]) -> None:
  """Makes the workdir and writes config.json."""
  workdir.mkdir(parents=True, exist_ok=True)
  text = json.dumps(config, indent=2) + "\n"
  write_atomically(workdir / "config.json", text)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
  """{dotted key: value} of nested dicts."""
  if not isinstance(tree, dict) or not tree:
    return {prefix.rstrip("."): tree}
  out = {}
  for k, v in tree.items():
    out |= flat(v, f"{prefix}{k}.")
  return out


class Metrics:
  """metrics.jsonl and TensorBoard; one JSON object for each logged step."""

  def __init__(self, workdir: epath.Path, start_step: int):
    """Opens the files.

    Args:
      workdir: the run's folder.
      start_step: step of the checkpoint that the run goes on from; what was
        logged after it will be logged again, and is dropped.
    """
    from clu import metric_writers

    self._path = workdir / "metrics.jsonl"
    kept = [r for r in read_metrics(workdir) if r["step"] <= start_step]
    write_atomically(self._path, "".join(json.dumps(r) + "\n" for r in kept))
    self._writer = metric_writers.AsyncMultiWriter(
      [metric_writers.SummaryWriter(os.fspath(workdir))]
    )

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Adds one step's metrics."""
    with self._path.open("a") as f:
      f.write(json.dumps({"step": step, **metrics}) + "\n")
    self._writer.write_scalars(step, metrics)

  def close(self) -> None:
    """Writes what is pending."""
    self._writer.close()


def read_metrics(workdir: epath.Path) -> list[dict[str, float]]:
  """The records of metrics.jsonl, without a torn last line."""
  path = workdir / "metrics.jsonl"
  if not path.exists():
    return []
  records = []
  for line in path.read_text().splitlines():
    try:
      records.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return records


class Progress:
  """The live line: step, loss, learning rate, images/s and time left."""

  def __init__(
    self,
    total_steps: int,
    batch_size: int,
    start_step: int,
    *,
    silent: bool = False,
  ):
    self._total, self._batch_size = total_steps, batch_size
    self._live, self._silent = sys.stderr.isatty(), silent
    self._last_line = 0.0
    self.resume(start_step)

  def resume(self, step: int) -> None:
    """Starts the clock, at the start and after a pause such as an eval."""
    self._step, self._time = step, time.perf_counter()

  def rate(self, step: int) -> float:
    """Images per second since the last `resume` or `update`."""
    elapsed = time.perf_counter() - self._time
    return (step - self._step) * self._batch_size / max(elapsed, 1e-9)

  def update(self, step: int, loss: float, lr: float) -> float:
    """Shows the line; returns images per second."""
    rate = self.rate(step)
    left = (self._total - step) * self._batch_size / max(rate, 1e-9)
    minutes, seconds = divmod(int(left), 60)
    hours, minutes = divmod(minutes, 60)
    now = time.perf_counter()
    if self._live or now - self._last_line > 5 or step == self._total:
      self.show(
        f"step {step}/{self._total}  loss {loss:.4f}  lr {lr:.3g}  "
        f"{rate:.0f} images/s  ETA {hours}:{minutes:02d}:{seconds:02d}",
        keep=not self._live,
      )
      self._last_line = now
    self.resume(step)
    return rate

  def show(self, text: str, keep: bool = True) -> None:
    """Prints a line; one that is not kept is written over by the next."""
    if self._silent:
      return
    if self._live:
      text = f"\r\033[K{text}"
    print(text, end="\n" if keep else "", file=sys.stderr, flush=True)
