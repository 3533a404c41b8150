"""Split specs mean what they mean in TFDS, without TFDS."""

import random

import pytest

from big_crop.data.base import check_split
from pp_ops.errors import UserError


def test_common_specs():
  sizes = {"train": 1001, "validation": 50}
  for spec, ranges in [
    ("train", [("train", 0, 1001)]),
    ("train[:90%]", [("train", 0, 901)]),
    ("train[10%:]", [("train", 100, 1001)]),
    ("train[5:10]", [("train", 5, 10)]),
    ("train[-100:]", [("train", 901, 1001)]),
    ("train[-10%:]", [("train", 901, 1001)]),
    ("train[:0]", [("train", 0, 0)]),
    ("validation[:1%]", [("validation", 0, 0)]),  # halves to an even number
    ("validation[:3%]", [("validation", 0, 2)]),
    (
      "validation + train[:3]",
      [("validation", 0, 50), ("train", 0, 3)],
    ),
    ("all", [("train", 0, 1001), ("validation", 0, 50)]),
  ]:
    assert check_split(spec, sizes, "d") == ranges, spec


def test_what_is_wrong_is_said():
  for spec, message in [
    ("trian", "no such split; did you mean 'train'"),
    ("train[:101]", r"\[:101\] is out of range: the split has 100 examples"),
    ("train[:101%]", "101% is not within"),
    ("train[5]", r"\[5\] is not \[FIRST:END\]"),
    ("train[:1.5]", "'1.5' in a slice is not a whole number"),
    ("train[:1.5.5%]", "'1.5.5' in a slice is not a number"),
    ("train[:2shard]", "not shards"),
    ("all[:5]", "'all' takes no slice"),
    ("train[:5", "neither SPLIT nor"),
    ("train+", "'' is neither"),
  ]:
    with pytest.raises(UserError, match=f"of dataset d: .*{message}"):
      check_split(spec, {"train": 100}, "dataset d")


class _Size:
  def __init__(self, num_examples):
    self.num_examples = num_examples


def _spec(rng):
  number = lambda: str(rng.choice([0, 1, 7, 49, 50, 99, 100, 101, 400, 1000]))
  exact = lambda: rng.choice(
    ["33.3", "0.5", "12.5", "66.67", "1_0", ".", "1.2"]
  )

  def end():
    if rng.random() < 0.2:
      return ""
    sign = rng.choice(["", "", "-", "--" if rng.random() < 0.1 else "-"])
    unit = rng.choice(["", "", "%", "%", "%%" if rng.random() < 0.1 else "%"])
    return sign + (number() if rng.random() < 0.85 else exact()) + unit

  def part():
    name = rng.choice(["train"] * 8 + ["b-2", "b-2", "all", "no", "", "tr ain"])
    shape = rng.random()
    if shape < 0.15:
      return name
    if shape < 0.9:
      return f"{name}[{end()}:{end()}]"
    return name + rng.choice(
      ["[]", "[:]", f"[{end()}]", "[1:2:3]", "[a:b]", "["]
    )

  num = rng.choice([1, 1, 1, 2, 3])
  return rng.choice(["+", " + ", "+ "]).join(part() for _ in range(num))


def test_generated_specs_mean_what_they_mean_to_tfds():
  tfds = pytest.importorskip("tensorflow_datasets")

  def by_tfds(spec, sizes):
    infos = {k: _Size(n) for k, n in sizes.items()}
    try:
      instruction = tfds.core.ReadInstruction.from_spec(spec)
      parts = instruction.to_absolute(infos)
    except (ValueError, NotImplementedError, AttributeError):
      return None
    end = lambda p: sizes[p.splitname] if p.to is None else p.to
    return [(p.splitname, p.from_ or 0, end(p)) for p in parts]

  def by_us(spec, sizes):
    try:
      return check_split(spec, sizes, "d")
    except UserError:
      return None

  rng = random.Random(0)
  taken = 0
  for _ in range(6000):
    sizes = {
      "train": rng.choice([0, 1, 50, 99, 100, 101, 777, 1281167]),
      "b-2": rng.choice([1, 50, 1000]),
    }
    spec = _spec(rng)
    expected = by_tfds(spec, sizes)
    assert by_us(spec, sizes) == expected, (spec, sizes)
    taken += expected is not None
  assert 1500 < taken < 4500
