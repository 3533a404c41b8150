"""Where examples come from: one `Source` for each kind of dataset.

A source knows its size and yields examples whose images are still encoded: the
features of the dataset, and `"_index"`, the example's place in its dataset,
which seeds its augmentation. The pp string decodes. Only packed datasets hold
images that are decoded already.

Only TFDS datasets need TensorFlow to be opened.
"""

import re

from etils import epath

from big_crop.data.base import Source
from pp_ops.errors import UserError

EMBEDDED = "critters"
FOLDER = "folder"


def get_source(
  name: str,
  split: str,
  data_dir: str | None = None,
  *,
  shard: tuple[int, int] = (0, 1),
  shuffle_buffer_size: int = 50_000,
) -> Source:
  """Opens one split of a dataset.

  Args:
    name: `"critters"`, the embedded default; `"folder"`, for a folder of class
      folders at `data_dir`, or the path of such a folder; the path of a packed
      dataset (`big_crop.data.packed`); a TFDS name or NAME/CONFIG, prepared
      under `data_dir`; or the path of a prepared TFDS dataset.
    split: with TFDS's sub-split syntax, e.g. `"train[:99%]"`.
    data_dir: see `name`.
    shard: (index, count) of this host's share.
    shuffle_buffer_size: size in examples of the shuffle buffer for TFDS
      datasets, whose files are shuffled besides.

  Returns:
    The source.

  Raises:
    ValueError: in one line, if the dataset or the split is not there.
  """
  from big_crop.data import critters, folder, packed

  if name == EMBEDDED:
    return critters.open_critters(split, shard)
  if name == FOLDER and not data_dir:
    raise UserError("dataset 'folder' needs data_dir, the folder's path")
  path = epath.Path(data_dir if name == FOLDER else name)
  if path.is_dir():
    if packed.is_packed(path):
      return packed.open_packed(path, split, shard)
    if (path / "dataset_info.json").exists():
      return _tfds_source(name).open_directory(
        path, split, shard, shuffle_buffer_size
      )
    return folder.open_folder(path, split, shard)
  # A name such as imagenet2012_subset/10pct is TFDS's NAME/CONFIG, unless its
  # first part is a folder here: then the user means a folder in that folder.
  config = re.fullmatch(r"\w+/[\w.-]+", name) and not path.parent.is_dir()
  if name == FOLDER or ("/" in name and not config):
    raise UserError(f"dataset folder {str(path)!r} is not there")
  return _tfds_source(name).open_name(
    name, data_dir, split, shard, shuffle_buffer_size
  )


def _tfds_source(name):
  """The module that reads TFDS datasets, which loads TensorFlow."""
  try:
    from big_crop.data import tfds_source
  except ImportError as e:
    raise UserError(
      f"dataset {name!r}: TFDS datasets need tensorflow and "
      f"tensorflow_datasets, which do not load here ({e}); packed datasets, "
      "folders of class folders and 'critters' do not need them"
    ) from None
  return tfds_source
