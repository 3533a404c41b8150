"""Ops on features of any kind, which big_vision's configs use too."""

import collections

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from op_helpers import ALARM

from pp_ops.random import example_seed
from pp_ops.registry import get_preprocess_fn


def same(out, expected):
  assert list(out) == list(expected)
  for key in expected:
    np.testing.assert_array_equal(out[key], expected[key])


A, B = np.arange(6).reshape(2, 3), -np.arange(4).reshape(2, 2)
TEXT = np.array(["x", "y", "z"])


@pytest.mark.parametrize(
  "spec, features, expected",
  [
    ("concat(['a', 'b'])", dict(a=A, b=B), dict(a=np.hstack([A, B]), b=B)),
    ("concat(('a', 'a'), 'c', 0)", dict(a=A), dict(a=A, c=np.vstack([A, A]))),
    (
      "flatten",
      dict(a=dict(x=dict(y=1), z=[2, 3]), b=4),
      {"a/x/y": 1, "a/z/0": 2, "a/z/1": 3, "b": 4},
    ),
    ("flatten(['b'])", dict(a=A, b=dict(c=B)), {"a": A, "b/c": B}),
    ("flatten('ab')", dict(ab=dict(c=B), d=A), {"ab/c": B, "d": A}),
    ("setdefault('a', 7)", dict(b=B), dict(b=B, a=7)),
    ("setdefault('a', 7)", dict(a=np.zeros([0], int)), dict(a=[7])),
    ("setdefault('a', 7)", dict(a=A), dict(a=A)),
    ("reshape([3, -1], key='a')", dict(a=A), dict(a=A.reshape(3, 2))),
    ("squeeze_last_dim(key='a')", dict(a=A[..., None]), dict(a=A)),
    (
      "pad_to_shape((3, None), key='a')",
      dict(a=A),
      dict(a=np.pad(A, [[0, 1], [0, 0]])),
    ),
    (
      "pad_to_shape((5, 4), pad_value=9, where='both', key='a')",
      dict(a=A),
      dict(a=np.pad(A, [[1, 2], [0, 1]], constant_values=9)),
    ),
    (
      "pad_to_shape((3, 3), where='before', key='a')",
      dict(a=A),
      dict(a=np.pad(A, [[1, 0], [0, 0]])),
    ),
    ("choice(2, key=['a', 't'])", dict(a=A, t=TEXT[:2]), dict(a=A, t=TEXT[:2])),
    ("choice(key='t')", dict(t=TEXT[1:2]), dict(t="y")),
    ("choice(4, 't', fewer_ok=True)", dict(t=TEXT), dict(t=TEXT)),
    (
      "choice(inkey=['t', 'a'], outkey=['{key}1', 'b'])",
      dict(t=TEXT[:1], a=A[:1]),
      dict(t=TEXT[:1], a=A[:1], t1="x", b=A[0]),
    ),
  ],
)
def test_on_features(spec, features, expected):
  out = get_preprocess_fn(spec)(tf.nest.map_structure(tf.constant, features))
  decode = lambda x: x.astype(str) if x.dtype == object else x
  same({k: decode(np.asarray(v)) for k, v in out.items()}, expected)


def draws(spec, num=3000):
  fn = get_preprocess_fn(spec)
  one = lambda i: fn(
    {"a": tf.range(4), "b": 10 * tf.range(4), "_seed": example_seed(0, 0, i)}
  )
  return list(tf.data.Dataset.range(num).map(one).as_numpy_iterator())


@pytest.mark.slow
def test_choices_are_uniform_alike_and_in_order():
  outs = draws("choice(2, key=['a', 'b'])")
  counts = collections.Counter(tuple(out["a"].tolist()) for out in outs)
  assert len(counts) == 6 and all(x < y for x, y in counts)
  assert scipy.stats.chisquare([*counts.values()]).pvalue > ALARM
  assert all((out["b"] == 10 * out["a"]).all() for out in outs)
  outs = draws("choice(key='a')")
  counts = collections.Counter(int(out["a"]) for out in outs)
  assert len(counts) == 4
  assert scipy.stats.chisquare([*counts.values()]).pvalue > ALARM
  counts = collections.Counter(
    len(o["a"]) for o in draws("choice([1, 3], 'a')")
  )
  assert sorted(counts) == [1, 2, 3]
  assert scipy.stats.chisquare([*counts.values()]).pvalue > ALARM


def test_choice_says_how_many_there_are():
  fn = get_preprocess_fn("choice(2, key='a')")
  data = tf.data.Dataset.from_tensors({"a": tf.zeros([5, 3])}).map(fn)
  assert data.element_spec["a"].shape == (2, 3)
  with pytest.raises(tf.errors.InvalidArgumentError):
    fn({"a": tf.zeros([1, 3])})


def test_lookup(tmp_path):
  names = tmp_path / "names.txt"
  names.write_text("cat\nhot dog\n")
  pairs = tmp_path / "pairs.txt"
  pairs.write_text("cat,7\nhot dog,-3\n")
  arrays = tmp_path / "names.npz"
  np.savez(arrays, fnames=["cat", "hot dog"], others=["dog"])
  for spec, expected in (
    (f"lookup({str(names)!r})", [1, 0, -1]),
    (f"lookup({str(pairs)!r}, sep=',')", [-3, 7, -1]),
    (f"lookup({str(arrays)!r})", [1, 0, -1]),
    (f"lookup({str(arrays)!r}, 'others')", [-1, -1, 0]),
  ):
    fn = get_preprocess_fn(spec[:-1] + ", key='a')")
    data = tf.data.Dataset.from_tensors({"a": ["hot dog", "cat", "dog"]})
    for out in data.map(fn):
      np.testing.assert_array_equal(out["a"], expected)


@pytest.mark.parametrize(
  "spec, message",
  [
    ("lookup('/nowhere/x.txt')", "mapping='/nowhere/x.txt' does not load"),
    ("lookup('{tmp}/twice.txt')", "has a string twice"),
    ("lookup('{tmp}/empty.npz')", "does not load: No data left in file"),
    ("choice", "need key, or inkey and as many outkey"),
    ("choice(inkey=['a', 'b'], outkey='c')", "need key, or inkey"),
    ("choice(0, key='a')", "n=0: need a number, (least, most) or 'single'"),
    ("choice([3, 2], key='a')", "n=[3, 2]"),
    ("choice(key='x')", "op 'choice': no feature 'x'; there are 'a', 's'"),
    ("choice(key='s')", "has a scalar"),
    ("concat(['a', 'x'])", "op 'concat': no feature 'x'"),
    ("pad_to_shape((9,), key='a')", "op 'pad_to_shape' got (2, 3)"),
    ("pad_to_shape((9, 9), where='left')", "did you mean 'after'?"),
  ],
)
def test_mistakes_raise_one_line(spec, message, tmp_path):
  (tmp_path / "twice.txt").write_text("cat\ndog\ncat\n")
  (tmp_path / "empty.npz").touch()
  spec = spec.replace("{tmp}", str(tmp_path))
  with pytest.raises(ValueError) as e:
    get_preprocess_fn(spec)({"a": tf.constant(A), "s": tf.constant(1)})
  assert message in str(e.value) and "\n" not in str(e.value)


def test_flatten_takes_a_name_whole():
  out = get_preprocess_fn("flatten('labels')")({"label": {"a": 1}, "labels": 2})
  assert out == {"label": {"a": 1}, "labels": 2}
