"""RMS calibration error: how far confidence is from accuracy.

The images are sorted by confidence, which is the largest softmax probability,
and consecutive images are put into bins of 100 (Nguyen and O'Connor,
arXiv:1508.05154; Hendrycks et al., arXiv:1812.04606):

    sqrt(sum_b n_b / n (accuracy_b - confidence_b)^2)
"""

import numpy as np

from big_crop.evaluators import classification
from pp_ops.checks import check_number


def rms_error(
  confidence: np.ndarray,
  correct: np.ndarray,
  bin_size: int = 100,
  without_last: bool = False,
) -> float:
  """The error, as a fraction.

  Args:
    confidence: [n] float. Images of equal confidence keep their order.
    correct: [n], 1 where the prediction is right, otherwise 0.
    bin_size: images per bin. The last bin also takes the remaining n % bin_size
      images, as in PixMix.
    without_last: leave out the sum's last term, the bin of the most confident
      images, although n still counts them. PixMix's `calib_err` does this
      (arXiv:2112.05135), and CropMix follows PixMix's protocol.
  """
  order = np.argsort(confidence, kind="stable")
  n = len(order)
  ends = np.arange(bin_size, n - bin_size + 1, bin_size)
  gap = np.asarray(correct, np.float64) - np.asarray(confidence, np.float64)
  bins = np.split(gap[order], ends)
  terms = [len(b) / n * b.mean() ** 2 for b in bins]
  return float(np.sqrt(sum(terms[:-1] if without_last else terms)))


class Evaluator(classification.Evaluator):
  """Top-1, top-5, loss, and `rms_calibration`, as fractions.

  `rms_calibration_pixmix` is the value without the last bin. It is there only
  if there are at least two bins.
  """

  def __init__(self, *, bin_size: int = 100, **rest):
    """Opens the data.

    Args:
      bin_size: images per bin.
      **rest: see `classification.Evaluator`.

    Raises:
      ValueError: if any of it is wrong.
    """
    check_number("bin_size", bin_size, 1, whole=True)
    super().__init__(**rest)
    self._bin_size = bin_size

  def _metrics(self, rows):
    metrics, n = super()._metrics(rows), len(rows["top1"])
    error = lambda **kw: rms_error(
      rows["confidence"], rows["top1"], self._bin_size, **kw
    )
    if n:
      metrics["confidence"] = float(rows["confidence"].mean())
      metrics["rms_calibration"] = error()
    if n >= 2 * self._bin_size:
      metrics["rms_calibration_pixmix"] = error(without_last=True)
    return metrics
