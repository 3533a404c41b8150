"""The progress line of a run: step, loss, learning rate, images/s, ETA.

tqdm and clu's ReportProgress are not used, because their clocks count
evaluations and checkpoints as training.
"""

import sys
import time

import jax
from tqdm import tqdm


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
    self._step, self._time = start_step, time.perf_counter()

  def pause(self, compiling: int | None = None) -> None:
    """Stops the clock: for evaluations, checkpoints and compilation.

    Args:
      compiling: for compilation, the number of the last step, to be shown with
        "compiling".
    """
    self._paused, self._compiling = time.perf_counter(), compiling
    if compiling is not None:
      text = f"step {compiling}/{self._total}  compiling"
      self.show(text, keep=not self._live)

  def resume(self, steps: int = 0) -> None:
    """Starts the clock again.

    The number of `steps` made since `pause` is left out of images per second.
    """
    self._step += steps
    self._time += time.perf_counter() - self._paused
    if self._live and self._compiling is not None:
      self.show(f"step {self._compiling + steps}/{self._total}", keep=False)

  def update(self, step: int, loss: float, lr: float) -> float | None:
    """Shows the line.

    Returns:
      Images per second since the last `update`; None if there was no step since
      then, or only steps that `resume` leaves out.
    """
    now = time.perf_counter()
    images = (step - self._step) * self._batch_size
    rate = images / max(now - self._time, 1e-9) if images else None
    text = f"step {step}/{self._total}  loss {loss:.4f}  lr {lr:.3g}"
    if rate:
      left = (self._total - step) * self._batch_size / rate
      minutes, seconds = divmod(int(left), 60)
      hours, minutes = divmod(minutes, 60)
      text += f"  {rate:.0f} images/s  ETA {hours}:{minutes:02d}:{seconds:02d}"
    if self._live or now - self._last_line > 5 or step == self._total:
      self.show(text, keep=not self._live)
      self._last_line = now
    self._step, self._time = step, time.perf_counter()
    return rate

  def show(self, text: str, keep: bool = True) -> None:
    """Prints a line; without `keep` the next line overwrites it."""
    if self._silent:
      return
    if self._live:
      text = f"\r\033[K{text}"
    print(text, end="\n" if keep else "", file=sys.stderr, flush=True)


def evaluation_bar(total: int) -> tqdm:
  """A progress bar over `total` images; it appears after five seconds."""
  return tqdm(
    total=total,
    desc="evaluating",
    unit="image",
    leave=False,
    delay=5,
    mininterval=0.1 if sys.stderr.isatty() else 30,
    disable=jax.process_index() > 0,
  )
