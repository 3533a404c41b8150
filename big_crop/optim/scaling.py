"""Learning rates for another batch size."""

from big_crop import names

_POWERS = {"linear": 1.0, "sqrt": 0.5}


def scaled_lr(
  lr: float, batch_size: int, base: int = 256, rule: str = "linear"
) -> float:
  """Scales a learning rate that was found at batch size `base`.

  Args:
    lr: the learning rate at `base`.
    batch_size: examples per step, over all devices.
    base: the batch size that `lr` was found at.
    rule: `linear`, for SGD and RMSProp (Goyal et al., arXiv:1706.02677, section
      2.1), or `sqrt`, for Adam, AdamP and LAMB (Krizhevsky, arXiv:1404.5997;
      "ResNet strikes back", appendix B).

  Returns:
    lr * batch_size / base, or lr * sqrt(batch_size / base).
  """
  names.check("rule of scaled_lr", rule, _POWERS)
  return lr * (batch_size / base) ** _POWERS[rule]
