"""The exception for a user's mistakes."""


class UserError(ValueError):
  """Something that a person typed or supplied is wrong; the message says what.

  The message is one line. Commands print it, without a traceback, and end with
  status 2. Every other exception is a bug and keeps its traceback, also another
  ValueError, as `a, b = (1, 2, 3)` raises in a library or a user's own module.
  """
