"""Checkpoints with Orbax: asynchronous, complete or not there at all.

A checkpoint holds the train state, and what hosts must remember: where each
host is in its stream of examples, and for how long the run has been going. Its
checksums.json tells whether the disk has kept all of it unchanged.
"""

import contextlib
import itertools
import logging
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from big_crop import trees
from big_crop.runtime import checksums, storage
from pp_ops.errors import UserError

DIRECTORY = "checkpoints"
# This file has no checksum, because Orbax still writes to it after
# `Checkpoints._write_checksums`. No restored value depends on it.
_ORBAX_NOTES = "_CHECKPOINT_METADATA"


def _be_silent():
  """Silences other reports of a failed save, to leave only our line."""
  # Orbax's threads log the error with a traceback.
  logging.getLogger("absl").addFilter(
    lambda record: not (record.exc_info and "orbax" in record.pathname)
  )
  # TensorStore reports each array to an event loop that Orbax has closed, which
  # raises where nobody can catch it.
  before = sys.unraisablehook

  def hook(unraisable):
    if str(unraisable.exc_value) != "Event loop is closed":
      before(unraisable)

  sys.unraisablehook = hook


_be_silent()


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, workdir: str, keep_every: int | None = None):
    """Opens `workdir`/checkpoints, and makes it if it is not there.

    Checkpoints of steps that `keep_every` divides are kept. Besides, the last
    two are kept, so that one is complete whatever happens to the other.
    """
    self.path = _folder(workdir)
    self._saving = None
    self._manager = ocp.CheckpointManager(
      self.path,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=2,
        keep_period=keep_every,
        enable_async_checkpointing=True,
        # Only the first host loads, and sends to the others, because on a
        # shared filesystem other hosts may see a folder a while longer than the
        # host that renamed it.
        single_host_load_and_broadcast=True,
        # Orbax calls this on the first host, in the thread that saves, after
        # all files are written and before the folder gets its final name.
        async_options=ocp.AsyncOptions(
          post_finalization_callback=self._write_checksums
        ),
      ),
      item_handlers={
        "state": ocp.StandardCheckpointHandler(),
        "host": ocp.JsonCheckpointHandler(),
      },
    )

  def latest(self) -> int | None:
    """The step of the last complete checkpoint."""
    return self._manager.latest_step()

  def save(self, step: int, state: Any, host: dict[str, Any]) -> None:
    """Starts to save; the caller may donate or delete the state at once.

    Raises:
      ValueError: in one line, if this or the last save failed, for example
        because the disk is full. `wait` and `close` raise it, too.
    """
    with self._naming_the_last():
      # Waits for the previous save, because until then `_write_checksums` needs
      # the path of that save in `self._saving`.
      self._manager.wait_until_finished()
      self._saving = self.path / str(step)
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          host=ocp.args.JsonSave({**host, checksums.NAME: True}),
        ),
      )

  def _write_checksums(self):
    find = ocp.path.atomicity_defaults.get_default_temporary_path_class
    temporary = find(self._saving).from_final(self._saving).get()
    checksums.write(temporary, leave_out=_ORBAX_NOTES)

  @contextlib.contextmanager
  def _naming_the_last(self) -> Iterator[None]:
    """Turns a failed save into one line: the cause, the last checkpoint."""
    try:
      yield
    except (OSError, ValueError) as e:
      step = self.latest()
      last = "none yet" if step is None else self.path / str(step)
      # Only the system's or the store's own words are kept of TensorStore's
      # long message.
      why, _, code = str(e).partition(" [os_error_code")
      why = why.rpartition(": ")[2] if code else why
      why = why.partition(" [tensorstore_spec=")[0]
      raise UserError(
        f"a checkpoint could not be saved: {why}; last good checkpoint: {last}"
      ) from e

  def restore(self, step: int, target: Any) -> tuple[Any, dict[str, Any]]:
    """Restores the state onto the devices, and the `host` dict saved with it.

    `target` is the state's tree of `jax.ShapeDtypeStruct` with shardings. The
    number of devices may differ from that of the run that saved.
    """
    folder = self.path / str(step)
    with _perhaps_unchecked(folder):
      saved = self._manager.item_metadata(step)["state"]
      _check_same(saved, target, f"{folder}")
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(target), host=ocp.args.JsonRestore()
        ),
      )
    host = {k: v for k, v in restored["host"].items() if k != checksums.NAME}
    return restored["state"], host

  def wait(self) -> None:
    """Waits until all saves are complete on disk."""
    with self._naming_the_last():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits like `wait`, then ends Orbax's threads."""
    with self._naming_the_last():
      self._manager.close()


def _check_same(saved, target, where):
  saved, target = (
    {k: tuple(x.shape) for k, x in trees.named_leaves(t) if hasattr(x, "shape")}
    for t in (saved, target)
  )
  for name in sorted(saved.keys() | target.keys()):
    if saved.get(name) != target.get(name):
      raise UserError(
        f"checkpoint {where} is of another model: {name} is "
        f"{saved.get(name, 'missing')} there and "
        f"{target.get(name, 'missing')} here"
      )


