"""The progress line of a run: step, loss, learning rate, images/s, ETA.

Not tqdm or clu's ReportProgress, because their clocks count evaluations and
checkpoints as training.
"""

import sys
import time


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
