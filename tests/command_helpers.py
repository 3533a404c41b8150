"""A run that takes seconds, for commands to evaluate, and their errors."""

import contextlib

import pytest

from big_crop import config as configs
from big_crop.runtime import commands

PP = "decode|resize(32)|value_range(-1, 1)"


def run_config(train, val):
  """Two steps on data with these keys, without a model."""
  c = configs.default_config()
  c.total_steps = 2
  c.input.data, c.input.pp, c.input.batch_size = train, PP, 16
  c.evals.val = dict(data=val, pp_fn=PP, batch_size=8)
  c.log_training_steps = 1
  return c


@contextlib.contextmanager
def exits_with_one_line(capsys, message):
  with pytest.raises(SystemExit) as e, commands.one_line():
    yield
  assert e.value.code == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert line.startswith("error: ") and message in line
