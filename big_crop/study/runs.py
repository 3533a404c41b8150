"""A study's workdir, and the state of each run in it.

runs/NAME/                a run's workdir, as big_crop.train leaves it, with
runs/NAME/begun.json      the digests of config, code and data at its start
runs/NAME/failed.json     why it failed, if it did
locks/NAME/               the worker that is training it
report/                   the output of `report`
"""

import json
import traceback
from typing import Any

from big_crop import config as configs
from big_crop.runtime import records, storage
from big_crop.study import fingerprint, grid, locks, reach
from pp_ops.errors import UserError

DONE, RUNNING, FAILED, PENDING = "done", "running", "failed", "pending"


class RunState:
  """One run in a workdir."""

  def __init__(self, workdir: str, run: grid.Run):
    """Names the run's files without reading them."""
    root = storage.path(workdir)
    self.run = run
    self.path = root / "runs" / run.name
    self.lock = locks.Lock(root / "locks" / run.name)

  def _json(self, name):
    path = self.path / name
    return records.read_json(path) if path.exists() else None

  def _write(self, name, value):
    self.path.mkdir(parents=True, exist_ok=True)
    storage.write(self.path / name, json.dumps(value, indent=2) + "\n")

  @property
  def summary(self) -> dict[str, Any] | None:
    """summary.json of a finished run."""
    return self._json("summary.json")

  @property
  def failure(self) -> dict[str, str] | None:
    """`error` (one line) and `traceback` of a failed run."""
    return self._json("failed.json")

  def ended(self) -> bool:
    """Whether the run is done or failed; cheaper than `status`."""
    ends = ("summary.json", "failed.json")
    return any((self.path / name).exists() for name in ends)

  def status(self) -> str:
    """One of `DONE`, `RUNNING`, `FAILED`, `PENDING`."""
    if self.summary:
      return DONE
    if self.lock.holder():
      return RUNNING
    return FAILED if self.failure else PENDING

  def metrics(self) -> list[dict[str, float]]:
    """The records of metrics.jsonl."""
    return records.read_metrics(self.path)

  def digests(self) -> dict[str, str]:
    """Digests of the config, code and data that the run would have now."""
    config = self.run.json_config
    return {
      "config": fingerprint.of_config(config),
      "code": fingerprint.of_code(config),
      "data": fingerprint.of_data(config),
    }

  def modules(self) -> dict[str, str]:
    """Digests of the modules that the run executes, by name."""
    return reach.digests(self.run.json_config)

  def begun(self) -> dict[str, Any] | None:
    """The contents of begun.json; None if the run has produced nothing yet.

    That is, if it has no checkpoint, no logged metric and no summary.
    """
    left = ("checkpoints", "metrics.jsonl", "summary.json")
    if not any((self.path / name).exists() for name in left):
      return None
    return self._json("begun.json") or {}

  def begin(self) -> None:
    """Writes begun.json, unless an earlier start has produced something."""
    if self.begun() is None:
      facts = {"versions": fingerprint.versions(), "modules": self.modules()}
      self._write("begun.json", {**self.digests(), **facts})

  def fail(self, error: Exception) -> str:
    """Writes an error to failed.json; returns it as one line."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    line = kind + (" ".join(str(error).split()) or "no message")
    text = "".join(traceback.format_exception(error))
    self._write("failed.json", {"error": line, "traceback": text})
    return line

  def forget_failure(self) -> None:
    """Makes a failed run pending again; it will continue where it stopped."""
    (self.path / "failed.json").unlink(missing_ok=True)

  def config_change(self) -> str | None:
    """How the config differs from the one the run was begun with, or None."""
    old = self._json("config.json")
    if self.begun() is None or old is None:
      return None
    return records.changed_key(old, self.run.json_config, configs.FREE_KEYS)


def states(study: grid.Study, workdir: str) -> list[RunState]:
  """The states of all runs of a study."""
  return [RunState(workdir, run) for run in study.runs]


def check_unchanged(found: list[RunState]) -> None:
  """Checks that all begun runs were begun with this config, code and data.

  Raises:
    ValueError: in one line, naming what changed.
  """
  for state in found:
    begun = state.begun()
    if begun is None:
      continue
    if change := state.config_change():
      raise UserError(_refusal(state, "config", change))
    now = state.digests()
    if begun.get("code") != now["code"]:
      raise UserError(_refusal(state, "code", _code_change(state, begun)))
    if begun.get("data") != now["data"]:
      what = "the images or their number are not those of then"
      raise UserError(_refusal(state, "data", what))


def _code_change(state, begun):
  old, new = begun.get("versions", {}), fingerprint.versions()
  moved = [f"{k} {old.get(k)} -> {new[k]}" for k in new if old.get(k) != new[k]]
  old, new = begun.get("modules", {}), state.modules()
  edited = [k for k in {**new, **old} if old.get(k) != new.get(k)]
  return ", ".join(moved) or f"edited: {_listed(edited)}"


def _listed(names):
  more = f" and {len(names) - 3} more" if len(names) > 3 else ""
  return ", ".join(names[:3]) + more


def _refusal(state, part, what):
  return (
    f"the {part} changed under run {state.run.index} ({state.run.name}), which "
    f"is begun: {what}; use another --workdir, or --allow_mixed"
  )


def mixtures(found: list[RunState]) -> list[str]:
  """Describes how the finished runs differ in config, code or data.

  Args:
    found: all runs.

  Returns:
    A sentence for each of config, code and data that is mixed; an empty list if
    none is.
  """
  lines = []
  done = [s for s in found if s.summary]
  changed = [s for s in done if s.config_change()]
  if changed:
    first = changed[0]
    lines.append(
      f"{len(changed)} of {len(done)} finished runs have another config than "
      f"the study now says; run {first.run.index} ({first.run.name}): "
      f"{first.config_change()}"
    )
  for what, used in (("code", _code), ("datasets", _data)):
    digests = {}
    for state in done:
      for name, digest in used(state, state.begun() or {}).items():
        digests.setdefault(name, set()).add(digest)
    if mixed := [name for name, found in digests.items() if len(found) > 1]:
      lines.append(
        f"the {what} changed between finished runs: {_listed(mixed)}"
      )
  return lines


def _code(state, begun):
  """{module or library: its digest or version} that a run was begun with."""
  then = begun.get("versions", {}) | begun.get("modules", {})
  return {name: then.get(name) for name in {**state.modules(), **then}}


def _data(state, begun):
  """{datasets: their digest} that a run was begun with."""
  places = fingerprint.datasets(state.run.json_config)
  names = [" ".join(filter(None, place)) for place in places]
  return {" with ".join(names): begun.get("data")}
