"""Checkpoints with Orbax: asynchronous, complete or not there at all.

A checkpoint holds the train state and what the host must remember: where each
host is in its stream of examples, and for how long the run has been going.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from pp_ops.errors import UserError

DIRECTORY = "checkpoints"


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, workdir: str, keep_every: int | None = None):
    """Opens `workdir`/checkpoints, made if need be.

    Args:
      workdir: the run's folder.
      keep_every: keeps the steps that this divides; beside these the last two
        stay, so that one is complete whatever happens to the other.
    """
    # Orbax wants absolute local paths.
    self.path = epath.Path(workdir).resolve() / DIRECTORY
    self._manager = ocp.CheckpointManager(
      self.path,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=2, keep_period=keep_every, enable_async_checkpointing=True
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
    """Starts to save; the state may be used up at once.

    Raises:
      ValueError: if this or the last save failed, because the disk is full,
        say; so do `wait` and `close`.
    """
    with self._naming_the_last():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(host)
        ),
      )

  @contextlib.contextmanager
  def _naming_the_last(self) -> Iterator[None]:
    """One line for a save that failed."""
    try:
      yield
    except (OSError, ValueError) as e:
      step = self.latest()
      last = "none yet" if step is None else self.path / str(step)
      raise UserError(
        f"a checkpoint could not be saved; last good checkpoint: {last}: {e}"
      ) from e

  def restore(self, step: int, target: Any) -> tuple[Any, dict[str, Any]]:
    """Restores a checkpoint onto the devices.

    Args:
      step: which.
      target: the state as `jax.ShapeDtypeStruct` with shardings; the number of
        devices may differ from the one that saved.

    Returns:
      The state, and the `host` that was saved with it.

    Raises:
      ValueError: if the checkpoint is of another model.
    """
    saved = self._manager.item_metadata(step)["state"]
    _check_same(saved, target, f"{self.path / str(step)}")
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(target), host=ocp.args.JsonRestore()
      ),
    )
    return restored["state"], restored["host"]

  def wait(self) -> None:
    """Waits until what was saved is complete on disk."""
    with self._naming_the_last():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and gives the threads back."""
    with self._naming_the_last():
      self._manager.close()


def _shapes(tree):
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  simple = lambda path: "/".join(
    str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))))
    for k in path
  )
  return {simple(p): tuple(x.shape) for p, x in flat if hasattr(x, "shape")}


def _check_same(saved, target, where):
  saved, target = _shapes(saved), _shapes(target)
  for name in sorted(saved.keys() | target.keys()):
    if saved.get(name) != target.get(name):
      raise UserError(
        f"checkpoint {where} is of another model: {name} is "
        f"{saved.get(name, 'missing')} there and "
        f"{target.get(name, 'missing')} here"
      )


def all_steps(workdir: str) -> list[int]:
  """The steps of the complete checkpoints in a workdir."""
  folder = epath.Path(workdir).resolve() / DIRECTORY
  return list(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def latest_step(workdir: str) -> int | None:
  """The step of the last complete checkpoint in a workdir, if any."""
  return max(all_steps(workdir), default=None)


def load_variables(path: str) -> dict[str, Any]:
  """Loads another run's parameters and model state as NumPy arrays.

  Args:
    path: a workdir (its last checkpoint) or one checkpoint's folder.

  Returns:
    `{"params": ..., "batch_stats": ...}`, the averages where there are any.

  Raises:
    ValueError: if there is no checkpoint.
  """
  folder = epath.Path(path).resolve()
  if (step := latest_step(path)) is not None:
    folder = folder / DIRECTORY / str(step)
  if not (folder / "state").is_dir():
    raise UserError(f"no checkpoint in {path}")
  with ocp.PyTreeCheckpointer() as checkpointer:
    structure = checkpointer.metadata(folder / "state").item_metadata.tree
    as_numpy = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), structure
    )
    state = checkpointer.restore(folder / "state", restore_args=as_numpy)
  if state.get("ema"):
    return state["ema"]
  return {"params": state["params"], **state["model_state"]}
