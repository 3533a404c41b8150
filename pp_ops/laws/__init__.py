"""Crop laws: random numbers -> window (y, x, h, w), as array maths.

Importing this package loads neither TensorFlow nor JAX, because a law computes
in whichever array namespace it is given.
"""

from pp_ops.laws.area import BetaLaw, FixedLaw, PowerLaw
from pp_ops.laws.law import Law, first_admissible, sample
from pp_ops.laws.names import LAWS, register_law
from pp_ops.laws.native import NativeLaw, PortLaw

__all__ = [
  "LAWS",
  "BetaLaw",
  "FixedLaw",
  "Law",
  "NativeLaw",
  "PortLaw",
  "PowerLaw",
  "first_admissible",
  "register_law",
  "sample",
]
