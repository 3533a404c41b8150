"""Folders of class folders: every kind of image, and files to leave out."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from big_crop import pack
from big_crop.data import base, packed, sources
from big_crop.data.input_pipeline import eval_batches, get_preprocess_fn
from big_crop.measure import shapes
from pp_ops.errors import UserError

# Lossless formats, so that files hold exactly the given pixels.
KINDS = {
  "png": {},
  "webp": {"lossless": True},
  "tif": {"format": "TIFF"},
  "TIFF": {"format": "TIFF", "compression": "tiff_lzw"},
}


def pixels(i):
  return np.random.default_rng(i).integers(0, 256, (12, 9, 3), np.uint8)


@pytest.fixture
def root(tmp_path):
  for i, (suffix, how) in enumerate(KINDS.items()):
    path = tmp_path / "images" / "ab"[i % 2] / f"{i}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(i)).save(path, **how)
  return tmp_path / "images"


def read(root, **options):
  source = sources.get_source(str(root), "all")
  pp = get_preprocess_fn("decode|resize((12, 9))")
  (batch,) = eval_batches(source, pp, ("image", "label"), 8, **options)
  return source, batch


def test_pillow_reads_what_tensorflow_cannot(root, tmp_path):
  source, batch = read(root)
  for i, image in zip(source.indices, batch.data["image"][:4], strict=True):
    number = int(source.describe(i).rsplit("/")[-1].split(".")[0])
    np.testing.assert_array_equal(image, pixels(number))
  pack.pack(str(root), str(tmp_path / "packed"), 32)
  stored = packed.open_packed(tmp_path / "packed", "all")
  images = stored.read(stored.indices)[0].swapaxes(1, 2)  # all are portraits
  found = {x.tobytes() for x in images}
  assert found == {pixels(i).tobytes() for i in range(4)}
  assert shapes.of_folder(str(root)) == {(12, 9): 4}


def test_a_broken_one_is_named_or_left_out(root):
  (root / "a" / "bad.webp").write_bytes(b"RIFF")
  with pytest.raises(UserError, match=r"corrupt example: \S*a/bad\.webp: "):
    read(root)
  _, batch = read(root, skip_corrupt=True)
  assert batch.mask.sum() == 4


def test_what_is_skipped_is_counted(root, capsys):
  for name in ("a/notes.txt", "b/labels.csv", "b/more.csv", "b/.DS_Store"):
    (root / name).write_text("x")
  (root / "a" / "x.jpg").mkdir()
  (root / "top.png").write_text("x")
  source = sources.get_source(str(root), "all")
  assert source.total_examples == 4 and source.num_classes == 2
  assert source.notes == (
    "skipped 2 .csv, 1 .txt, 1 folders inside of class folders, 1 hidden, 1 "
    "images outside of class folders"
  )
  (root / "top.png").unlink()
  assert shapes.of_folder(str(root)) == {(12, 9): 4}
  assert "skipped 2 .csv, 1 .txt, 1 hidden\n" in capsys.readouterr().err


def test_sixteen_bits_are_as_tensorflow_decodes_them(tmp_path):
  grey = np.random.default_rng(0).integers(0, 1 << 16, (8, 8), np.uint16)
  image = Image.fromarray(grey)
  image.save(tmp_path / "x.png")
  decoded = tf.io.decode_png((tmp_path / "x.png").read_bytes(), 3).numpy()
  np.testing.assert_array_equal(np.asarray(base.to_rgb(image)), decoded)
  with pytest.raises(ValueError, match="need 8 or 16 bits a channel"):
    base.to_rgb(Image.fromarray(grey.astype(np.float32)))