def latest_step(*workdirs: str, tidy: bool = False) -> int | None:
  """The last step of which every workdir has an undamaged checkpoint.

  Prints one line for each later checkpoint that is damaged.

  Args:
    workdirs: folders of runs.
    tidy: remove what killed saves have left and whole later checkpoints, and
      rename damaged later ones, so that their steps can be saved again. Only
      the one process that goes on from the step may ask for it.

  Returns:
    The step, or None if there are no checkpoints at all.

  Raises:
    ValueError: in one line, if there are checkpoints, but no step is undamaged
      in every workdir.
  """
  steps = {folder: _steps(folder) for folder in map(_folder, workdirs)}
  if tidy:
    for path in itertools.chain(*map(_entries, steps)):
      if ocp.utils.is_tmp_checkpoint(path):
        path.rmtree()
  damaged, ahead = {}, []
  for step in sorted(set().union(*steps.values()), reverse=True):
    here = [folder / str(step) for folder in steps if step in steps[folder]]
    found = {path: what for path in here if (what := _damage(path))}
    if len(here) == len(steps) and not found:
      break
    damaged |= found
    ahead += [path for path in here if path not in found]
  else:
    if not any(steps.values()):
      return None
    raise UserError(_none_is_whole(list(steps), damaged))
  for path, what in damaged.items():
    kept = ""
    if tidy:
      aside = path.parent / f"{path.name}.damaged"
      aside.rmtree() if aside.is_dir() else aside.unlink(missing_ok=True)
      path.rename(aside)
      kept = f" (it is kept as {aside.name})"
    _say(
      f"checkpoint {path} is damaged: {what}; going on from "
      f"{path.parent / str(step)}{kept}"
    )
  for path in ahead if tidy else []:
    # Orbax saves no step before one that is there.
    path.rmtree()
  return step


def _folder(workdir):
  return storage.path(workdir) / DIRECTORY


def _entries(folder):
  return list(folder.iterdir()) if folder.is_dir() else []


def _steps(folder):
  """The steps that are names in the folder, even the name of a stray file."""
  return {
    int(path.name)
    for path in _entries(folder)
    if path.name.isdecimal()
    and path.name == str(int(path.name))
    and (not path.is_dir() or ocp.utils.is_checkpoint_finalized(path))
  }


def _damage(path):
  """What is wrong with a checkpoint, in words; None if it is whole."""
  if not path.is_dir():
    return "it is not a folder"
  if (path / checksums.NAME).exists():
    return checksums.damage(path)
  try:
    host = (path / "host" / "metadata").read_text()
  except (OSError, UnicodeError):
    return f"neither {checksums.NAME} nor host/metadata can be read"
  # Checkpoints of earlier versions have no checksums. In later ones, the host's
  # JSON says that there is a file of checksums, so that its loss is noticed.
  return f"{checksums.NAME} is missing" if checksums.NAME in host else None


def _none_is_whole(folders, damaged):
  details = "; ".join(f"{path}: {what}" for path, what in damaged.items())
  if len(folders) > 1:
    return (
      "runs cannot go on together: they have no whole checkpoint of the same "
      f"step in common; train them apart{details and f' ({details})'}"
    )
  return (
    f"no checkpoint in {folders[0]} is whole ({details}): put a good copy of "
    "one there, or remove that folder to train from the start"
  )


def _say(text):
  if jax.process_index() == 0:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _perhaps_unchecked(path: epath.Path) -> Iterator[None]:
  """Surrounds the reading of a checkpoint that may have no checksums.

  If it has none, because an earlier version saved it, prints a line that says
  so, and turns errors of the reading into one line.
  """
  if (path / checksums.NAME).exists():
    yield
    return
  _say(
    f"checkpoint {path} is read unchecked: an earlier version saved it, "
    "without checksums"
  )
  try:
    yield
  except UserError:
    raise
  except Exception as e:
    reason = str(e).partition("\n")[0]
    raise UserError(
      f"checkpoint {path} cannot be read: {reason}; remove it to go on from "
      "the one before"
    ) from e


def load_variables(path: str) -> dict[str, Any]:
  """Loads another run's parameters and model state as NumPy arrays.

  `path` is a workdir, of which the last checkpoint is loaded, or the folder of
  one checkpoint. Returns `{"params": ..., "batch_stats": ...}`; if the run kept
  averaged weights, these are the averages.
  """
  folder = storage.path(path)
  if (step := latest_step(path)) is not None:
    folder = folder / DIRECTORY / str(step)
  elif not (folder / "state").is_dir():
    raise UserError(f"no checkpoint in {path}")
  elif what := _damage(folder):
    raise UserError(f"checkpoint {folder} is damaged: {what}")
  with (
    _perhaps_unchecked(folder),
    ocp.PyTreeCheckpointer() as checkpointer,
  ):
    structure = checkpointer.metadata(folder / "state").item_metadata.tree
    as_numpy = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), structure
    )
    state = checkpointer.restore(folder / "state", restore_args=as_numpy)
  if state.get("ema"):
    return state["ema"]
  return {"params": state["params"], **state["model_state"]}
