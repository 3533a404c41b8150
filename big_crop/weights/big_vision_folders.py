"""Reads big_vision's current checkpoint format, a folder of arrays."""

from etils import epath

from pp_ops.errors import UserError


def find(path: str) -> epath.Path | None:
  """The checkpoint folder that `path` names, or None.

  `path` is such a folder, for example DIR/checkpoint.bv-000012345; or
  DIR/checkpoint.bv, for a run's last checkpoint: then the file
  DIR/checkpoint.bv-LAST contains the end of the folder's name, "000012345".
  """
  last = epath.Path(f"{path}-LAST")
  if last.exists():
    path = f"{path}-{last.read_text().strip()}"
  folder = epath.Path(path)
  is_one = folder.is_dir() and any(
    f.name.startswith("params~") for f in folder.iterdir()
  )
  return folder if is_one else None


def load(folder: epath.Path, collection: str) -> dict:
  """Reads a collection such as "params": {"params/head/bias": array, ...}.

  In big_vision an array's folder is named by its path in the tree, with ~
  instead of /.
  """
  import tensorstore  # always installed, because Orbax depends on it

  arrays = {}
  for place in sorted(folder.iterdir()):
    name = place.name.rstrip("/").replace("~", "/")
    if name.startswith(f"{collection}/"):
      store = tensorstore.KvStore.Spec(_url(place))
      spec = {"driver": "zarr", "kvstore": store.to_json()}
      try:
        arrays[name] = (
          tensorstore.open(spec, open=True).result().read().result()
        )
      except ValueError as e:
        reason = str(e).partition("\n")[0]
        raise UserError(f"{place} can't be read as an array: {reason}") from e
  return arrays


def _url(place):
  text = str(place)
  return text if "://" in text else f"file://{place.resolve()}"
