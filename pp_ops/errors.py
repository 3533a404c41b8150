"""The type of a user's mistakes."""


class UserError(ValueError):
  """Something that a person typed or supplied is wrong: its message says what.

  The message is one line. Commands print it, without a traceback, and end with
  status 2. Every other exception is a fault of the program: it keeps its
  traceback. A ValueError in a library or in a user's own module, as in
  `a, b = (1, 2, 3)`, is such a fault.
  """
