"""The records in a run's workdir: config.json, metrics.jsonl."""

import importlib.util
import json
import math
from typing import Any

from etils import epath

from big_crop.runtime import event_files, storage
from pp_ops.errors import UserError


def read_json(path: epath.Path) -> dict[str, Any]:
  """The content of a JSON file that a run has left."""
  try:
    found = json.loads(path.read_text())
  except UserError:
    raise  # The store cannot be reached: that is no damage of the file.
  except (OSError, ValueError) as e:  # ValueError includes invalid UTF-8
    raise UserError(f"{path} is damaged: {e}") from None
  if not isinstance(found, dict):
    raise UserError(f"{path} is damaged: it holds no JSON object")
  return found


def check_workdir(
  workdir: epath.Path, config: dict[str, Any], free: tuple[str, ...]
) -> None:
  """Raises unless the workdir is free or holds a run of this config.

  Args:
    workdir: the workdir.
    config: the resolved config, as JSON values.
    free: dotted keys that may change between restarts of one run.
  """
  path = workdir / "config.json"
  begun = [workdir / "checkpoints", workdir / "metrics.jsonl"]
  if not any(p.exists() for p in begun):
    return
  if path.exists():
    change = changed_key(read_json(path), config, free)
    if change:
      raise UserError(
        f"workdir {workdir} holds another run: {change}; use another workdir"
      )
  else:
    raise UserError(f"workdir {workdir} holds a run without a config.json")
  read_metrics(workdir)  # raises if a line is damaged


def changed_key(
  old: dict[str, Any], new: dict[str, Any], free: tuple[str, ...]
) -> str | None:
  """Says where two configs differ: `config.KEY is A there and B here`.

  Names the first key that differs, and is None if none does. Both are resolved
  configs of JSON values. The keys `free`, and those below them, may differ.
  """
  below = tuple(f"{key}." for key in free)
  old, new = flat(old), flat(new)
  for key in sorted(old.keys() | new.keys()):
    there, here = old.get(key), new.get(key)
    if there != here and key not in free and not key.startswith(below):
      return f"config.{key} is {there!r} there and {here!r} here"
  return None


def write_config(workdir: epath.Path, config: dict[str, Any]) -> None:
  """Makes the workdir and writes config.json."""
  workdir.mkdir(parents=True, exist_ok=True)
  text = json.dumps(config, indent=2) + "\n"
  storage.write(workdir / "config.json", text)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
  """{dotted key: value} of nested dicts."""
  if not isinstance(tree, dict) or not tree:
    return {prefix.rstrip("."): tree}
  out = {}
  for k, v in tree.items():
    out |= flat(v, f"{prefix}{k}.")
  return out


def best(logged: list[dict[str, float]]) -> dict[str, float]:
  """The best value of each evaluated metric over a run, and its step.

  Args:
    logged: all records of metrics.jsonl; a resumed run has the earlier ones.

  Returns:
    `val/top1_best` and `val/top1_best_step` for `val/top1`, and so on: the
    highest top-1 and top-5, the lowest loss and calibration error. Of equal
    values the first one counts. All other metrics are left out.
  """
  found = {}
  for record in logged:
    for key, value in record.items():
      where, _, name = key.rpartition("/")
      sign = -1 if name.startswith("top") else 1
      known = name.startswith(("top", "loss", "rms_calibration"))
      if where and known and math.isfinite(value):
        mine = (sign * value, record["step"], value)
        found[key] = min(found.get(key, mine), mine)
  return {
    f"{key}{name}": value
    for key, (_, step, top) in found.items()
    for name, value in (("_best", top), ("_best_step", step))
  }


class Metrics:
  """metrics.jsonl and TensorBoard; one JSON object for each logged step."""

  def __init__(self, workdir: epath.Path, start_step: int):
    """Opens the files, and drops records of steps after `start_step`.

    The run goes on from the checkpoint of that step, and logs them again.
    """
    kept = [r for r in read_metrics(workdir) if r["step"] <= start_step]
    text = "".join(json.dumps(r) + "\n" for r in kept)
    self._file = storage.Log(workdir / "metrics.jsonl", text.encode())
    # Event files are written if TensorBoard is installed.
    there = importlib.util.find_spec("tensorboard") is not None
    self._events = event_files.EventFile(workdir) if there else None

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Adds one step's metrics."""
    self._file.write((json.dumps({"step": step, **metrics}) + "\n").encode())
    self._file.flush()
    if self._events:
      self._events.write(step, metrics)


def read_metrics(workdir: epath.Path) -> list[dict[str, float]]:
  """The records of metrics.jsonl, without a torn last line."""
  path = workdir / "metrics.jsonl"
  if not path.exists():
    return []
  lines = path.read_bytes().splitlines()
  records = []
  for number, line in enumerate(lines, 1):
    try:
      records.append(json.loads(line))
      records[-1]["step"]
    except (ValueError, TypeError, KeyError):
      if number < len(lines):
        raise UserError(f"{path}, line {number} is damaged") from None
      return records[: number - 1]
  return records
