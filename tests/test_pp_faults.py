"""Random wrong pp strings raise a ValueError in one short line, quickly."""

import inspect
import random
import time
import warnings

import pytest

from pp_ops import registry
from pp_ops.errors import UserError

FAULTS = [
  ("resize(8, antialias='no')", "antialias='no': need True or False"),
  ("decode(precise=1)", "precise=1: need True or False"),
  ("inception_crop_fixed(max_attempts=1.5)", "need an integer from 1 to"),
  ("inception_crop_fixed(max_attempts=True)", "True: need a number"),
  ("beta_crop(alpha=1e300)", "alpha=1e\\+300: need a number, finite"),
  ("beta_crop(alpha='2')", "alpha='2': need a number"),
  ("resize(100000)", "need at most 16384 pixels"),
  ("inception_crop(100000)", "need at most 16384 pixels"),
  ("value_range(0, 0)", "vmin and vmax are both 0: need a range"),
  ("value_range(-1, 1, None)", "in_min=None, in_max=255: need numbers"),
  ("flip_lr(key=3)", "key=3: need a feature's name"),
  ("onehot(2.5)", "depth=2.5"),
  ("lookup(3)", "mapping=3: need a file's name"),
  ("keep(3)", "need the names of features"),
  ("concat('image')", "inkeys='image': need the names"),
  ("reshape('x')", "new_shape='x': need a list of whole numbers"),
  ("pad_to_shape(3)", "shape=3: need a list of whole numbers"),
  ("resize(1e999)", "size=inf: need a number, finite"),
  ("x" * 6000, "has 6000 characters; at most 5000"),
  ("|".join(["decode"] * 300), "has 300 ops; at most 200"),
  ("(" * 2000 + ")" * 2000, "does not parse|nested too deeply"),
  ("resize(" + "-" * 4000 + "1)", "nested too deeply|not a literal"),
  ("resize(" + "9" * 4600 + ")", "does not parse"),
  ("lambda: " * 600 + "0", "does not parse|nested too deeply|not an op"),
  ("resize('a\\\n b')", "size='a b'"),
  ("resize(1(2))", "not a literal"),
  (r"resize('\d')", r"size="),
  ("\x00", "does not parse"),
  ("decode('\\ud800')", r"channels=\\ud800"),
  (None, "None is no string"),
  ("value_range(1j, 1)", "vmin=1j: need a real number"),
  (b"decode", "is no string"),
  ("a" + "[0]" * 1600, "is not an op"),
]


def _fault(spec):
  """The message of a string that must be refused, or None if it is not."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("error")
      assert callable(registry.get_preprocess_fn(spec))
  except UserError as e:
    assert len(str(e)) <= 300 and "\n" not in str(e)
    str(e).encode()  # so that it can be printed
    return str(e)
  return None


@pytest.mark.parametrize(
  ("spec", "message"), FAULTS, ids=lambda text: str(text)[:40]
)
def test_a_fault_is_one_short_line(spec, message):
  with pytest.raises(UserError, match=message):
    raise UserError(_fault(spec))


LITERALS = (
  "0 1 -1 2 3 5 8 224 0.5 1.5 100 101 1e300 -1e300 1e999 None True False 1j ..."
  " 'no' 'bilinear' 'image' '' b'x' (1,2) (0,0) [3,4] {} {1:2} set() () [] nan"
  " lambda:0 -(1) +-+1 1_000 0x10 (1,) ((1,2),(3,4)) 'rand-m9' 'rand-mx' f'{1}'"
  r" 1(2) '\d' '\n' x x.y [0]*9 1<<70 -2147483648 9223372036854775808 65536"
).split() + ["9" * 30, "9" * 400, "1 if 2 else 3"]
TYPOS = "()|,='\"\\\n\t019.-+*[]{}:; ablmbd_é\x00#@%&"


class Generator:
  """Strings of our ops with arguments of all kinds; a third has typos."""

  def __init__(self, seed):
    self.rng = random.Random(seed)
    self.parameters = {
      name: [*inspect.signature(registry.lookup(name).factory).parameters]
      for name in registry.names()
    }

  def _literal(self, depth=0):
    if depth < 3 and self.rng.random() < 0.08:
      inner = [self._literal(depth + 1) for _ in range(self.rng.randrange(4))]
      return f"({', '.join(inner)})"
    return self.rng.choice(LITERALS)

  def _op(self):
    rng = self.rng
    name = rng.choice(list(self.parameters))
    keys = [*self.parameters[name], "key", "inkey", "outkey", "x"]
    if rng.random() < 0.03:
      name = rng.choice(["foo", "", "lambda", "__import__", "a.b", "1", "é"])
    if rng.random() < 0.25:
      return name
    given = [self._literal() for _ in range(rng.choice([0, 0, 1, 1, 2, 3]))]
    for key in rng.sample(keys, min(len(keys), rng.choice([0, 0, 1, 1, 2]))):
      given.append(f"{key}={self._literal()}")
    return f"{name}({', '.join(given)})"

  def string(self):
    rng = self.rng
    spec = "|".join(self._op() for _ in range(rng.choice([1, 1, 1, 2, 3, 5])))
    if rng.random() < 0.3:
      for _ in range(rng.randrange(1, 4)):
        i, cut = rng.randrange(len(spec) + 1), rng.randrange(2)
        spec = spec[:i] + rng.choice(TYPOS) * rng.randrange(2) + spec[i + cut :]
    return spec


def _try_many(num, seed):
  generator, refused = Generator(seed), 0
  for _ in range(num):
    spec = generator.string()
    # CPU time, because other processes may use the core meanwhile; and a second
    # try, because a garbage collection may have interrupted the first.
    for _ in range(2):
      began = time.thread_time()
      fault = _fault(spec)
      if (taken := time.thread_time() - began) < 0.5:
        break
    assert taken < 0.5, spec
    refused += fault is not None
  assert 0.5 * num < refused < num


def test_generated_strings_are_refused_in_one_line_or_work():
  _try_many(3000, 0)


@pytest.mark.slow
def test_a_million_generated_strings():
  _try_many(10**6, 1)
