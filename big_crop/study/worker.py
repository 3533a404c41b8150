"""Trains a study's runs with any number of workers.

Every worker runs the same loop: take a pending run that no other worker holds,
train it, take the next. Workers on one or many hosts coordinate through the
locks alone.
"""

import contextlib
import gc
import sys
import time

from tqdm import tqdm

from big_crop.runtime import stop
from big_crop.study import grid, locks, runs
from pp_ops.errors import UserError


def work(
  study: grid.Study,
  workdir: str,
  train,
  *,
  index: int | None = None,
  retry_failed: bool = False,
  together: int = 1,
) -> int:
  """Trains pending runs until none is left that this worker can take.

  Args:
    study: the study.
    workdir: the study's folder.
    train: (config, workdir) -> anything; `big_crop.train.run`.
    index: train only this run.
    retry_failed: also take failed runs; they continue where they stopped.
    together: how many runs to train at a time, as one program.

  Returns:
    The exit status: 1 if a run failed, or if in the end the run `index` is not
    done; otherwise 0, also after a request to stop.
  """
  found = runs.states(study, workdir)
  if index is not None:
    if not 0 <= index < len(found):
      raise UserError(
        f"--index {index}: the study's runs are 0 to {len(found) - 1}"
      )
  mine = found if index is None else [found[index]]
  show = Progress(found)
  failed, left = 0, list(mine)
  while left and not stop.requested():
    group = [left.pop(0)]
    if together > 1 and group[0].status() == runs.PENDING:
      group += _companions(group[0], left, together - 1)
    failed += _take(group, train, retry_failed, show)
  if index is None or stop.requested():
    return int(failed > 0)
  return int(mine[0].status() != runs.DONE)


def _companions(first, left, number):
  """Takes up to `number` pending runs that can be trained with `first`."""
  from big_crop import together  # slow

  found = []
  for state in list(left):
    if len(found) == number:
      break
    fits = not together.difference(first.run.config, state.run.config)
    if fits and state.status() == runs.PENDING:
      left.remove(state)
      found.append(state)
  return found


def _take(group, train, retry_failed, show):
  """Trains those runs of a group that it can lock; returns how many failed."""
  failed, mine = 0, []
  with contextlib.ExitStack() as held:
    for state in group:
      if state.summary:
        continue
      got = held.enter_context(locks.held(state.lock))
      # Checked again, because another worker may have finished the run between
      # the first check and our lock.
      if state.summary:
        continue
      if not got:
        show.line(state, "is with another worker")
      elif state.failure and not retry_failed:
        show.line(state, f"failed: {state.failure['error']}")
        failed += 1
      else:
        mine.append(state)
        held.enter_context(stop.cleaning(state.lock.release))
    if not mine:
      return failed
    start = time.time()
    show.bar()
    for state in mine:
      state.forget_failure()
      show.line(state, "goes on" if state.begun() else "begins")
    try:
      for state in mine:
        state.begin()
      pairs = [(s.run.config, str(s.path)) for s in mine]
      if len(mine) == 1:
        results = [train(*pairs[0])]
      else:
        results = _train_together(pairs, train)
    except Exception as e:
      results = [e] * len(mine)
    finally:
      stop.hold(False)  # Ctrl-C may end us now: the next run has not begun.
      _clear()
    for state, result in zip(mine, results, strict=True):
      if isinstance(result, Exception):
        show.line(state, f"failed: {state.fail(result)}")
        failed += 1
  ended = [state for state in mine if state.summary]
  for state in ended:
    show.line(state, f"done in {time.time() - start:.0f} s")
  if ended:
    show.bar()
  return failed


def _train_together(pairs, train):
  """Trains (config, workdir) pairs as one program, or apart if they must be."""
  from big_crop import together

  try:
    return together.run(*zip(*pairs, strict=True))
  except together.ApartError:
    results = []
  for pair in pairs:
    try:
      results.append(None if stop.requested() else train(*pair))
    except Exception as e:
      results.append(e)
  return results


def _clear():
  """Frees a run's compiled programs, because a worker may train hundreds."""
  if "jax" in sys.modules:
    sys.modules["jax"].clear_caches()
  gc.collect()


class Progress:
  """A progress bar over the whole study, other workers' runs included."""

  def __init__(self, found: list[runs.RunState]):
    """Starts the clock.

    Args:
      found: all runs. A run's share of the bar is its number of epochs (or of
        steps, or of examples).
    """
    self._found = found
    self._start, self._initial = time.time(), self._done()

  def _done(self):
    return sum(_weight(s) for s in self._found if s.ended())

  def bar(self) -> None:
    """Prints how far the study is, and how long the rest will take."""
    ended = sum(s.ended() for s in self._found)
    _print(
      tqdm.format_meter(
        self._done(),
        sum(map(_weight, self._found)),
        time.time() - self._start,
        prefix=f"study: {ended} of {len(self._found)} runs",
        initial=self._initial,
        bar_format="{desc}: {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}",
      )
    )

  def line(self, state: runs.RunState, what: str) -> None:
    """Prints what happens to a run."""
    _print(f"run {state.run.index} ({state.run.name}) {what}")


def _print(text):
  print(text, file=sys.stderr, flush=True)


def _weight(state):
  config = state.run.config
  # A run of zero steps only evaluates, and counts as 0.
  return config.total_epochs or config.total_steps or config.total_examples or 0


def start_jobs(count: int, argv: list[str]) -> int:
  """Runs `count` workers as processes of this host and waits for them.

  Args:
    count: how many.
    argv: their arguments after `python -m big_crop.study`.

  A request to stop is passed on to all of them.

  Returns:
    The exit status, the largest of theirs.
  """
  for _ in range(count):
    stop.start([sys.executable, "-m", "big_crop.study", *argv])
  return max(map(abs, stop.wait()))
