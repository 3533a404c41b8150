"""Several hosts that run one program: they start, stop and fail together."""

import argparse
import contextlib
import itertools
import os
import sys
import traceback
import zlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from big_crop.runtime import stop
from pp_ops.errors import UserError

# A host that has been silent for this many seconds is taken for dead.
_HEARTBEAT_S = 60
# Exit status of a run that lost another host: all must be started again.
LOST_HOST = 3

_times_asked = itertools.count(1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags by which hosts find each other where JAX cannot tell."""
  group = parser.add_argument_group(
    "several hosts",
    "Nothing is needed on TPU pods, Slurm, GKE and Open MPI, which JAX detects;"
    " elsewhere give all three, on each host.",
  )
  group.add_argument(
    "--coordinator_address", metavar="HOST:PORT", help="of process 0"
  )
  group.add_argument("--num_processes", type=int)
  group.add_argument("--process_id", type=int, help="0 to num_processes - 1")


def initialize(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the other hosts, if there are any; call it before any computation.

  Args:
    coordinator_address: `host:port` of process 0.
    num_processes: number of processes.
    process_id: number of this process. If all three are None, JAX detects the
      cluster.

  Raises:
    ValueError: in one line, if only some are given or the number is too large.
  """
  given = {
    "--coordinator_address": coordinator_address,
    "--num_processes": num_processes,
    "--process_id": process_id,
  }
  missing = [flag for flag, value in given.items() if value is None]
  if missing and len(missing) < len(given):
    raise UserError(f"{missing[0]} is missing: give all of {', '.join(given)}")
  if not missing and not 0 <= process_id < num_processes:
    raise UserError(
      f"--process_id {process_id} must be from 0 to num_processes - 1, which is"
      f" {num_processes - 1}"
    )
  try:
    jax.distributed.initialize(
      coordinator_address,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=_HEARTBEAT_S,
    )
  except ValueError as e:
    if missing and "coordinator_address" in str(e):
      return  # JAX detects no cluster: this host is alone.
    raise
  stop.stop_all_hosts()


def stop_requested() -> bool:
  """Whether all hosts are to stop here; every host must ask at every step.

  A SIGTERM or Ctrl-C to any host makes all of them stop at the same step, one
  or a few steps later, on which they agree through JAX's preemption service.
  """
  if not jax.distributed.is_initialized():
    return stop.requested()
  # The preemption service stops all hosts at the first number above any that a
  # host has asked about so far. If SIGTERM arrives before the first question,
  # that number is 1. We therefore count questions from 1 instead of passing the
  # training step: a resumed run would start above 1 and never stop.
  return multihost_utils.reached_preemption_sync_point(next(_times_asked))


def gather(value: float | int) -> list:
  """Every host's value, in the order of the hosts."""
  value = np.asarray(value).reshape(1)
  # As bytes, because JAX would cut 64-bit numbers down to 32 bits.
  everywhere = multihost_utils.process_allgather(value.view(np.uint8))
  return np.atleast_2d(everywhere).view(value.dtype)[:, 0].tolist()


def agree(text: str, what: str) -> None:
  """Raises unless all hosts have the same text; `what` names it."""
  if len(set(gather(zlib.crc32(text.encode())))) > 1:
    raise UserError(
      f"{what} differs between the hosts: start all of them alike"
    )


def agree_on_first(number: int) -> int:
  """Returns, on every host, the `number` that the first host passes."""
  return gather(number)[0]


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
  """Ends the process at once when something fails, if there are other hosts.

  An orderly end would wait for the other hosts, while they wait for this host.
  The other hosts notice that this process has ended when its connections close,
  or after `_HEARTBEAT_S`.
  """
  try:
    yield
  except BaseException as e:
    alone = not jax.distributed.is_initialized() or jax.process_count() == 1
    if alone or (isinstance(e, SystemExit) and e.code == stop.STATUS):
      raise
    os._exit(_report(e))


def _report(error):
  status = 1
  if isinstance(error, SystemExit):
    status = error.code if isinstance(error.code, int) else 1
  elif isinstance(error, jax.errors.JaxRuntimeError):
    # XLA raises this when a connection closes during a collective.
    status = LOST_HOST
    print(
      "error: a computation over all hosts failed; if one of them is gone,"
      " start all again and the run goes on from its last checkpoint:"
      f" {str(error).splitlines()[0]}",
      file=sys.stderr,
    )
  else:
    traceback.print_exception(error)
  sys.stdout.flush()
  sys.stderr.flush()
  return status
