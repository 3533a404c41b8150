"""Stopping well: SIGTERM asks for a stop, which the loop grants."""

import os
import signal

_requested = False


def on_sigterm() -> None:
  """From now on SIGTERM sets a flag instead of ending the process."""
  signal.signal(signal.SIGTERM, _request)


def _request(signum, frame):
  del signum, frame
  global _requested
  _requested = True


def requested() -> bool:
  """Whether a SIGTERM has come."""
  return _requested


def repeat() -> None:
  """Sends the SIGTERM again, to whom has become its handler."""
  os.kill(os.getpid(), signal.SIGTERM)
