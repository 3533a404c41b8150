"""Scalars for TensorBoard, without TensorFlow.

This module uses TensorBoard's record writer and messages, because its
`EventFileWriter`, which is built on them, loads TensorFlow if that is
installed.
"""

import os
import socket
import time

from etils import epath

from big_crop.runtime import storage


class EventFile:
  """A new event file in a folder."""

  def __init__(self, folder: epath.Path):
    """Opens the file."""
    # Names sort by time, because TensorBoard reads files in this order.
    name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
    self._file = storage.Log(folder / f"events.out.tfevents.{name}")
    from tensorboard.summary.writer.record_writer import RecordWriter

    self._writer = RecordWriter(self._file)
    self._add(file_version="brain.Event:2")

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Adds one step's scalars."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=k, simple_value=v) for k, v in metrics.items()]
    self._add(step=step, summary=Summary(value=values))
    self._file.flush()

  def _add(self, **what):
    from tensorboard.compat.proto.event_pb2 import Event

    event = Event(wall_time=time.time(), **what)
    self._writer.write(event.SerializeToString())
