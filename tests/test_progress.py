"""The progress line of a run."""

import os

import numpy as np

from big_crop.runtime import progress, quiet


def test_the_rate_is_of_training_alone(monkeypatch, capsys):
  """The rate excludes compilation, evaluation and checkpoints."""
  now = 100.0
  monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
  line = progress.Progress(total_steps=40, batch_size=8, start_step=10)
  line.pause(compiling=10)
  now += 60
  line.resume(1)
  assert line.update(11, 1.0, 0.1) is None
  assert "images/s" not in capsys.readouterr().err.splitlines()[-1]
  now += 3
  line.pause()  # a checkpoint
  now += 500
  line.resume()
  now += 2
  np.testing.assert_allclose(line.update(21, 1.0, 0.1), 10 * 8 / 5)
  assert "16 images/s  ETA 0:00:09" in capsys.readouterr().err
  line.pause(compiling=25)  # another program, for three steps
  now += 60
  line.resume(3)
  now += 4
  np.testing.assert_allclose(line.update(30, 1.0, 0.1), (9 - 3) * 8 / 4)
  assert "step 25/40  compiling\n" in capsys.readouterr().err


def test_only_known_lines_are_kept_back(capfd):
  line = "E0000 00:00:1795671150.342438 15227 cuda_platform.cc:52] {}\n"
  chatter = line.format("failed call to cuInit: INTERNAL: CUDA error: (303)")
  fault = line.format("failed to open a library")
  with quiet._filtered_stderr():
    os.write(2, (chatter + fault + chatter + "the end").encode())
  assert capfd.readouterr().err == fault + "the end"
