"""Packed datasets: Pillow's pixels, exact after a kill, never half valid."""

import errno
import io
import os
import pathlib
import shutil
import subprocess
import sys

import data_helpers
import numpy as np
import pytest
from PIL import Image

from big_crop import pack
from big_crop.data import pack_writer, packed, sources
from pp_ops.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
RES = 32
SIZES = {  # (width, height) of the file -> in the dataset
  (100, 60): (53, 32),
  (46, 90): (32, 63),
  (41, 90): (29, 64),  # 32x70 would be longer than twice 32
  (40, 60): (32, 48),
  (50, 50): (32, 32),
  (300, 40): (64, 9),
  (40, 300): (9, 64),
  (30, 20): (30, 20),  # never enlarged
  (60, 10): (60, 10),  # elongated, but small enough
  (32, 60): (32, 60),
}


def save(path, size, seed, mode="RGB", **kwargs):
  rng = np.random.default_rng(seed)
  cells = rng.integers(0, 256, (5, 7, 4), np.uint8)
  image = Image.fromarray(cells, "RGBA").resize(size, Image.Resampling.BICUBIC)
  path.parent.mkdir(parents=True, exist_ok=True)
  image.convert("RGB" if mode == "CMYK" else mode).convert(mode).save(
    path, **kwargs
  )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Two splits of two classes, of all shapes and of several modes."""
  root = tmp_path_factory.mktemp("folder")
  for i, size in enumerate(SIZES):
    save(root / "train" / f"class_{i % 2}" / f"{i}.png", size, i)
    save(root / "train" / f"class_{i % 2}" / f"{i}.jpg", size, i)
  for i, (mode, suffix) in enumerate(
    [("L", "png"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "gif"), ("1", "bmp")]
  ):
    path = root / "validation" / f"class_{i % 2}" / f"{mode}.{suffix}"
    save(path, (80, 50), i, mode)
  exif = Image.Exif()
  exif[0x0112] = 6  # EXIF's quarter turn, which must be ignored
  save(root / "validation" / "class_0" / "exif.jpg", (80, 50), 9, exif=exif)
  return root


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  monkeypatch.setattr(packed, "BLOCK", 4)
  packed._verified.clear()


@pytest.fixture
def out(folder, tmp_path):
  pack.pack(str(folder), str(tmp_path / "out"), RES)
  return tmp_path / "out"


def content(path):
  files = (p for p in path.rglob("*") if p.is_file())
  return {str(p.relative_to(path)): p.read_bytes() for p in files}


def test_sizes():
  for size, packed_size in SIZES.items():
    assert pack.fit(*size, RES, 2.0) == packed_size
  assert pack.fit(300, 100, 10, 3.0) == (30, 10)
  assert pack.fit(300, 1, 10, 1.5) == (15, 1)


def test_pixels_are_pillows(folder, out):
  source = sources.get_source(str(out), "all")
  assert isinstance(source, packed.PackedSource)
  assert source.canvas == (32, 64) and source.res == RES
  assert source.class_names == ["class_0", "class_1"]
  assert source.num_classes == 2 and source.total_examples == 26
  images, shapes, labels = source.read(source.indices)
  assert images.shape == (26, 32, 64, 3) and images.dtype == np.uint8
  assert shapes.dtype == labels.dtype == np.int32
  for i in range(26):
    path = pathlib.Path(source.describe(i))
    image = Image.open(path)
    size = SIZES.get(image.size, (51, 32))
    expected = image.convert("RGB")
    if size != expected.size:
      expected = expected.resize(size, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(source.example(i), expected, str(path))
    assert tuple(shapes[i]) == size[::-1]
    assert labels[i] == source.labels[i] == int(path.parent.name[-1])
    stored = images[i]
    if size[1] > size[0]:
      size, expected = size[::-1], expected.transpose(Image.Transpose.TRANSPOSE)
    np.testing.assert_array_equal(stored[: size[1], : size[0]], expected)
    assert not stored[size[1] :].any() and not stored[:, size[0] :].any()
  stored = np.load(out / "train" / "images.npy", mmap_mode="r")
  np.testing.assert_array_equal(stored, source.images["train"])


def test_order_is_that_of_the_folder(folder, out):
  tf = pytest.importorskip("tensorflow")
  for split, shard in [
    ("train", (0, 1)),
    ("train[:70%]+validation[2:]", (1, 3)),
    ("validation[-3:]", (0, 2)),
  ]:
    files = sources.get_source(str(folder), split, shard=shard)
    pixels = sources.get_source(str(out), split, shard=shard)
    assert files.num_examples == pixels.num_examples
    assert files.total_examples == pixels.total_examples
    for seed, skip, repeats in [(None, 0, 1), ([3, 4], 1, 1), ([5, 6], 0, 3)]:
      one = list(files.epoch(seed, skip, repeats).as_numpy_iterator())
      two = pixels.epoch(seed, skip, repeats)
      assert two.element_spec["image"].shape.as_list() == [None, None, 3]
      two = list(two.as_numpy_iterator())
      assert len(one) == len(two) == files.num_examples - skip
      for a, b in zip(one, two, strict=True):
        for key in ("_index", "_repeat", "label"):
          assert a[key] == b[key] and a[key].dtype == b[key].dtype
        assert a["file_name"].decode() == pixels.describe(b["_index"])
        expected = pixels.example(b["_index"])
        np.testing.assert_array_equal(b["image"], expected)
  # An epoch can also be made in a graph.
  ds = tf.data.Dataset.range(2).flat_map(lambda i: pixels.epoch([i, i]))
  eager = [pixels.epoch(tf.constant([i, i], tf.int64)) for i in range(2)]
  indices = [int(x["_index"]) for e in eager for x in e]
  assert [int(x["_index"]) for x in ds] == indices


def test_an_index_is_of_the_whole_dataset(out):
  both = sources.get_source(str(out), "all")
  validation = sources.get_source(str(out), "validation[2:]")
  assert validation.indices.tolist() == [22, 23, 24, 25]
  for a, b in zip(both.read([24, 22]), validation.read([24, 22]), strict=True):
    np.testing.assert_array_equal(a, b)
  images, _, _ = both.read([24, 0, 17])  # of two splits
  np.testing.assert_array_equal(images[0], both.images["validation"][4])
  np.testing.assert_array_equal(images[1], both.images["train"][0])
  with pytest.raises(IndexError, match="outside"):
    validation.read([0])
  with pytest.raises(UserError, match=r"packed dataset.*no such split"):
    sources.get_source(str(out), "test")


KILLED = (ROOT / "tests" / "killed_packing.py").read_text()


def python(program, *args, **kwargs):
  return subprocess.run(
    [sys.executable, "-c", program, *map(str, args)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    **kwargs,
  )


@pytest.fixture
def corrupt(folder, tmp_path):
  """A copy of the folder with a truncated image and a file that is no image."""
  copy = tmp_path / "corrupt"
  shutil.copytree(folder, copy)
  cut = copy / "train" / "class_0" / "0.png"
  cut.write_bytes(cut.read_bytes()[:-200])
  (copy / "train" / "class_1" / "none.jpg").write_bytes(b"nothing")
  return copy


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_exactly(corrupt, tmp_path):
  done = python(KILLED, corrupt, tmp_path / "killed")
  assert done.returncode == 0, done.stderr
  assert int(done.stdout.split()[-1]) > 40


def test_a_disk_that_lost_pixels_or_progress(folder, tmp_path, monkeypatch):
  whole, out = tmp_path / "whole", tmp_path / "out"
  pack.pack(str(folder), str(whole), RES)

  def cut_short(path, num):
    path.write_bytes(path.read_bytes()[:-num])

  def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)

  for damage in [
    lambda: None,
    lambda: cut_short(out / "train" / "images.npy", 1),
    lambda: flip(out / "train" / "images.npy", -1),
    lambda: flip(out / "train" / "images.npy", -4 * 6144),
    lambda: (out / "train" / "images.npy").unlink(),
    lambda: cut_short(out / "pack_progress.jsonl", 1),
    lambda: flip(out / "pack_progress.jsonl", -20),
    lambda: flip(out / "pack_progress.jsonl", 20),
  ]:
    stop_early(folder, out, monkeypatch, 9)
    damage()
    stop_early(folder, out, monkeypatch, 4)
    pack.pack(str(folder), str(out), RES)
    assert content(out) == content(whole)
    shutil.rmtree(out)


def fail_after(monkeypatch, num, number):
  """Lets the writer write so often, then half a block, and then fails."""
  left = [num]
  write = os.write

  def failing(fd, data):
    left[0] -= 1
    if left[0] == 0:
      return write(fd, data[: len(data) // 2])
    if left[0] < 0:
      raise OSError(number, os.strerror(number))
    return write(fd, data)

  monkeypatch.setattr(os, "write", failing)


def test_no_damaged_dataset_opens(out):
  rng = np.random.default_rng(0)
  for file in sorted(p for p in out.rglob("*") if p.is_file()):
    data = file.read_bytes()
    assert sources.get_source(str(out), "all").num_examples == 26
    places = rng.integers(0, len(data), 20)
    if file.suffix == ".json":
      places = range(len(data))
    elif file.suffix == ".npy":
      places = [*range(0, 128, 9), *places, len(data) - 1]
    for place in places:
      new = bytearray(data)
      new[place] ^= rng.integers(1, 256)
      assert_refused(out, file, new)
    assert_refused(out, file, data[:-1])
    assert_refused(out, file, data + b"\n")
    assert_refused(out, file, b"")
    assert_refused(out, file, None)
    file.write_bytes(data)


def assert_refused(out, file, data):
  if data is None:
    file.unlink()
  else:
    file.write_bytes(data)
  packed._verified.clear()  # file times are too coarse to show the change
  with pytest.raises(UserError) as e:
    sources.get_source(str(out), "all")
  assert str(file) in str(e.value) and "pack the data again" in str(e.value)
  assert "\n" not in str(e.value)


def test_what_has_changed_is_verified_again(out):
  file = out / "train" / "images.npy"
  sources.get_source(str(out), "train")
  data = bytearray(file.read_bytes())
  data[-1] ^= 1
  file.write_bytes(data)
  os.utime(file, ns=(1, 1))
  with pytest.raises(UserError, match=r"examples 16 to 19 is wrong"):
    sources.get_source(str(out), "train[:1]")
  assert sources.get_source(str(out), "validation").num_examples == 6
  index = out / "index.json"  # a newer format is not reported as damage
  index.write_text(index.read_text().replace('"version": 1', '"version": 2'))
  with pytest.raises(UserError, match=r"format version 2.*update it"):
    sources.get_source(str(out), "train")


def test_unreadable_images(corrupt, tmp_path):
  out = tmp_path / "out"
  with pytest.raises(UserError, match=r"none\.jpg: it is no image.*--skip"):
    pack.pack(str(corrupt), str(out), RES)
  (corrupt / "train" / "class_1" / "none.jpg").unlink()
  with pytest.raises(UserError, match=r"class_0/0\.png: .*--skip_corrupt"):
    pack.pack(str(corrupt), str(out), RES)
  shutil.rmtree(out)
  index = pack.pack(str(corrupt), str(out), RES, skip_corrupt=True)
  assert index["splits"]["train"]["left_out"] == 1
  source = sources.get_source(str(out), "train")
  assert source.num_examples == 19
  names = [source.describe(i) for i in source.indices]
  assert not any("/0.png" in name for name in names)
  for i, name in enumerate(names):
    assert source.labels[i] == int(pathlib.Path(name).parent.name[-1])


def test_a_disk_that_refuses_or_takes_less(folder, out, tmp_path, monkeypatch):
  full = shutil.disk_usage(tmp_path)._replace(free=1000)
  with monkeypatch.context() as m:
    m.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError, match=r"needs 0\.00 GB more"):
      pack.pack(str(folder), str(tmp_path / "new"), RES)
  with monkeypatch.context() as m:
    fail_after(m, 0, errno.EFBIG)
    with pytest.raises(UserError, match=r"cannot write to --out.*too large"):
      pack.pack(str(folder), str(tmp_path / "big"), RES)
  with monkeypatch.context() as m:

    def refuse(*args, **kwargs):
      raise PermissionError(errno.EACCES, "Permission denied")

    m.setattr(pathlib.Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot write.*Permission denied"):
      pack.pack(str(folder), str(tmp_path / "no"), RES)
  write = os.write
  monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1000]))
  pack.pack(str(folder), str(tmp_path / "slow"), RES)
  assert content(tmp_path / "slow") == content(out)


def stop_early(folder, out, monkeypatch, num):
  with monkeypatch.context() as m:
    fail_after(m, num, errno.ENOSPC)
    with pytest.raises(UserError, match=r"No space left.*command goes on"):
      pack.pack(str(folder), str(out), RES)


def test_resuming_with_something_else_is_refused(folder, tmp_path, monkeypatch):
  data, out = tmp_path / "data", tmp_path / "out"
  shutil.copytree(folder, data)
  stop_early(data, out, monkeypatch, 9)
  for kwargs, message in [
    ({"res": 16}, "begun with res 32, not 16"),
    ({"max_ratio": 3.0}, "max_ratio 2.0, not 3.0"),
    ({"skip_corrupt": True}, "skip_corrupt false, not true"),
    ({"splits": ["train"]}, "splits"),
    ({"data": str(folder)}, "data"),
  ]:
    before = content(out)
    with pytest.raises(UserError, match=message):
      pack.pack(**{"data": str(data), "out": str(out), "res": RES, **kwargs})
    assert content(out) == before
  with pytest.raises(UserError, match="packing is not finished"):
    sources.get_source(str(out), "train")
  save(data / "train" / "class_0" / "0.png", (100, 61), 1)
  with pytest.raises(UserError, match="files or labels that have changed"):
    pack.pack(str(data), str(out), RES)
  # Nothing is packed yet, so there is nothing to resume.
  out = tmp_path / "other"
  stop_early(data, out, monkeypatch, 3)
  assert (out / "pack_progress.jsonl").exists()
  assert (out / "train" / "images.npy").exists()
  assert pack.pack(str(data), str(out), 16, splits=["validation"])["res"] == 16
  assert sources.get_source(str(out), "all").canvas == (16, 26)
  assert not (out / "train").exists()


def test_finished_is_finished(folder, out, capsys):
  command = ["--data", str(folder), "--out", str(out), "--res"]
  before = content(out)
  pack.main([*command, "32", "--splits", "train,validation"])
  said = capsys.readouterr().out
  assert "finished already" in said and "26 examples" in said
  with pytest.raises(UserError, match="finished and was made with res 32"):
    pack.main([*command, "16"])
  with pytest.raises(UserError, match=r"with splits \['train', 'validation'\]"):
    pack.main([*command, "32", "--splits", "train"])
  assert content(out) == before
  (out / "train" / "names.txt").write_text("")
  with pytest.raises(UserError, match=r"names\.txt is damaged"):
    pack.main([*command, "32"])


def test_one_writer_at_a_time(folder, tmp_path):
  writer = pack_writer.Writer(tmp_path / "out")
  with pytest.raises(UserError, match="another process"):
    pack.pack(str(folder), str(tmp_path / "out"), RES)
  writer.close()
  assert not (tmp_path / "out").exists()
  pack.pack(str(folder), str(tmp_path / "out"), RES)


def test_mistakes_are_one_line(folder, out, tmp_path):
  (tmp_path / "file").write_text("")
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "precious.txt").write_text("")
  new = str(tmp_path / "new")
  for data, to, res, kwargs, message in [
    (folder, new, 0, {}, "--res 0: need at least 1"),
    (folder, new, 8, {"max_ratio": 0.5}, "--max_ratio 0.5"),
    (folder, new, 8, {"max_ratio": float("nan")}, "--max_ratio nan"),
    (folder, new, 8, {"jobs": 0}, "--jobs 0"),
    (folder, new, 8, {"splits": ["trian"]}, "did you mean 'train'"),
    (folder, new, 8, {"splits": ["train", "train"]}, "named twice"),
    (folder, tmp_path / "file", 8, {}, "is a file: name a folder"),
    (folder, tmp_path / "file" / "x", 8, {}, "cannot write.*Not a directory"),
    (folder, tmp_path / "full", 8, {}, "is not empty"),
    (folder, folder / "new", 8, {}, "lies in --data"),
    (out, new, 8, {}, "is a packed dataset already"),
    (tmp_path / "no", new, 8, {}, "is not there"),
    ("folder", new, 8, {}, "needs data_dir"),
  ]:
    with pytest.raises(UserError, match=message) as e:
      pack.pack(str(data), str(to), res, **kwargs)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "new").exists()
  assert [p.name for p in (tmp_path / "full").iterdir()] == ["precious.txt"]


WITHOUT = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "jax"):
  sys.modules[name] = None
from big_crop import pack
from big_crop.runtime import commands
from big_crop.data import critters, sources

data, out = sys.argv[1:]
pack.main(["--data", data, "--out", out, "--res", "32"])
source = sources.get_source(out, "train[:50%]")
print(source.read(source.indices)[0].shape, source.describe(0))
assert sources.get_source(data, "validation").labels.shape == (26,)
critters.SPLIT_SIZES.update(train=9, validation=4)
pack.main(["--data", "critters", "--out", out + "2", "--res", "32"])
assert sources.get_source(out + "2", "all").num_examples == 13
with commands.one_line():
  sources.get_source("mnist", "train")
"""


def test_no_tensorflow_is_needed(folder, tmp_path):
  done = python(WITHOUT, folder, tmp_path / "out")
  assert done.returncode == 2, done.stderr
  assert "(10, 32, 64, 3)" in done.stdout
  last = done.stderr.splitlines()[-1]
  assert last.startswith(
    "error: dataset 'mnist': TFDS datasets need tensorflow"
  )
  assert "Traceback" not in done.stderr


def test_a_tfds_dataset_is_packed_in_the_order_of_its_records(
  tmp_path, monkeypatch
):
  tfds = pytest.importorskip("tensorflow_datasets")
  import tensorflow as tf

  images = data_helpers.prepare(tmp_path, "png")
  out = tmp_path / "out"
  with monkeypatch.context() as m:
    fail_after(m, 12, errno.ENOSPC)
    with pytest.raises(UserError, match="No space"):
      pack.pack("prepared", str(out), RES, data_dir=str(tmp_path))
  pack.pack("prepared", str(out), RES, data_dir=str(tmp_path))
  source = sources.get_source(str(out), "train")
  assert source.num_classes == 41 and source.num_examples == 41
  for i in source.indices:
    np.testing.assert_array_equal(source.example(i), images[source.labels[i]])
  # Sub-splits have the same examples.
  builder = tfds.builder_from_directory(tmp_path / "prepared" / "1.0.0")
  for spec in ("train[:30%]", "train[50%:70%]", "validation[2:]"):
    theirs = {int(x["label"]) for x in builder.as_dataset(split=spec)}
    ours = sources.get_source(str(out), spec)
    assert {int(ours.labels[i]) for i in ours.indices} == theirs
  # An example can be found by its name.
  number, file = source.describe(20).removeprefix("record ").split(" of ")
  record = list(tf.data.TFRecordDataset(file))[int(number)]
  image = builder.info.features.deserialize_example(record)["image"]
  np.testing.assert_array_equal(image, source.example(20))


def test_whatever_pillow_raises_is_an_unreadable_image():
  file = io.BytesIO()
  Image.new("RGB", (30, 30), "red").save(file, "PNG")
  data = bytearray(file.getvalue())
  for place in range(len(data)):
    cut, reason = pack._read(bytes(data[:place]), lambda x: x.convert("RGB"))
    assert (cut is None) == (reason is not None)
    changed = data.copy()
    changed[place] ^= 0xFF
    pack._read(bytes(changed), lambda x: x.convert("RGB"))
  for error in (SyntaxError("broken"), IndexError("broken"), OSError("broken")):

    def fail(image):
      raise error

    assert pack._read(bytes(data), fail) == (None, "broken")
